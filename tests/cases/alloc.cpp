// SPDX-License-Identifier: MIT
// One allocation of the program fails, at every place of a call in turn: a death, a time limit, an
// asynchronous call, the end of the pool, a cancel(). Exits with 0 when each time the call throws,
// and the pool works on, or says that it is broken, and can be ended. Arguments: the first place,
// the place behind the last, the name of the scenario; by default some places of all.
#include <procpool/procpool.hpp>

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

using namespace std::chrono_literals;

namespace {

std::atomic<long> left{-1};  // so many allocations succeed, then one fails

}  // namespace

// Inlined, g++ would take malloc and operator delete for mismatched.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (left.load() >= 0 && left.fetch_sub(1) == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace {

long square(long x) {
  return x * x;
}
long die(long x) {
  raise(SIGKILL);
  return x;
}
long slow(long x) {
  usleep(100'000);
  return x;
}

template <class Call>
void with_failure(long place, Call call) {
  left = place;
  try {
    call();
  } catch (const std::bad_alloc&) {
  } catch (const procpool::Error&) {
  }
  left = -1;
}

void play(long place, const std::string& what) {
  procpool::Pool pool{1};
  pool.apply(square, 2L);
  if (what == "death") with_failure(place, [&] { pool.apply(die, 1L); });
  if (what == "late") with_failure(place, [&] { pool.apply({.timeout = 10ms}, slow, 1L); });
  if (what == "async") with_failure(place, [&] { pool.apply_async(square, 2L).wait(2s); });
  if (what == "end") return with_failure(place, [&] { pool.terminate(); });
  if (what == "cancel") {
    std::vector<procpool::AsyncResult<long>> all;
    for (long i = 1; i <= 3; ++i) all.push_back(pool.apply_async(slow, i));
    with_failure(place, [&] { all[2].cancel(); });
    for (auto& each : all) {
      if (!each.wait(4s)) _exit(3);
    }
  }
  try {
    if (pool.apply_async(square, 3L).get(4s) != 9) _exit(1);
  } catch (const procpool::BrokenPool&) {
  } catch (const procpool::TimeoutError&) {
    _exit(2);
  }
}

/// Whether all places were right.
bool run(long from, long to, const std::string& what) {
  long fine = 0;
  for (long place = from; place < to; ++place) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      alarm(30);
      play(place, what);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    kill(-child, SIGKILL);
    if (status == 0) {
      ++fine;
    } else {
      std::printf("%s, allocation %ld: status %x (e: never ended)\n", what.c_str(), place,
                  static_cast<unsigned>(status));
    }
  }
  std::printf("%s: %ld of %ld right\n", what.c_str(), fine, to - from);
  return fine == to - from;
}

}  // namespace

int main(int argc, char** argv) {
  pthread_atfork(nullptr, nullptr, [] { left = -1; });
  const long from = argc > 1 ? std::atol(argv[1]) : 0;
  const long to = argc > 2 ? std::atol(argv[2]) : 30;
  bool right = true;
  for (const char* each : {"death", "late", "async", "end", "cancel"}) {
    if (argc > 3 && std::string(argv[3]) != each) continue;
    right &= run(from, to, each);
  }
  return right ? 0 : 1;
}
