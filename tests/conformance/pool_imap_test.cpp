// SPDX-License-Identifier: MIT
// CPython's _TestPool: imap and imap_unordered, and the map tests of concurrent.futures that are
// about lazy results. (Its Executor.map returns an iterator: imap here.)
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <limits>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

support::common<support::gate*> door;

/// Every item until the end.
template <class Range>
std::vector<long> all_of(Range results) {
  std::vector<long> all;
  for (long x : results) all.push_back(x);
  return all;
}

/// The items that come before @p Failure does, by next().
template <class Failure, class Range>
std::vector<long> until_failure(Range& results) {
  std::vector<long> all;
  try {
    while (auto x = results.next()) all.push_back(*x);
    FAIL_CHECK("the range ended without its exception");
  } catch (const Failure&) {
  }
  return all;
}

std::vector<long> sorted(std::vector<long> values) {
  std::ranges::sort(values);
  return values;
}

long square_unless_three(long x) {
  if (x == 3) throw std::domain_error("three");
  return x * x;
}

}  // namespace

TEST_CASE("_TestPool.test_imap: results in order, by a for loop and by next",
          "[conformance][pool][imap]") {
  procpool::Pool pool{4};
  CHECK(all_of(pool.imap(square, numbers(10))) == squares(10));
  auto results = pool.imap(square, numbers(10));
  for (long expected : squares(10)) CHECK(results.next() == expected);
  CHECK(results.next() == std::nullopt);
  CHECK(results.next() == std::nullopt);
}

TEST_CASE("_TestPool.test_imap: 1000 items in chunks of 100", "[conformance][pool][imap]") {
  procpool::Pool pool{4};
  CHECK(all_of(pool.imap(square, numbers(1000), {.chunksize = 100})) == squares(1000));
  auto results = pool.imap(square, numbers(1000), {.chunksize = 100});
  for (long expected : squares(1000)) REQUIRE(results.next() == expected);
  CHECK(results.next() == std::nullopt);
}

TEST_CASE("_TestPool.test_imap: a chunk size that does not divide the length",
          "[conformance][pool][imap]") {
  procpool::Pool pool{2};
  CHECK(all_of(pool.imap(square, numbers(101), {.chunksize = 7, .buffersize = 3})) == squares(101));
  CHECK(all_of(pool.imap(square, numbers(5), {.chunksize = 100})) == squares(5));
}

TEST_CASE("_TestPool.test_imap: the largest sizes there are", "[conformance][pool][imap]") {
  procpool::Pool pool{4};
  constexpr auto most = std::numeric_limits<std::ptrdiff_t>::max();
  CHECK(all_of(pool.imap(square, numbers(5), {.chunksize = most})) == squares(5));
  CHECK(all_of(pool.imap(square, numbers(5), {.chunksize = most / 2 + 1})) == squares(5));
  CHECK(all_of(pool.imap(square, numbers(5), {.chunksize = most, .buffersize = most})) ==
        squares(5));
  CHECK(pool.map(square, numbers(5), {.chunksize = most}) == squares(5));
}

TEST_CASE("_TestPool.test_imap: the result is a move-only input range",
          "[conformance][pool][imap]") {
  procpool::Pool pool{2};
  auto results = pool.imap(square, numbers(4));
  using range = decltype(results);
  static_assert(std::ranges::input_range<range>);
  static_assert(!std::is_copy_constructible_v<range>);
  CHECK(results.next() == 0);
  auto moved = std::move(results);
  CHECK(moved.next() == 1);
  std::vector<long> rest;
  for (long x : moved) rest.push_back(x);
  CHECK(rest == std::vector<long>{4, 9});
}

TEST_CASE("_TestPool.test_imap: next with a time limit throws TimeoutError and loses nothing",
          "[conformance][pool][imap][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  auto results = pool.imap(
      [](long x) {
        door->pass();
        return x;
      },
      numbers(3));
  CHECK_THROWS_AS(results.next(100ms), procpool::TimeoutError);
  CHECK_THROWS_AS(results.next(0s), procpool::TimeoutError);
  gate->open();
  CHECK(results.next(20s) == 0);
  CHECK(results.next(20s) == 1);
  CHECK(results.next() == 2);
  CHECK(results.next(20s) == std::nullopt);
}

TEST_CASE(
    "_TestPool.test_imap_handle_iterable_exception: what came before the exception arrives, "
    "then the exception",
    "[conformance][pool][imap]") {
  procpool::Pool pool{2};
  auto at_once = pool.imap(square, source(0));
  CHECK_THROWS_AS(at_once.next(), input_failed);
  for (long good : {1, 3, 7, 50}) {
    auto results = pool.imap(square, source(good));
    CHECK(until_failure<input_failed>(results) == squares(static_cast<std::size_t>(good)));
    CHECK(results.next() == std::nullopt);
  }
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("_TestPool.test_imap_handle_iterable_exception: items of the broken chunk are not lost",
          "[conformance][pool][imap]") {
  procpool::Pool pool{2};
  auto by_two = pool.imap(square, source(7), {.chunksize = 2});
  CHECK(until_failure<input_failed>(by_two) == squares(7));
  auto by_four = pool.imap(square, source(7), {.chunksize = 4});
  CHECK(until_failure<input_failed>(by_four) == squares(7));
}

TEST_CASE("_TestPool.test_imap_unordered: all results, in some order",
          "[conformance][pool][imap]") {
  procpool::Pool pool{4};
  CHECK(sorted(all_of(pool.imap_unordered(square, numbers(10)))) == squares(10));
  CHECK(sorted(all_of(pool.imap_unordered(square, numbers(1000), {.chunksize = 100}))) ==
        squares(1000));
}

TEST_CASE("_TestPool.test_imap_unordered: a slow item does not hold up the others",
          "[conformance][pool][imap][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  auto results = pool.imap_unordered(
      [](long x) {
        if (x == 0) door->pass();
        return x;
      },
      numbers(5), {.chunksize = 1, .buffersize = 5});
  std::vector<long> first;
  for (int i = 0; i < 4; ++i) first.push_back(results.next(20s).value());
  CHECK(sorted(first) == std::vector<long>{1, 2, 3, 4});
  gate->open();
  CHECK(results.next() == 0);
  CHECK(results.next() == std::nullopt);
}

TEST_CASE(
    "_TestPool.test_imap_unordered_handle_iterable_exception: everything that came before, "
    "then the exception",
    "[conformance][pool][imap]") {
  procpool::Pool pool{2};
  auto at_once = pool.imap_unordered(square, source(0));
  CHECK_THROWS_AS(at_once.next(), input_failed);
  for (long good : {1, 3, 7, 50}) {
    auto results = pool.imap_unordered(square, source(good));
    CHECK(sorted(until_failure<input_failed>(results)) == squares(static_cast<std::size_t>(good)));
  }
  auto chunks = pool.imap_unordered(square, source(7), {.chunksize = 4});
  CHECK(sorted(until_failure<input_failed>(chunks)) == squares(7));
}

TEST_CASE("ExecutorTest.test_map: the lazy map equals the built-in map, with chunks too",
          "[conformance][executor][imap]") {
  procpool::Pool pool{4};
  CHECK(all_of(pool.imap(square, numbers(10))) == squares(10));
  CHECK(all_of(pool.imap(square, numbers(10), {.chunksize = 3})) == squares(10));
  const auto product = [](std::pair<long, long> both) { return both.first * both.second; };
  CHECK(all_of(pool.imap(product, twins(10), {.chunksize = 3})) == squares(10));
}

TEST_CASE(
    "ExecutorTest.test_map_exception: a failing item throws when its turn comes, and the "
    "range goes on",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  for (int chunksize : {1, 3, 10}) {
    auto results = chunksize == 1   ? pool.imap(square_unless_three, numbers(5))
                   : chunksize == 3 ? pool.imap(square_unless_three, numbers(5), {.chunksize = 3})
                                    : pool.imap(square_unless_three, numbers(5), {.chunksize = 10});
    INFO("chunks of " << chunksize);
    CHECK(until_failure<std::domain_error>(results) == squares(3));
    CHECK(results.next() == 16);
    CHECK(results.next() == std::nullopt);
    CHECK(results.next() == std::nullopt);
  }
}

TEST_CASE("ExecutorTest.test_map_exception: a for loop ends with the item's exception",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  std::vector<long> seen;
  const auto loop = [&] {
    for (long x : pool.imap(square_unless_three, numbers(5))) seen.push_back(x);
  };
  CHECK_THROWS_AS(loop(), std::domain_error);
  CHECK(seen == squares(3));
}

TEST_CASE("ExecutorTest.test_map_exception: imap_unordered goes on after a failing item",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  auto results = pool.imap_unordered(square_unless_three, numbers(5), {.chunksize = 2});
  auto seen = until_failure<std::domain_error>(results);
  while (auto x = results.next()) seen.push_back(*x);
  CHECK(sorted(seen) == std::vector<long>{0, 1, 4, 16});
}

TEST_CASE(
    "ExecutorTest.test_map_timeout_from_callable: a TimeoutError of the task is not the "
    "range's own",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  const auto task = [](long x) {
    if (x == 1) throw procpool::TimeoutError("thrown by the task");
    return x;
  };
  auto results = pool.imap(task, numbers(4));
  CHECK(results.next(20s) == 0);
  std::string message;
  try {
    static_cast<void>(results.next(20s));
  } catch (const procpool::TimeoutError& error) {
    message = error.what();
  }
  CHECK(message == "thrown by the task");
  CHECK(results.next(20s) == 2);
  CHECK(results.next(20s) == 3);
  CHECK(results.next(20s) == std::nullopt);
}

TEST_CASE(
    "ExecutorTest.test_map_timeout: the third item is late: TimeoutError, and leaving kills "
    "it",
    "[conformance][executor][imap][workers][processes]") {
  const auto start = std::chrono::steady_clock::now();
  {
    procpool::Pool pool{2};
    auto done = pool.imap(
        [](long seconds) {
          sleep_for(seconds * 1s);
          return 0;
        },
        std::vector<long>{0, 0, 50});
    CHECK(done.next(20s) == 0);
    CHECK(done.next(20s) == 0);
    CHECK_THROWS_AS(done.next(200ms), procpool::TimeoutError);
  }
  CHECK(std::chrono::steady_clock::now() - start < 40s);
}

TEST_CASE("ExecutorTest.test_map_close: dropping the range in the middle takes no more input",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  const source input;
  {
    auto results = pool.imap(square, input, {.chunksize = 1, .buffersize = 4});
    CHECK(results.next() == 0);
    CHECK(results.next() == 1);
  }
  const long taken = input.taken();
  CHECK(taken <= 7);  // two yielded, four in the buffer, one that the iterator may hold
  CHECK(pool.map(square, numbers(10)) == squares(10));
  CHECK(input.taken() == taken);
  {
    auto chunks = pool.imap(square, source(), {.chunksize = 3});
    CHECK(chunks.next() == 0);
  }
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("imap: of a pool that is closed: what was submitted, PoolClosed once, and the end",
          "[conformance][imap]") {
  for (const long chunksize : {1, 3}) {
    for (const bool unordered : {false, true}) {
      procpool::Pool pool{2};
      const source input;
      const auto check = [&](auto results) {
        CHECK(results.next().has_value());
        pool.close();
        const long taken = input.taken();
        auto rest = until_failure<procpool::PoolClosed>(results);
        CHECK(rest.size() == static_cast<std::size_t>(taken) - 1);
        if (!unordered) rest.insert(rest.begin(), 0);
        if (!unordered) CHECK(rest == squares(static_cast<std::size_t>(taken)));
        CHECK(results.next() == std::nullopt);
        CHECK(results.next() == std::nullopt);
        CHECK(input.taken() == taken);
      };
      const procpool::imap_options options{.chunksize = chunksize, .buffersize = 6};
      if (unordered) check(pool.imap_unordered(square, input, options));
      if (!unordered) check(pool.imap(square, input, options));
    }
  }
}

TEST_CASE("imap: of a pool that is closed while items are taken: PoolClosed once, too",
          "[conformance][imap]") {
  for (const bool unordered : {false, true}) {
    procpool::Pool pool{2};
    const auto input = std::views::iota(0L) | std::views::transform([&](long x) {
                         if (x == 5) pool.close();
                         return x;
                       });
    const auto check = [&](auto results) {
      CHECK(sorted(until_failure<procpool::PoolClosed>(results)) == squares(4));
      CHECK(results.next() == std::nullopt);
    };
    const procpool::imap_options options{.chunksize = 2, .buffersize = 4};
    if (unordered) check(pool.imap_unordered(square, input, options));
    if (!unordered) check(pool.imap(square, input, options));
  }
}

TEST_CASE("imap: of a pool that is terminated: CancelledError for items that were not done",
          "[conformance][imap]") {
  procpool::Pool pool{2};
  const source input;
  auto results = pool.imap(square, input, {.buffersize = 6});
  CHECK(results.next() == 0);
  pool.terminate();
  const long taken = input.taken();
  for (long i = 1; i < taken; ++i) {
    try {
      const auto found = results.next();
      CHECK(found == i * i);
    } catch (const procpool::CancelledError&) {
    }
  }
  CHECK_THROWS_AS(results.next(), procpool::PoolClosed);
  CHECK(results.next() == std::nullopt);
  CHECK(results.next() == std::nullopt);
  CHECK(input.taken() == taken);
}

TEST_CASE("ExecutorTest.test_map_buffersize_value_validation: the buffer holds at least one",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  CHECK_THROWS_AS(pool.imap(square, numbers(4), {.buffersize = 0}), std::invalid_argument);
  CHECK_THROWS_AS(pool.imap(square, numbers(4), {.buffersize = -1}), std::invalid_argument);
  CHECK_THROWS_AS(pool.imap_unordered(square, numbers(4), {.buffersize = 0}),
                  std::invalid_argument);
  CHECK(all_of(pool.imap(square, numbers(4))) == squares(4));
}

TEST_CASE("ExecutorTest.test_map_buffersize: every buffer size gives all results",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  CHECK(all_of(pool.imap(square, numbers(4), {.buffersize = 1})) == squares(4));
  CHECK(all_of(pool.imap(square, numbers(4), {.buffersize = 2})) == squares(4));
  CHECK(all_of(pool.imap(square, numbers(4), {.buffersize = 4})) == squares(4));
  CHECK(all_of(pool.imap(square, numbers(4), {.buffersize = 8})) == squares(4));
  CHECK(sorted(all_of(pool.imap_unordered(square, numbers(4), {.buffersize = 1}))) == squares(4));
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_multiple_iterables: pairs go through the buffer",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  const auto product = [](std::pair<long, long> both) { return both.first * both.second; };
  CHECK(all_of(pool.imap(product, twins(4), {.buffersize = 1})) == squares(4));
  CHECK(all_of(pool.imap(product, twins(4), {.buffersize = 8})) == squares(4));
}

TEST_CASE(
    "ExecutorTest.test_map_buffersize_on_infinite_iterable: the first results of an endless "
    "input",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  auto results = pool.imap(square, std::views::iota(0L), {.buffersize = 2});
  for (long expected : squares(3)) CHECK(results.next() == expected);
}

TEST_CASE(
    "ExecutorTest.test_map_buffersize_on_multiple_infinite_iterables: two endless inputs in "
    "step",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  const auto product = [](std::pair<long, long> both) { return both.first * both.second; };
  auto pairs = std::views::iota(0L) | std::views::transform([](long x) { return std::pair(x, x); });
  auto results = pool.imap(product, pairs, {.buffersize = 2});
  for (long expected : squares(3)) CHECK(results.next() == expected);
}

TEST_CASE(
    "ExecutorTest.test_map_buffersize_on_infinite_iterable: a loop over an endless input can "
    "be left",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  long last = 0;
  for (long x : pool.imap(square, std::views::iota(0L))) {
    last = x;
    if (x > 100) break;
  }
  CHECK(last == 121);
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_empty_iterable: nothing in, nothing out",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  CHECK(pool.imap(square, numbers(0), {.buffersize = 2}).next() == std::nullopt);
}

TEST_CASE(
    "ExecutorTest.test_map_buffersize_when_buffer_is_full: exactly so many items are taken "
    "ahead",
    "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  long taken = 0;
  auto input = std::views::iota(0L) | std::views::transform([&taken](long x) {
                 ++taken;
                 return x;
               });
  auto results = pool.imap(square, input, {.buffersize = 3});
  std::this_thread::sleep_for(100ms);
  CHECK(taken == 3);
  for (long i = 0; i < 10; ++i) {
    CHECK(results.next() == i * i);
    CHECK(taken <= i + 1 + 3);
  }
}

TEST_CASE("ExecutorTest.test_free_reference: the range keeps no result that it has given away",
          "[conformance][executor][imap]") {
  procpool::Pool pool{2};
  CHECK(counted::alive == 0);
  auto results = pool.imap([](long) { return counted{}; }, numbers(5));
  for (int i = 0; i < 5; ++i) {
    CHECK(results.next().has_value());
    if (i == 4) CHECK(counted::alive == 0);
  }
  CHECK(results.next() == std::nullopt);
  CHECK(counted::alive == 0);
}
