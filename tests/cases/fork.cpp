// SPDX-License-Identifier: MIT
// A program forks while three of its threads use pools. The child cannot use the inherited pool,
// but can make one of its own, and ends. Argument: forks.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

static long square(long x) {
  return x * x;
}

[[noreturn]] static void live(procpool::Pool<>& inherited, bool makes_pool) {
  try {
    static_cast<void>(inherited.apply(square, 3L));
    _exit(1);
  } catch (const std::logic_error&) {
  }
  if (makes_pool) {
    procpool::Pool own{1};
    if (own.apply(square, 5L) != 25) _exit(2);
  }
  _exit(0);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  std::atomic<bool> stop{false};
  procpool::Pool pool{2};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!stop) static_cast<void>(pool.apply(square, 3L));
  });
  threads.emplace_back([&] {
    while (!stop) {
      static_cast<void>(pool.apply_async({.callback = [](long&) {}}, square, 3L).get());
    }
  });
  threads.emplace_back([&] {
    while (!stop) {
      procpool::Pool other{1};
      static_cast<void>(other.apply(square, 4L));
    }
  });
  int stuck = 0;
  int wrong = 0;
  for (int i = 0; i < rounds && stuck < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) live(pool, i % 3 == 0);
    int status = 0;
    int waited = 0;
    while (waitpid(child, &status, WNOHANG) == 0 && ++waited < 20000) usleep(500);
    if (waited == 20000) {
      ++stuck;
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
    } else if (status != 0) {
      ++wrong;
    }
  }
  stop = true;
  for (auto& each : threads) each.join();
  fmt::print("{} children stuck, {} wrong\n", stuck, wrong);
  return stuck + wrong != 0 ? 1 : 0;
}
