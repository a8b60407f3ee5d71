// SPDX-License-Identifier: MIT
// CPython's _TestPool: apply, map, starmap and their asynchronous forms.
#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <exception>
#include <list>
#include <optional>
#include <ranges>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

support::common<support::gate*> door;  // in shared memory while a test uses it

long square_behind_door(long x) {
  door->pass();
  return x * x;
}

/// What a pool still has to be able to do after whatever a test did to it.
void check_usable(procpool::Pool<>& pool) {
  CHECK(pool.map(square, numbers(10)) == squares(10));
}

/// A known length, and the item @p bad throws when it is looked at.
auto throws_at(long bad, long length = 10) {
  return std::views::iota(0L, length) | std::views::transform([bad](long i) {
           if (i == bad) throw input_failed();
           return i;
         });
}

}  // namespace

TEST_CASE("_TestPool.test_apply: apply returns what the function returns", "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.apply(square, 5) == square(5));
  CHECK(pool.apply(multiply, 6, 7) == 42);
  CHECK(pool.apply(slow_square, 3, 10ms) == 9);
}

TEST_CASE("_TestPool.test_apply: a task that returns nothing", "[conformance][pool]") {
  procpool::Pool pool{2};
  CHECK_NOTHROW(pool.apply(sleep_for, 1ms));
  static_assert(std::is_void_v<decltype(pool.apply(sleep_for, 1ms))>);
  CHECK_NOTHROW(pool.apply_async(sleep_for, 1ms).get());
}

TEST_CASE("_TestPool.test_apply: without a number of workers there is one per usable CPU",
          "[conformance][pool]") {
  procpool::Pool pool;
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("_TestPool.test_map: map over 10 and 100 items equals the built-in map",
          "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.map(square, numbers(10)) == squares(10));
  CHECK(pool.map(square, numbers(100), {.chunksize = 20}) == squares(100));
}

TEST_CASE("_TestPool.test_map: results keep the order of the input for every chunk size",
          "[conformance][pool]") {
  procpool::Pool pool{3};
  CHECK(pool.map(square, numbers(101), {.chunksize = 1}) == squares(101));
  CHECK(pool.map(square, numbers(101), {.chunksize = 7}) == squares(101));
  CHECK(pool.map(square, numbers(101), {.chunksize = 101}) == squares(101));
  CHECK(pool.map(square, numbers(101), {.chunksize = 1000}) == squares(101));
  CHECK(pool.map(square, numbers(100'000)) == squares(100'000));
}

TEST_CASE("_TestPool.test_map: any input range will do, single-pass ones too",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  std::istringstream text("0 1 2 3 4 5 6 7 8 9");
  CHECK(pool.map(square, std::views::istream<long>(text)) == squares(10));
  CHECK(pool.map(square, std::views::iota(0L, 10L)) == squares(10));
  CHECK(pool.map(square, std::set<long>{2, 0, 1}) == squares(3));
  CHECK(pool.map(square, std::array{0L, 1L, 2L}) == squares(3));
  const std::list<long> list{0, 1, 2};
  CHECK(pool.map(square, list) == squares(3));
}

TEST_CASE("_TestPool.test_starmap: pairs are spread over the parameters", "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.starmap(multiply, twins(10)) == squares(10));
  CHECK(pool.starmap(multiply, twins(100), {.chunksize = 20}) == squares(100));
}

TEST_CASE("_TestPool.test_starmap: tuples and arrays are spread as well", "[conformance][pool]") {
  procpool::Pool pool{2};
  const auto clamp = [](long x, long low, long high) { return std::clamp(x, low, high); };
  const std::vector<std::tuple<long, long, long>> tuples{{5, 0, 3}, {-5, 0, 3}, {2, 0, 3}};
  CHECK(pool.starmap(clamp, tuples) == std::vector<long>{3, 0, 2});
  const std::vector<std::array<long, 2>> arrays{{2, 3}, {4, 5}};
  CHECK(pool.starmap(multiply, arrays) == std::vector<long>{6, 20});
}

TEST_CASE("_TestPool.test_starmap_async: get returns all results", "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.starmap_async(multiply, twins(100)).get() == squares(100));
}

TEST_CASE("_TestPool.test_map_async: get returns all results", "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.map_async(square, numbers(10)).get() == squares(10));
  procpool::AsyncResult<std::vector<long>> result = pool.map_async(square, numbers(10));
  result.wait();
  CHECK(result.ready());
  CHECK(result.successful());
}

TEST_CASE(
    "_TestPool.test_map_async_callbacks: the callback gets the whole list, once, before wait "
    "returns",
    "[conformance][pool]") {
  procpool::Pool pool{4};
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<long>> calls;
    std::atomic<int> errors = 0;
    auto result = pool.map_async(square, numbers(10),
                                 {.chunksize = 5,
                                  .callback = [&](std::vector<long>& all) { calls.push_back(all); },
                                  .error_callback = [&](std::exception_ptr) { ++errors; }});
    result.wait();
    REQUIRE(calls.size() == 1);
    CHECK(calls[0] == squares(10));
    CHECK(errors == 0);
  }
}

TEST_CASE(
    "_TestPool.test_map_async_callbacks: the error callback gets the exception, once, before "
    "wait returns",
    "[conformance][pool]") {
  procpool::Pool pool{4};
  const auto fail = [](long x) -> long { throw std::out_of_range("item " + std::to_string(x)); };
  std::atomic<int> calls = 0;
  std::vector<std::exception_ptr> errors;
  auto result = pool.map_async(
      fail, numbers(10),
      {.chunksize = 5,
       .callback = [&](std::vector<long>&) { ++calls; },
       .error_callback = [&](std::exception_ptr error) { errors.push_back(std::move(error)); }});
  result.wait();
  REQUIRE(errors.size() == 1);
  CHECK(calls == 0);
  CHECK_THROWS_AS(std::rethrow_exception(errors[0]), std::out_of_range);
  CHECK_FALSE(result.successful());
}

TEST_CASE("_TestPool.test_map_async_callbacks: starmap_async calls back too",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  std::vector<long> seen;
  auto result = pool.starmap_async(multiply, twins(10),
                                   {.callback = [&](std::vector<long>& all) { seen = all; }});
  result.wait();
  CHECK(seen == squares(10));
}

TEST_CASE(
    "_TestPool.test_map_async_callbacks: the callback of a map of nothing is called, once, before "
    "wait returns (Python does not call it)",
    "[conformance][pool]") {
  procpool::Pool pool{2};
  int calls = 0;
  const auto count = [&](const auto& all) { calls += all.empty() ? 1 : 100; };
  const auto fail = [&](const std::exception_ptr&) { calls += 100; };
  auto map = pool.map_async(square, numbers(0), {.callback = count, .error_callback = fail});
  CHECK(map.get().empty());
  CHECK(calls == 1);
  pool.starmap_async(multiply, twins(0), {.callback = count, .error_callback = fail}).wait();
  CHECK(calls == 2);
  pool.map_outcomes_async(square, numbers(0), {.callback = count}).wait();
  CHECK(calls == 3);
  pool.map_async([](long) {}, numbers(0), {.callback = [&] { ++calls; }}).wait();
  CHECK(calls == 4);
  auto last = pool.map_async(square, numbers(0), {.callback = count});
  pool.close();
  pool.join();  // waits for it
  CHECK(calls == 5);
  CHECK(last.ready());
}

TEST_CASE("_TestPool.test_map_async_callbacks: nobody need wait for a map of nothing",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  const auto count = [&](std::vector<long>&) { ++calls; };
  for (int i = 0; i < 100; ++i) pool.map_async(square, numbers(0), {.callback = count});
  CHECK(support::eventually([&] { return calls == 100; }));
  pool.close();
  CHECK_THROWS_AS(pool.map_async(square, numbers(0), {.callback = count}), procpool::PoolClosed);
}

TEST_CASE(
    "_TestPool.test_map_unplicklable: an argument that cannot be encoded is the caller's "
    "error",
    "[conformance][pool]") {
  procpool::Pool pool{2};
  const auto take = [](const unshippable& x) { return x.number; };
  const std::vector<unshippable> items(3);
  CHECK_THROWS_AS(pool.map(take, items), encoding_failed);
  CHECK_THROWS_AS(pool.apply(take, unshippable{}), encoding_failed);
  CHECK_THROWS_AS(pool.apply_async(take, unshippable{}), encoding_failed);
  check_usable(pool);
}

TEST_CASE("_TestPool.test_map_unplicklable: items before the one that cannot be encoded do no harm",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  const auto take = [](const unshippable& x) { return x.number; };
  std::vector<unshippable> items(1000, unshippable{.number = 1, .broken = false});
  items[700].broken = true;
  CHECK_THROWS_AS(pool.map(take, items, {.chunksize = 3}), encoding_failed);
  items[700].broken = false;
  CHECK(pool.map(take, items, {.chunksize = 3}) == std::vector<long>(1000, 1));
  check_usable(pool);
}

TEST_CASE("_TestPool.test_map_chunksize: an empty map is ready at once", "[conformance][pool]") {
  procpool::Pool pool{2};
  auto result = pool.map_async(square, std::vector<long>{}, {.chunksize = 1});
  CHECK(result.ready());
  CHECK(result.successful());
  CHECK(result.get().empty());
}

TEST_CASE("_TestPool.test_map_handle_iterable_exception: map throws what the input throws",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  CHECK_THROWS_AS(pool.map(square, source(0)), input_failed);
  check_usable(pool);
  CHECK_THROWS_AS(pool.map(square, source(4)), input_failed);
  check_usable(pool);
  CHECK_THROWS_AS(pool.map(square, source(4), {.chunksize = 1}), input_failed);
  CHECK_THROWS_AS(pool.map_async(square, source(4)), input_failed);
  check_usable(pool);
}

TEST_CASE("_TestPool.test_map_handle_iterable_exception: also when the length is known",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  CHECK_THROWS_AS(pool.map(square, throws_at(0)), input_failed);
  CHECK_THROWS_AS(pool.map(square, throws_at(4)), input_failed);
  CHECK_THROWS_AS(pool.map(square, throws_at(9), {.chunksize = 3}), input_failed);
  check_usable(pool);
}

TEST_CASE("_TestPool.test_async: get waits for a slow task", "[conformance][pool]") {
  procpool::Pool pool{4};
  CHECK(pool.apply_async(slow_square, 7, 300ms).get() == 49);
}

TEST_CASE("_TestPool.test_async: a result can be asked more than once", "[conformance][pool]") {
  procpool::Pool pool{2};
  auto result = pool.apply_async(square, 7);
  CHECK(result.get() == 49);
  CHECK(result.get() == 49);
  CHECK(result.get(1s) == 49);
  CHECK(result.wait(0s));
}

TEST_CASE("_TestPool.test_async_timeout: get gives up after its time; the task goes on",
          "[conformance][pool][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  const auto start = std::chrono::steady_clock::now();
  auto result = pool.apply_async(square_behind_door, 7);
  CHECK_FALSE(result.wait(50ms));
  CHECK_FALSE(result.ready());
  CHECK_THROWS_AS(result.get(200ms), procpool::TimeoutError);
  CHECK(std::chrono::steady_clock::now() - start >= 240ms);
  CHECK_THROWS_AS(result.successful(), std::logic_error);
  gate->open();
  CHECK(result.wait(20s));
  CHECK(result.successful());
  CHECK(result.get() == 49);
}

TEST_CASE("_TestPool.test_async_timeout: no time at all, and less, only look",
          "[conformance][pool][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  auto result = pool.apply_async(square_behind_door, 7);
  CHECK_THROWS_AS(result.get(0s), procpool::TimeoutError);
  CHECK_THROWS_AS(result.get(-1s), procpool::TimeoutError);
  CHECK_FALSE(result.wait(0s));
  CHECK_FALSE(result.wait(-1s));
  gate->open();
  CHECK(result.get(std::chrono::seconds::max()) == 49);
}

TEST_CASE("_TestPool.test_make_pool: a pool needs at least one worker", "[conformance][pool]") {
  CHECK_THROWS_AS(procpool::Pool{-1}, std::invalid_argument);
  CHECK_THROWS_AS(procpool::Pool{0}, std::invalid_argument);
  CHECK_THROWS_AS((procpool::Pool{{.processes = -1}}), std::invalid_argument);
  CHECK_THROWS_AS((procpool::Pool{{.processes = 0}}), std::invalid_argument);
}

TEST_CASE("_TestPool.test_make_pool: Pool(3) has three workers, no more",
          "[conformance][pool][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{3};
  auto id_behind_door = [](long) {
    door->pass();
    return worker_id();
  };
  auto pids = pool.map_async(id_behind_door, numbers(5), {.chunksize = 1});
  REQUIRE(gate->wait_for(3));
  std::this_thread::sleep_for(200ms);
  CHECK(gate->arrived == 3);
  gate->open();
  const auto all = pids.get();
  CHECK(std::set<pid_t>(all.begin(), all.end()).size() == 3);
  CHECK(std::ranges::count(all, getpid()) == 0);
}

TEST_CASE("_TestPool.test_empty_iterable: nothing in, nothing out", "[conformance][pool]") {
  procpool::Pool pool{2};
  const std::vector<long> none;
  CHECK(pool.map(square, none).empty());
  CHECK(pool.starmap(multiply, twins(0)).empty());
  CHECK(pool.map_async(square, none).get().empty());
  CHECK(pool.starmap_async(multiply, twins(0)).get().empty());
  CHECK_FALSE(pool.imap(square, none).next().has_value());
  CHECK_FALSE(pool.imap_unordered(square, none).next().has_value());
  for (long x : pool.imap(square, none)) FAIL("an item: " << x);
}

TEST_CASE("_TestPool.test_release_task_refs: no argument and no result stays alive",
          "[conformance][pool]") {
  procpool::Pool pool{2};
  CHECK(counted::alive == 0);
  {
    const std::vector<counted> items(20);
    const auto results = pool.map([](const counted&) { return counted{}; }, items);
    CHECK(results.size() == 20);
    CHECK(counted::alive == 40);
  }
  CHECK(counted::alive == 0);
  pool.apply([](const counted&) { return counted{}; }, counted{});
  CHECK(counted::alive == 0);
  {
    auto result = pool.apply_async([](const counted& x) { return x; }, counted{});
  }
  CHECK(support::eventually([] { return counted::alive == 0; }));
}
