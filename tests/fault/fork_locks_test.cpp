// SPDX-License-Identifier: MIT
// Locks that one thread has while another one forks: the child has a copy that nobody opens.
#include <link.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/procpool.hpp>

#include "support/sanitizers.hpp"

namespace {

using namespace std::chrono_literals;

long successor(long x) {
  return x + 1;
}

/// Needs the loader twice: for the pool, and for a function of a library.
long nested(long x) {
  procpool::Pool pool{1};
  return pool.apply(successor, x) + pool.apply(labs, -1L);
}

[[noreturn]] void crash() {
  std::abort();
}

/// A crash in a nested pool, described there with names.
bool nested_crash() {
  procpool::Pool pool{1};
  try {
    pool.apply(crash);
  } catch (const procpool::WorkerDied& died) {
    return std::string(died.what()).find("crash") != std::string::npos;
  }
  return false;
}

/// A thread that is inside dl_iterate_phdr, on the library's account, for most of the time.
class loader_user {
 public:
  loader_user() {
    while (!inside_) std::this_thread::yield();
  }
  ~loader_user() {
    stop_ = true;
    thread_.join();
  }

 private:
  void run() {
    while (!stop_) {
      procpool::detail::for_each_module(
          [](dl_phdr_info*, std::size_t, void* self) {
            static_cast<loader_user*>(self)->inside_ = true;
            std::this_thread::sleep_for(20ms);
            return 1;
          },
          this);
    }
  }

  std::atomic<bool> inside_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_{[this] { run(); }};
};

/// The exit code of a child that has 20 s for @p body.
int run_forked(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 99;
    try {
      code = body();
    } catch (...) {
    }
    _exit(code);
  }
  for (int i = 0; i < 20'000; ++i) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    std::this_thread::sleep_for(1ms);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1000;  // stuck
}

/// Threads that run until the end of the test; what they throw, or whoever is stuck, is counted.
class crowd {
 public:
  ~crowd() { stop(); }
  void stop() {
    stop_ = true;
    for (auto& each : threads_) each.join();
    threads_.clear();
  }
  void add(std::function<void(crowd&)> round) {
    threads_.emplace_back([this, round = std::move(round)] {
      while (!stop_) {
        try {
          round(*this);
          ++rounds;
        } catch (const std::exception& error) {
          std::printf("%s\n", error.what());
          ++wrong;
        }
      }
    });
  }
  template <class Result>
  void expect(const procpool::AsyncResult<Result>& result, Result value) {
    if (!result.wait(20s)) {
      ++stuck;
    } else if (result.get() != value) {
      ++wrong;
    }
  }

  std::atomic<int> rounds{0};
  std::atomic<int> stuck{0};
  std::atomic<int> wrong{0};

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE("A pool made while another thread has the loader's lock: workers make pools", "[fault]") {
  const loader_user other;
  for (int i = 0; i < 20; ++i) {
    procpool::Pool pool{1};
    const auto result = pool.apply_async(nested, 1L);
    REQUIRE(result.wait(20s));
    CHECK(result.get() == 3);
    CHECK(pool.apply(nested_crash));
  }
}

TEST_CASE("A child forked while another thread has the loader's lock makes a pool", "[fault]") {
  const loader_user other;
  for (int i = 0; i < 5; ++i) {
    CHECK(run_forked([] { return nested(1) == 3 && nested_crash() ? 0 : 1; }) == 0);
    procpool::Process process([] { std::exit(nested(1) == 3 && nested_crash() ? 0 : 1); });
    process.start();
    REQUIRE(process.join(20s));
    CHECK(process.exitcode() == 0);
  }
}

TEST_CASE("A fork in a callback of the loader's is not kept waiting for ever", "[fault]") {
  // This thread has the loader's lock, waits for ours; another one has ours and waits for that.
  std::atomic<bool> stop{false};
  std::thread other;
  const std::pair both{&stop, &other};
  dl_iterate_phdr(
      [](dl_phdr_info*, std::size_t, void* data) {
        const auto& [stops, thread] = *static_cast<decltype(both)*>(data);
        *thread = std::thread([stops = stops] {
          const auto end = [](dl_phdr_info*, std::size_t, void*) { return 1; };
          while (!*stops) procpool::detail::for_each_module(end, nullptr);
        });
        std::this_thread::sleep_for(50ms);
        CHECK(run_forked([] { return 7; }) == 7);
        return 1;
      },
      const_cast<std::pair<std::atomic<bool>*, std::thread*>*>(&both));
  stop = true;
  other.join();
}

TEST_CASE("A callback of the loader's that needs the loader is not kept waiting for ever",
          "[fault]") {
  // As above; here both go on waiting for as long as there is patience.
  CHECK(run_forked([] {
          std::thread other;
          dl_iterate_phdr(
              [](dl_phdr_info*, std::size_t, void* thread) {
                *static_cast<std::thread*>(thread) = std::thread([] {
                  const auto end = [](dl_phdr_info*, std::size_t, void*) { return 1; };
                  procpool::detail::for_each_module(end, nullptr);
                });
                std::this_thread::sleep_for(50ms);
                const auto end = [](dl_phdr_info*, std::size_t, void*) { return 1; };
                return procpool::detail::for_each_module(end, nullptr);
              },
              &other);
          other.join();
          return 7;
        }) == 7);
}

TEST_CASE("Pools, crashes, callbacks and library functions beside all kinds of forks",
          "[fault][limit:240]") {
  procpool::Pool shared{2};
  const std::string large(100'000, 'x');
  crowd threads;
  threads.add([](crowd& all) {
    procpool::Pool pool{1};
    all.expect(pool.apply_async(nested, 1L), 3L);
  });
  threads.add([](crowd& all) {
    procpool::Pool pool{1};
    all.expect(pool.apply_async(nested_crash), true);
  });
  threads.add([&](crowd&) {
    try {
      shared.apply(crash);
    } catch (const procpool::WorkerDied&) {
    }
  });
  threads.add([&](crowd& all) {
    const auto size = [](const std::string& text) { return text.size(); };
    all.expect(shared.apply_async({.callback = [](std::size_t&) {}}, size, large), large.size());
  });
  threads.add([](crowd& all) {
    procpool::Process process([] { std::exit(nested(1) == 3 ? 0 : 1); });
    process.start();
    if (!process.join(20s)) ++all.stuck;
    if (process.exitcode() != 0) ++all.wrong;
  });
  int children = 0;
  const auto until = std::chrono::steady_clock::now() + 3s;
  while (std::chrono::steady_clock::now() < until || children < 20) {
    auto inherited = std::make_unique<procpool::AsyncResult<long>>(shared.apply_async(labs, -5L));
    const int code = run_forked([&] {
      inherited.reset();
      try {
        static_cast<void>(shared.apply(successor, 1L));
        return 1;
      } catch (const std::logic_error&) {  // the pool is the parent's
      }
      return nested(1) == 3 && nested_crash() ? 0 : 2;
    });
    ++children;
    REQUIRE(code == 0);
  }
  threads.stop();
  CHECK(threads.stuck == 0);
  CHECK(threads.wrong == 0);
  std::printf("fork locks: %d children, %d rounds of 5 threads\n", children, threads.rounds.load());
}
