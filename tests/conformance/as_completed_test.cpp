// SPDX-License-Identifier: MIT
// CPython's tests of concurrent.futures.as_completed, and more: several pools, pools that end,
// loops that are left early, callbacks, stop tokens.
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <future>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

using result = procpool::AsyncResult<long>;
using results = std::vector<result>;
using longs = std::vector<long>;

auto pass(support::gate& door, long value) {
  return [address = reinterpret_cast<std::uintptr_t>(&door), value] {
    reinterpret_cast<support::gate*>(address)->pass();
    return value;
  };
}

long fail() {
  throw std::domain_error("at once");
}

long die() {
  ::raise(SIGKILL);
  return 0;
}

result finished(procpool::Pool<>& pool, long value) {
  auto found = pool.apply_async(multiply, value, 1L);
  found.wait();
  return found;
}

template <class... Limit>
longs values(const results& all, Limit... limit) {
  longs found;
  for (auto& each : procpool::as_completed(all, limit...)) found.push_back(each.get());
  return found;
}

longs sorted(longs all) {
  std::ranges::sort(all);
  return all;
}

static_assert(std::ranges::input_range<procpool::completed_results<long>>);
static_assert(
    std::is_same_v<std::ranges::range_value_t<procpool::completed_results<long>>, result>);

}  // namespace

TEST_CASE("AsCompletedTests.test_no_timeout: yields all, finished ones and new ones",
          "[conformance][as_completed][workers]") {
  procpool::Pool pool{2};
  auto cancelled = [&] {
    pool.apply_async(square, 0L).wait();
    procpool::Pool other{1};
    return other.apply_async(slow_square, 1L, 20s);
  }();
  auto bad = pool.apply_async(fail);
  bad.wait();
  results all{cancelled, bad, finished(pool, 1), pool.apply_async(multiply, 2L, 21L),
              pool.apply_async(multiply, 7L, 6L)};
  std::size_t successful = 0;
  std::size_t count = 0;
  for (auto& each : procpool::as_completed(all)) {
    REQUIRE(each.ready());
    successful += each.successful() ? 1U : 0U;
    ++count;
  }
  CHECK(count == 5);
  CHECK(successful == 3);
}

TEST_CASE("AsCompletedTests.test_future_times_out: yields the finished ones, then TimeoutError",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{finished(pool, 1), pool.apply_async(pass(*door, 2)), finished(pool, 3)};
  for (auto timeout : {0ms, 100ms}) {
    longs seen;
    CHECK_THROWS_AS(
        [&] {
          for (auto& each : procpool::as_completed(all, timeout)) seen.push_back(each.get());
        }(),
        procpool::TimeoutError);
    CHECK(seen == longs{1, 3});
  }
  door->open();
}

TEST_CASE("AsCompletedTests.test_duplicate_futures: a result given three times is yielded once",
          "[conformance][as_completed]") {
  procpool::Pool pool{1};
  const auto one = pool.apply_async(slow_square, 3L, 20ms);
  CHECK(values({one, one, one}) == longs{9});
  CHECK(values({one, one, one}) == longs{9});
}

TEST_CASE("AsCompletedTests.test_free_reference_yielded_future: what was yielded is not kept alive",
          "[conformance][as_completed]") {
  procpool::Pool pool{2};
  {
    std::vector<procpool::AsyncResult<counted>> all;
    all.reserve(5);
    for (int i = 0; i < 5; ++i) all.push_back(pool.apply_async([] { return counted(); }));
    static_cast<void>(procpool::wait(all));
    REQUIRE(counted::alive == 5);
    auto range = procpool::as_completed(all);
    all.clear();
    int left = 5;
    for (auto& each : range) {
      CHECK(each.ready());
      CHECK(support::eventually([&] { return counted::alive == left; }));
      --left;
    }
    CHECK(left == 0);
    CHECK(counted::alive == 0);
  }
}

TEST_CASE("AsCompletedTests.test_correct_timeout_exception_msg: it says how many are unfinished",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{finished(pool, 1), finished(pool, 2), pool.apply_async(pass(*door, 3)),
                    pool.apply_async(pass(*door, 4))};
  std::string what;
  try {
    static_cast<void>(values(all, 0s));
  } catch (const procpool::TimeoutError& error) {
    what = error.what();
  }
  CHECK(what == "2 (of 4) results unfinished");
  door->open();
}

// ---- our own -----------------------------------------------------------------------------------

TEST_CASE("as_completed: no results are an empty range", "[conformance][as_completed]") {
  CHECK(values({}).empty());
  CHECK(values({}, 0s).empty());
}

TEST_CASE("as_completed: those that are ready come first, in the order of the input",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{pool.apply_async(pass(*door, 0)), finished(pool, 1), finished(pool, 2),
                    pool.apply_async(pass(*door, 0)), finished(pool, 3)};
  auto range = procpool::as_completed(all);
  longs first;
  for (auto& each : range) {
    first.push_back(each.get());
    if (first.size() == 3) door->open();
  }
  CHECK(first == longs{1, 2, 3, 0, 0});
}

TEST_CASE("as_completed: each comes as it becomes ready", "[conformance][as_completed][workers]") {
  const support::shared<support::gate> doors[3];
  procpool::Pool pool{3};
  results all;
  for (long i = 0; i < 3; ++i) all.push_back(pool.apply_async(pass(*doors[i], i)));
  longs order;
  doors[2]->open();
  for (auto& each : procpool::as_completed(all)) {
    order.push_back(each.get());
    if (order.size() == 1) doors[0]->open();
    if (order.size() == 2) doors[1]->open();
  }
  CHECK(order == longs{2, 0, 1});
}

TEST_CASE("as_completed: results of several pools", "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool one{1};
  procpool::Pool two{1};
  procpool::Pool three{1};
  const results all{one.apply_async(pass(*door, 1)), two.apply_async(square, 2L),
                    three.apply_async(slow_square, 3L, 20ms), two.apply_async(square, 4L)};
  longs seen;
  for (auto& each : procpool::as_completed(all)) {
    seen.push_back(each.get());
    if (seen.size() == 3) {
      CHECK(sorted(seen) == longs{4, 9, 16});
      door->open();
    }
  }
  CHECK(seen.size() == 4);
  CHECK(seen.back() == 1);
}

TEST_CASE("as_completed: many results, in one pool and in two", "[conformance][as_completed]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (int round = 0; round < 10; ++round) {
    results all;
    for (long i = 0; i < 2000; ++i) {
      all.push_back((round % 2 == 0 || i % 3 != 0 ? pool : other).apply_async(square, i));
    }
    REQUIRE(sorted(values(all)) == squares(2000));
    REQUIRE(values(all) == squares(2000));
  }
}

TEST_CASE("as_completed: the loop may be left early, and gone on with",
          "[conformance][as_completed]") {
  procpool::Pool pool{2};
  for (int round = 0; round < 20; ++round) {
    results all;
    for (long i = 0; i < 50; ++i) all.push_back(pool.apply_async(square, i));
    for (auto& each : procpool::as_completed(all)) {
      if (each.get() >= 0) break;
    }
    auto range = procpool::as_completed(all);
    longs seen;
    for (auto& each : range) {
      seen.push_back(each.get());
      if (seen.size() == 10) break;
    }
    auto moved = std::move(range);
    for (auto& each : moved) seen.push_back(each.get());
    REQUIRE(sorted(seen) == squares(50));
  }
}

TEST_CASE("as_completed: exceptions, dead workers and cancelled results come like any other",
          "[conformance][as_completed][processes]") {
  procpool::Pool pool{1};
  results all{pool.apply_async(fail), pool.apply_async(die),
              pool.apply_async(slow_square, 2L, 20s)};
  int failed = 0;
  int died = 0;
  int cancelled = 0;
  for (auto& each : procpool::as_completed(all)) {
    try {
      static_cast<void>(each.get());
    } catch (const procpool::WorkerDied&) {
      ++died;
    } catch (const procpool::CancelledError&) {
      ++cancelled;
    } catch (const std::domain_error&) {
      ++failed;
    }
    if (failed + died == 2) all[2].cancel({.kill = true});
  }
  CHECK(failed == 1);
  CHECK(died == 1);
  CHECK(cancelled == 1);
}

TEST_CASE("as_completed: a pool that is terminated in the middle of the loop",
          "[conformance][as_completed][workers]") {
  for (bool two_pools : {false, true}) {
    std::optional<procpool::Pool<>> pool(std::in_place, 1);
    procpool::Pool other{1};
    results all;
    for (long i = 0; i < 100; ++i) {
      all.push_back((two_pools && i % 2 != 0 ? other : *pool).apply_async(slow_square, i, 1ms));
    }
    std::size_t count = 0;
    std::size_t cancelled = 0;
    for (auto& each : procpool::as_completed(std::move(all))) {
      if (!each.successful()) ++cancelled;
      if (++count == 5) pool.reset();
    }
    CHECK(count == 100);
    CHECK(cancelled > 0);
  }
}

TEST_CASE("as_completed: a pool is terminated while a callback has still to run",
          "[conformance][as_completed][workers]") {
  procpool::Pool pool{1};
  std::promise<void> entered;
  std::promise<void> leave;
  const results all{pool.apply_async({.callback =
                                          [&](long&) {
                                            entered.set_value();
                                            leave.get_future().wait();
                                          }},
                                     square, 2L),
                    pool.apply_async(slow_square, 3L, conformance::until_killed())};
  entered.get_future().wait();
  std::jthread end([&] { pool.terminate(); });
  std::jthread later([&] {
    std::this_thread::sleep_for(30ms);
    leave.set_value();
  });
  std::size_t count = 0;
  for (auto& each : procpool::as_completed(all)) count += each.ready() ? 1U : 0U;
  CHECK(count == 2);
}

TEST_CASE("as_completed: in a callback, for results of its own pool and of another",
          "[conformance][as_completed]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (bool two_pools : {false, true}) {
    longs seen;
    const auto callback = [&](long&) {
      results all;
      for (long i = 0; i < 20; ++i) {
        all.push_back((two_pools && i % 2 != 0 ? other : pool).apply_async(slow_square, i, 1ms));
      }
      seen = values(all);
    };
    pool.apply_async({.callback = callback}, square, 2L).wait();
    CHECK(sorted(seen) == squares(20));
  }
}

TEST_CASE("as_completed: more work is submitted in the loop", "[conformance][as_completed]") {
  procpool::Pool pool{2};
  results all;
  for (long i = 0; i < 100; ++i) all.push_back(pool.apply_async(square, i));
  results more;
  for (auto& each : procpool::as_completed(all))
    more.push_back(pool.apply_async(multiply, each.get(), 1L));
  CHECK(sorted(values(more)) == squares(100));
}

TEST_CASE("as_completed: two loops over the same results in two threads",
          "[conformance][as_completed]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (int round = 0; round < 20; ++round) {
    results all;
    for (long i = 0; i < 100; ++i) {
      all.push_back((round % 2 == 0 || i % 3 != 0 ? pool : other).apply_async(square, i));
    }
    auto first = std::async(std::launch::async, [&] { return sorted(values(all)); });
    auto second = std::async(std::launch::async, [&] { return sorted(values(all)); });
    REQUIRE(first.get() == squares(100));
    REQUIRE(second.get() == squares(100));
  }
}

TEST_CASE("as_completed: a stop requested before lets those come that are ready",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  procpool::Pool other{1};
  std::stop_source stop;
  stop.request_stop();
  const results one_pool{pool.apply_async(pass(*door, 1)), finished(pool, 2)};
  const results two_pools{one_pool[0], one_pool[1], other.apply_async(pass(*door, 3))};
  for (const auto& all : {one_pool, two_pools}) {
    longs seen;
    CHECK_THROWS_AS(
        [&] {
          for (auto& each : procpool::as_completed(all, stop.get_token())) {
            seen.push_back(each.get());
          }
        }(),
        procpool::CancelledError);
    CHECK(seen == longs{2});
  }
  door->open();
}

TEST_CASE("as_completed: a stop ends the wait, in one pool or two",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  procpool::Pool other{1};
  for (auto* where : {&pool, &other}) {
    const results all{pool.apply_async(pass(*door, 1)), where->apply_async(pass(*door, 2))};
    std::stop_source stop;
    std::jthread stopper([&] {
      std::this_thread::sleep_for(10ms);
      stop.request_stop();
    });
    CHECK_THROWS_AS(values(all, stop.get_token()), procpool::CancelledError);
  }
  door->open();
}

TEST_CASE("as_completed: after a TimeoutError one can go on",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  const results all{pool.apply_async(pass(*door, 1))};
  auto range = procpool::as_completed(all, 1ms);
  CHECK_THROWS_AS(static_cast<void>(range.begin()), procpool::TimeoutError);
  door->open();
  all[0].wait();
  CHECK((*range.begin()).get() == 1);
  CHECK(range.begin() == range.end());
}

TEST_CASE("as_completed: a forked child leaves the loop that its parent began",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  const results all{finished(pool, 1), pool.apply_async(pass(*door, 2))};
  CHECK(support::run_child([&] {
          CHILD_REQUIRE(procpool::wait(all, procpool::FIRST_COMPLETED).done.size() == 1);
          return 0;
        }) == 0);
  {
    auto range = procpool::as_completed(all);
    CHECK((*range.begin()).get() == 1);
    CHECK(support::run_child([&] {
            try {
              static_cast<void>(range.begin());
              return 1;
            } catch (const std::logic_error&) {
            }
            auto dropped = std::move(range);  // destroyed here: the parent goes on
            return 0;
          }) == 0);
    door->open();
    CHECK((*range.begin()).get() == 2);
  }
}

TEST_CASE("as_completed: a forked child cannot go on with a loop over two pools",
          "[conformance][as_completed][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  procpool::Pool other{1};
  const results all{finished(pool, 1), pool.apply_async(pass(*door, 2)),
                    other.apply_async(pass(*door, 2))};
  auto range = procpool::as_completed(all);
  auto at = range.begin();
  CHECK((*at).get() == 1);
  CHECK(support::run_child([&] {
          ::alarm(20);  // it hangs
          try {
            ++at;
            return 1;
          } catch (const std::logic_error&) {
          }
          auto dropped = std::move(range);
          return 0;
        }) == 0);
  door->open();
  longs rest;
  for (++at; at != range.end(); ++at) rest.push_back((*at).get());
  CHECK(rest == longs{2, 2});
}

TEST_CASE("as_completed: a result that was moved from is refused", "[conformance][as_completed]") {
  procpool::Pool pool{1};
  results all{pool.apply_async(square, 1L)};
  const auto taken = std::move(all[0]);
  CHECK_THROWS_AS(procpool::as_completed(all), std::invalid_argument);
  CHECK(taken.get() == 1);
}
