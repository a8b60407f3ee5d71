// SPDX-License-Identifier: MIT
// What is different in a pool without workers: tasks run in the caller, when they are submitted.
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using pool_type = procpool::Pool<procpool::Serial>;

pool_type* own = nullptr;
std::thread::id where;
const void* frame_of_task = nullptr;
int runs = 0;

long square(long x) {
  return x * x;
}

void remember() {
  where = std::this_thread::get_id();
  frame_of_task = __builtin_frame_address(0);
}

std::uint64_t factorial(std::uint64_t n) {
  return n <= 1 ? 1 : n * own->apply(factorial, n - 1);
}

std::vector<long> numbers(long count) {
  std::vector<long> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0L);
  return all;
}

}  // namespace

TEST_CASE("serial: a task runs on the calling thread, on its stack, before submission returns",
          "[serial_pool]") {
  const auto processes = support::descendants_of(getpid()).size();
  pool_type pool{4};
  frame_of_task = nullptr;
  const auto result = pool.apply_async(remember);
  CHECK(result.ready());
  CHECK(where == std::this_thread::get_id());
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto there = reinterpret_cast<std::uintptr_t>(frame_of_task);
  CHECK(there != 0);
  CHECK((here - there < 1 << 20 || there - here < 1 << 20));  // a fibre of a sanitizer aside
  CHECK(support::descendants_of(getpid()).size() == processes);
}

TEST_CASE("serial: a task may use its own pool", "[serial_pool]") {
  pool_type pool{1};
  own = &pool;
  CHECK(pool.apply(factorial, 10U) == 3'628'800);
  const auto sum = [](long n) {
    const auto all = own->map(square, numbers(n));
    return std::accumulate(all.begin(), all.end(), 0L);
  };
  CHECK(pool.map(sum, std::vector<long>{3, 4, 5}) == std::vector<long>{5, 14, 30});
  CHECK(pool.apply(factorial, 200U) == 0);  // deep; modulo 2^64
}

TEST_CASE("serial: a task that closes or terminates its own pool", "[serial_pool]") {
  for (const bool terminate : {false, true}) {
    pool_type pool{1};
    own = &pool;
    CHECK(pool.apply([terminate] {
      terminate ? own->terminate() : own->close();
      return 5;
    }) == 5);
    CHECK_THROWS_AS(pool.apply(square, 3L), procpool::PoolClosed);
    pool.join();
  }
}

TEST_CASE("serial: what is left of a map whose task closes the pool is refused", "[serial_pool]") {
  pool_type pool{1};
  own = &pool;
  const auto close_at_three = [](long x) {
    if (x == 3) own->close();
    return x;
  };
  CHECK_THROWS_AS(pool.map(close_at_three, numbers(10), {.chunksize = 1}), procpool::PoolClosed);
  pool.join();
}

TEST_CASE("serial: exceptions have their type and the remote part, and end nothing",
          "[serial_pool]") {
  pool_type pool{1};
  try {
    pool.apply([] { throw std::out_of_range("no such key"); });
    FAIL("nothing was thrown");
  } catch (const std::out_of_range& error) {
    CHECK_THROWS_AS(std::rethrow_if_nested(error), procpool::RemoteTraceback);
  }
  CHECK_THROWS_AS(pool.apply([] { throw 42; }), procpool::RemoteError);
  CHECK(pool.apply(square, 3L) == 9);
}

TEST_CASE("serial: arguments and results pass through the codec", "[serial_pool]") {
  pool_type pool{1};
  const std::string text(5 << 20, 'x');
  CHECK(pool.apply([](const std::string& all) { return all.size(); }, text) == text.size());
  std::string mine = "mine";
  CHECK(pool.apply([](std::string all) { return all += "!"; }, mine) == "mine!");
  CHECK(mine == "mine");
}

TEST_CASE("serial: callbacks have run when submission returns", "[serial_pool]") {
  pool_type pool{1};
  long seen = 0;
  auto result = pool.apply_async({.callback = [&](long& x) { seen = x; }}, square, 4L);
  CHECK(seen == 16);
  int done = 0;
  result.add_done_callback([&](auto& each) { done = each.ready() ? 1 : 2; });
  CHECK(done == 1);
}

TEST_CASE("serial: a task knows its number and attempt, and outside there is no worker",
          "[serial_pool]") {
  pool_type pool{{.processes = 1, .seed = 7}};
  own = &pool;
  const auto numbers_of = [](long) {
    const auto before = procpool::current_worker().task_number();
    own->apply(square, 2L);
    const auto after = procpool::current_worker().task_number();
    return std::pair(before, after);
  };
  for (const auto& [before, after] : pool.map(numbers_of, numbers(4))) CHECK(before == after);
  CHECK(pool.apply([] { return procpool::current_worker().attempt(); }) == 1);
  CHECK_THROWS_AS(procpool::current_worker(), std::logic_error);
}

TEST_CASE("serial: several threads at once", "[serial_pool]") {
  pool_type pool{1};
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (long t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (long i = 0; i < 300; ++i) {
        if (pool.apply(square, t * i) == t * i * t * i) ++right;
        if (pool.map(square, numbers(10)).back() == 81) ++right;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(right == 2400);
}

TEST_CASE("serial: a result of a thread that is still at it can be awaited", "[serial_pool]") {
  pool_type pool{1};
  std::atomic<bool> begun = false;
  static std::atomic<bool>* mark = nullptr;
  mark = &begun;
  std::thread other([&] {
    pool.apply([] {
      *mark = true;
      std::this_thread::sleep_for(100ms);
    });
  });
  while (!begun) std::this_thread::yield();
  CHECK(pool.apply(square, 5L) == 25);  // does not wait for the other one
  other.join();
}

TEST_CASE("serial: threads that join the pool in tasks and callbacks do not wait for each other",
          "[serial_pool][limit:20]") {
  for (const bool in_callback : {false, true}) {
    pool_type pool{1};
    static std::barrier<>* together = nullptr;
    std::barrier both(2);
    together = &both;
    own = &pool;
    const auto end = [](long x) {
      together->arrive_and_wait();
      own->close();
      own->join();
      return x;
    };
    const auto run = [&] {
      if (in_callback) pool.apply_async({.callback = end}, square, 3L);
      if (!in_callback) pool.apply_async(end, 3L);
    };
    std::thread one(run);
    std::thread other(run);
    one.join();
    other.join();
    pool.join();
    CHECK_THROWS_AS(pool.apply(square, 3L), procpool::PoolClosed);
  }
}

TEST_CASE("serial: an initializer runs once, in the constructor", "[serial_pool]") {
  runs = 0;
  pool_type pool{{.processes = 3, .initializer = {[] { ++runs; }}}};
  CHECK(runs == 1);
  CHECK(pool.map(square, numbers(4)) == std::vector<long>{0, 1, 4, 9});
  CHECK(runs == 1);
  pool_type broken{{.processes = 1, .initializer = {[] { throw std::runtime_error("no way"); }}}};
  CHECK_THROWS_WITH(broken.apply(square, 1L), ContainsSubstring("no way"));
  CHECK_THROWS_AS(broken.resize(2), procpool::BrokenPool);
}

TEST_CASE("serial: resize changes nothing but the number", "[serial_pool]") {
  pool_type pool{2};
  pool.resize(5);
  CHECK(pool.apply(square, 5L) == 25);
  CHECK_THROWS_AS(pool.resize(0), std::invalid_argument);
  pool.close();
  CHECK_THROWS_AS(pool.resize(2), procpool::PoolClosed);
}

NAMED_PROGRAM(squares_by_processes) {
  procpool::Pool pool{2};
  std::printf("%d\n", pool.apply([] { return getpid(); }) == getpid() ? 1 : 0);
  return 0;
}

TEST_CASE("PROCPOOL_BACKEND chooses what a pool of an unmodified program is", "[serial_pool]") {
  const auto output = [](const char* backend) {
    return support::capture_child([&] {
      setenv("PROCPOOL_BACKEND", backend, 1);
      const auto run = support::run_named("squares_by_processes");
      std::printf("%s", run.out.c_str());
      return run.exitcode;
    });
  };
  for (const char* backend : {"serial", "threads"}) CHECK(output(backend).out == "1\n");
  for (const char* backend : {"fork", "spawn", ""}) CHECK(output(backend).out == "0\n");
  CHECK(output("quantum").exitcode != 0);
}
