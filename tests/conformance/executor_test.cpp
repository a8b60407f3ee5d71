// SPDX-License-Identifier: MIT
// CPython's ExecutorTest: submit and friends. (Those about the lazy map are in pool_imap_test.cpp,
// those about the end in pool_state_test.cpp.)
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

support::common<std::atomic<int>*> runs;

long power(long base, int exponent) {
  long result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

}  // namespace

TEST_CASE("ExecutorTest.test_submit: a submitted call gives its result",
          "[conformance][executor]") {
  procpool::Pool pool{4};
  CHECK(pool.apply_async(power, 2, 8).get() == 256);
}

TEST_CASE("ExecutorTest.test_map: two inputs in step", "[conformance][executor]") {
  procpool::Pool pool{4};
  std::vector<std::tuple<long, int>> both;
  std::vector<long> expected;
  for (int i = 0; i < 10; ++i) {
    both.emplace_back(i, i);
    expected.push_back(power(i, i));
  }
  CHECK(pool.starmap(power, both) == expected);
  CHECK(pool.starmap(power, both, {.chunksize = 3}) == expected);
}

TEST_CASE("ExecutorTest.test_map_exception: map throws a task's exception and the pool goes on",
          "[conformance][executor]") {
  procpool::Pool pool{2};
  const auto divide = [](long a, long b) {
    if (b == 0) throw std::domain_error("division by zero");
    return a / b;
  };
  const std::vector<std::tuple<long, long>> pairs{{0, 1}, {1, 1}, {2, 0}, {3, 1}};
  CHECK_THROWS_AS(pool.starmap(divide, pairs), std::domain_error);
  CHECK_THROWS_AS(pool.starmap(divide, pairs, {.chunksize = 3}), std::domain_error);
  CHECK(pool.apply(divide, 6, 2) == 3);
}

TEST_CASE("ExecutorTest.test_max_workers_negative: at least one worker",
          "[conformance][executor]") {
  for (int number : {-1, 0}) CHECK_THROWS_AS(procpool::Pool{number}, std::invalid_argument);
}

TEST_CASE("ExecutorTest.test_no_stale_references: an argument whose result nobody keeps is freed",
          "[conformance][executor]") {
  procpool::Pool pool{2};
  CHECK(counted::alive == 0);
  static_cast<void>(pool.apply_async([](const counted& x) { return x; }, counted{}));
  CHECK(support::eventually([] { return counted::alive == 0; }));
}

TEST_CASE("ExecutorTest.test_submit: many tasks whose results are thrown away still run",
          "[conformance][executor]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{2};
  for (int i = 0; i < 1000; ++i) static_cast<void>(pool.apply_async([] { ++*runs; }));
  CHECK(support::eventually([&] { return *count == 1000; }));
}

TEST_CASE("ExecutorTest.test_submit: several threads submit and wait at the same time",
          "[conformance][executor]") {
  procpool::Pool pool{2};
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (long t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (long i = 0; i < 250; ++i) {
        if (pool.apply(multiply, t, i) == t * i) ++right;
      }
      if (pool.map(square, numbers(100)) == squares(100)) ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 4 * 251);
}

TEST_CASE("ExecutorTest.test_submit: a callback needs no name for its options",
          "[conformance][executor]") {
  procpool::Pool pool{2};
  long seen = -1;
  const auto result = pool.apply_async({.callback = [&](long& value) { seen = value; }}, square, 7);
  result.wait();
  CHECK(seen == 49);
}

TEST_CASE("ExecutorTest.test_submit: a callback of a single task runs before its wait returns",
          "[conformance][executor]") {
  procpool::Pool pool{2};
  for (long i = 0; i < 100; ++i) {
    long seen = -1;
    auto result = pool.apply_async(
        procpool::task_options<long>{.callback = [&](long& value) { seen = value; }}, square, i);
    result.wait();
    REQUIRE(seen == i * i);
  }
}
