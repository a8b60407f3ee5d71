// SPDX-License-Identifier: MIT
// Every way in which Python's pool hangs, by its number in CPython's tracker. Each ends here, with
// a clear error or plain success.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "family.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace fault;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using bytes = std::vector<std::uint8_t>;

support::gate* door = nullptr;
std::atomic<int>* starts = nullptr;

long square(long x) {
  return x * x;
}

pid_t pid_slowly(long) {
  std::this_thread::sleep_for(5ms);
  return getpid();
}

void kill_myself() {
  kill(getpid(), SIGKILL);
}

void exit_with_seven() {
  std::exit(7);
}

bytes echo(const bytes& data) {
  return data;
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

/// A result that the parent refuses to decode.
struct unwelcome {
  int value = 0;
};
pid_t home = 0;  ///< where it is refused

/// An exception that only the worker knows.
struct private_failure {
  std::string text;
};

}  // namespace

template <>
struct procpool::codec<unwelcome> {
  static void encode(encoder& out, const unwelcome& from) { out.put(from.value); }
  static unwelcome decode(decoder& in) {
    const int value = in.get<int>();
    if (getpid() == home) throw std::runtime_error("cannot be had here");
    return {value};
  }
};

namespace {

void throw_private_failure() {
  throw private_failure{"nobody knows me"};
}

/// The pool that failed with @p initializer, and how many workers were started for it.
int count_starts(const procpool::Initializer& initializer, const char* reason) {
  const support::shared<std::atomic<int>> count;
  starts = count.get();
  procpool::Pool pool{{.processes = 2, .initializer = initializer}};
  auto result = pool.apply_async(square, 3L);
  try {
    static_cast<void>(result.get(20s));
    FAIL("the initializer fails, so there can be no result");
  } catch (const procpool::BrokenPool& error) {
    CHECK_THAT(error.what(), ContainsSubstring(reason));
  }
  CHECK_THROWS_AS(pool.apply(square, 3L), procpool::BrokenPool);
  std::this_thread::sleep_for(200ms);  // a second's worth of Python's would be 236
  CHECK(*count <= 6);
  pool.close();
  pool.join();
  return *count;
}

}  // namespace

TEST_CASE("cpython#96062: a worker killed in the middle of a task: WorkerDied, every time",
          "[fault][hangs]") {
  const support::shared<std::atomic<pid_t>> pid;
  static std::atomic<pid_t>* victim = nullptr;
  victim = pid.get();
  procpool::Pool pool{2};
  for (int round = 0; round < 50; ++round) {
    *pid = 0;
    auto result = pool.apply_async([] {
      *victim = getpid();
      std::this_thread::sleep_for(20s);
    });
    auto other = pool.apply_async(square, 5L);
    REQUIRE(support::eventually([&] { return *pid != 0; }));
    kill(*pid, SIGKILL);
    CHECK_THROWS_AS(result.get(10s), procpool::WorkerDied);
    CHECK(other.get(10s) == 25);
  }
  std::printf("#96062: 50 workers killed in a task, 50 WorkerDied, 0 hangs\n");
}

TEST_CASE("cpython#96062: idle workers killed, one or all: the pool goes on and can be ended",
          "[fault][hangs]") {
  for (int round = 0; round < 30; ++round) {
    procpool::Pool pool{3};
    const auto seen = pool.map(pid_slowly, numbers(9), {.chunksize = 1});
    kill(seen.front(), SIGKILL);
    if (round % 2 == 0) {
      for (pid_t pid : seen) kill(pid, SIGKILL);
    }
    if (round % 3 == 0) {
      // A worker that is not dead yet may take a task with it, but only the one it had begun.
      for (const auto& each : pool.map_outcomes(square, numbers(50), {.chunksize = 1})) {
        if (!each) CHECK_THROWS_AS(each.value(), procpool::WorkerDied);
      }
      CHECK(pool.map(square, numbers(50)).back() == 2401);
      pool.close();
      pool.join();
    } else if (round % 3 == 1) {
      pool.terminate();
      pool.join();
    }
  }
  std::printf("#96062: idle workers of 30 pools killed, all went on and ended\n");
}

TEST_CASE("cpython#101081: exit in a task is WorkerDied with the exit code", "[fault][hangs]") {
  procpool::Pool pool{2};
  for (int round = 0; round < 20; ++round) {
    auto result = pool.apply_async(exit_with_seven);
    try {
      result.get(10s);
      FAIL("it has left");
    } catch (const procpool::WorkerDied& death) {
      CHECK(death.exitcode() == 7);
    }
  }
  CHECK(pool.apply(square, 5L) == 25);
}

TEST_CASE("cpython#87472: an initializer that fails breaks the pool after a few starts",
          "[fault][hangs]") {
  const int throwing = count_starts({[] {
                                      ++*starts;
                                      throw std::runtime_error("no database");
                                    }},
                                    "no database");
  const int dying = count_starts({[] {
                                   ++*starts;
                                   kill_myself();
                                 }},
                                 "signal 9");
  const int leaving = count_starts({[] {
                                     ++*starts;
                                     std::exit(7);
                                   }},
                                   "code 7");
  std::printf("#87472: workers started for an initializer that throws %d, dies %d, exits %d\n",
              throwing, dying, leaving);
}

TEST_CASE("cpython#103061: a result that the parent cannot decode is an error of its task",
          "[fault][hangs]") {
  home = getpid();
  procpool::Pool pool{2};
  auto result = pool.apply_async([] { return unwelcome{1}; });
  CHECK_THROWS_WITH(result.get(10s), ContainsSubstring("cannot be had here"));
  auto many = pool.map_async([](long x) { return unwelcome{static_cast<int>(x)}; }, numbers(20));
  CHECK_THROWS_WITH(many.get(10s), ContainsSubstring("cannot be had here"));
  CHECK(pool.map(square, numbers(20)).back() == 361);
}

TEST_CASE("cpython#79492: an exception that the parent cannot rebuild arrives all the same",
          "[fault][hangs]") {
  procpool::Pool pool{2};
  auto result = pool.apply_async(throw_private_failure);
  try {
    result.get(10s);
    FAIL("it has thrown");
  } catch (const procpool::RemoteError& error) {
    CHECK_THAT(error.type_name(), ContainsSubstring("private_failure"));
  }
  CHECK(pool.apply(square, 5L) == 25);
}

TEST_CASE("cpython#83371: a callback that throws is reported and harms nothing", "[fault][hangs]") {
  const auto run = support::capture_child([] {
    procpool::Pool pool{2};
    const auto broken = [](auto&&) { throw std::runtime_error("the callback broke"); };
    auto one = pool.apply_async({.callback = broken}, square, 5L);
    CHILD_REQUIRE(one.get(10s) == 25);
    auto other = pool.apply_async({.error_callback = broken}, throw_private_failure);
    CHILD_REQUIRE(other.wait(10s));
    CHILD_REQUIRE(pool.map(square, numbers(100)).back() == 9801);
    pool.close();
    pool.join();
    return 0;
  });
  CHECK(run.exitcode == 0);
  CHECK_THAT(run.err, ContainsSubstring("the callback broke"));
}

TEST_CASE("cpython#84291: imap takes no more of an endless input than it is told",
          "[fault][hangs]") {
  long taken = 0;
  procpool::Pool pool{2};
  auto endless = std::views::iota(0L) | std::views::transform([&](long x) { return ++taken, x; });
  {
    auto results = pool.imap(square, endless, {.chunksize = 4, .buffersize = 40});
    for (long i = 0; i < 1000; ++i) {
      REQUIRE(results.next(10s) == i * i);
      REQUIRE(taken <= i + 1 + 40);
    }
    std::this_thread::sleep_for(100ms);
    CHECK(taken <= 1040);
  }
  std::printf("#84291: %ld items taken of an endless input for 1000 results\n", taken);
  pool.close();
  pool.join();
}

TEST_CASE("cpython#111873: workers do not outlive a parent that is killed", "[fault][hangs]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  family one([] {
    procpool::Pool pool{3};
    pool.map([](long) { door->pass(); }, numbers(3), {.chunksize = 1});
    return 0;
  });
  REQUIRE(gate->wait_for(3));
  one.kill_head();
  CHECK(one.gone());
}

TEST_CASE("cpython#114390: arguments and results larger than any shared memory go through",
          "[fault][hangs][limit:120]") {
  procpool::Pool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
  bytes large(16 << 20);
  std::uint32_t x = 1;
  for (auto& byte : large) byte = static_cast<std::uint8_t>((x = x * 1664525 + 1013904223) >> 24);
  CHECK(pool.apply(echo, large) == large);
  std::vector<procpool::AsyncResult<bytes>> both_ways;
  for (int i = 0; i < 3; ++i) both_ways.push_back(pool.apply_async(echo, large));
  for (auto& each : both_ways) CHECK(each.get() == large);
  std::printf("#114390: 4 times 16 MiB there and back through rings of 4 KiB\n");
}

TEST_CASE("cpython#114390: no room for shared memory is an error, not a signal", "[fault][hangs]") {
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100'000}, rlim_t{1} << 20}) {
    const int code = support::run_child([limit] {
      const rlimit most{limit, limit};
      CHILD_REQUIRE(setrlimit(RLIMIT_FSIZE, &most) == 0);
      try {
        procpool::Pool pool{2};
        CHILD_REQUIRE(pool.map(square, numbers(100)).back() == 9801);
      } catch (const procpool::ProcessError& error) {
        CHILD_REQUIRE(error.code().value() == EFBIG);
      }
      return 0;
    });
    INFO("RLIMIT_FSIZE " << limit);
    CHECK(code == 0);
  }
}
