// SPDX-License-Identifier: MIT
// Several threads make pools at the same time, and tasks of these make pools of their own. What one
// thread asks the loader must not be locked for ever in what another one forks. Argument: rounds.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

static long nested(long x) {
  procpool::Pool inner{1};
  return inner.apply([](long y) { return y + 1; }, x);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  std::atomic<int> stuck{0};
  std::atomic<int> wrong{0};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) procpool::ThreadPool{1};
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < rounds && stuck < 3; ++i) {
        procpool::Pool pool{1};
        const auto result = pool.apply_async(nested, long{i});
        if (!result.wait(std::chrono::seconds(20))) {
          ++stuck;
        } else if (result.get() != i + 1) {
          ++wrong;
        }
      }
    });
  }
  for (auto& each : threads) each.join();
  stop = true;
  other.join();
  fmt::print("{} stuck, {} wrong\n", stuck.load(), wrong.load());
  return stuck + wrong != 0 ? 1 : 0;
}
