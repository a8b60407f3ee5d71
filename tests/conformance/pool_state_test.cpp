// SPDX-License-Identifier: MIT
// CPython's _TestPool, MiscTestCase and the shutdown tests of concurrent.futures: how a pool ends.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

support::common<support::gate*> door;
support::common<std::atomic<int>*> done;

void pass_door() {
  door->pass();
}

void count_one() {
  ++*done;
}

/// Ends @p pool and says how long that took.
template <class End>
std::chrono::seconds seconds_for(End end) {
  const auto start = std::chrono::steady_clock::now();
  end();
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - start);
}

bool was_cancelled(procpool::AsyncResult<long>& result) {
  try {
    static_cast<void>(result.get(20s));
    return false;
  } catch (const procpool::CancelledError&) {
    return true;
  }
}

}  // namespace

TEST_CASE("_TestPool.test_terminate: 10,000 long tasks are dropped at once",
          "[conformance][pool][state][workers]") {
  procpool::Pool pool{3};
  auto result = pool.map_async(
      [](long) {
        sleep_for(300ms);
        return 0;
      },
      numbers(10'000), {.chunksize = 1});
  const auto taken = seconds_for([&] {
    pool.terminate();
    pool.join();
  });
  CHECK(taken < 20s);
  CHECK(result.ready());
  CHECK_THROWS_AS(result.get(), procpool::CancelledError);
}

TEST_CASE("_TestPool.test_terminate: a task that ignores SIGTERM is ended all the same",
          "[conformance][pool][state][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  const auto taken = seconds_for([&] {
    procpool::Pool pool{2};
    auto result = pool.apply_async([] {
      signal(SIGTERM, SIG_IGN);
      signal(SIGINT, SIG_IGN);
      pass_door();
    });
    REQUIRE(gate->wait_for(1));
    pool.terminate();
    pool.join();
    CHECK_THROWS_AS(result.get(), procpool::CancelledError);
  });
  CHECK(taken < 20s);
}

TEST_CASE("_TestPool.test_terminate: twice, and after close, is harmless",
          "[conformance][pool][state]") {
  procpool::Pool pool{2};
  CHECK(pool.apply(square, 5) == 25);
  pool.close();
  pool.close();
  pool.terminate();
  pool.terminate();
  pool.join();
  pool.join();
  pool.close();
}

TEST_CASE("_TestPool.test_terminate: in a thread while another waits for a result",
          "[conformance][pool][state][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  std::atomic<bool> cancelled = false;
  std::thread waiter([&] {
    try {
      pool.apply(pass_door);
    } catch (const procpool::CancelledError&) {
      cancelled = true;
    }
  });
  REQUIRE(gate->wait_for(1));
  pool.terminate();
  waiter.join();
  CHECK(cancelled);
  pool.join();
}

TEST_CASE("_TestPool.test_context: leaving scope ends the pool; what was not finished is cancelled",
          "[conformance][pool][state][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  std::optional<procpool::AsyncResult<void>> running;
  std::vector<procpool::AsyncResult<void>> waiting;
  std::optional<procpool::AsyncResult<long>> finished;
  {
    procpool::Pool pool{1};
    finished = pool.apply_async(square, 5);
    finished->wait();
    running = pool.apply_async(pass_door);
    for (int i = 0; i < 100; ++i) waiting.push_back(pool.apply_async(pass_door));
    REQUIRE(gate->wait_for(1));
  }
  CHECK(finished->get() == 25);
  CHECK(running->ready());
  CHECK_THROWS_AS(running->get(), procpool::CancelledError);
  for (auto& result : waiting) CHECK_THROWS_AS(result.get(0s), procpool::CancelledError);
}

TEST_CASE("_TestPool.test_context: an exception that leaves the scope ends the pool too",
          "[conformance][pool][state][workers][processes]") {
  const auto scope = [] {
    procpool::Pool pool{2};
    auto result = pool.map_async(
        [](long) {
          sleep_for(10s);
          return 0;
        },
        numbers(10));
    throw std::runtime_error("out of here");
  };
  CHECK(seconds_for([&] { CHECK_THROWS_AS(scope(), std::runtime_error); }) < 9s);
}

TEST_CASE("_TestPool.test_enter: nothing can be submitted to a terminated pool",
          "[conformance][pool][state]") {
  procpool::Pool pool{2};
  pool.terminate();
  CHECK_THROWS_AS(pool.apply(square, 5), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.apply_async(square, 5), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.map(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.map_async(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.map(square, numbers(0)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.starmap(multiply, twins(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.starmap_async(multiply, twins(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.imap(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.imap_unordered(square, numbers(3)), procpool::PoolClosed);
  pool.join();
  CHECK_THROWS_AS(pool.apply(square, 5), procpool::PoolClosed);
}

TEST_CASE("ExecutorShutdownTest.test_run_after_shutdown: nothing can be submitted after close",
          "[conformance][executor][state]") {
  procpool::Pool pool{2};
  auto before = pool.apply_async(square, 5);
  pool.close();
  CHECK_THROWS_AS(pool.apply(square, 5), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.apply_async(square, 5), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.map(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.map_async(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.starmap(multiply, twins(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.imap(square, numbers(3)), procpool::PoolClosed);
  CHECK_THROWS_AS(pool.imap_unordered(square, numbers(3)), procpool::PoolClosed);
  CHECK(before.get() == 25);
  pool.join();
  CHECK_THROWS_AS(pool.apply(square, 5), procpool::PoolClosed);
  CHECK(before.get() == 25);
}

TEST_CASE("ExecutorShutdownTest.test_hang_issue12364: close and join let every task finish",
          "[conformance][executor][state]") {
  procpool::Pool pool{5};
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < 50; ++i) results.push_back(pool.apply_async(slow_square, i, 100ms));
  pool.close();
  pool.join();
  for (long i = 0; i < 50; ++i) {
    auto& result = results[static_cast<std::size_t>(i)];
    CHECK(result.ready());
    CHECK(result.get() == i * i);
  }
}

TEST_CASE(
    "ExecutorShutdownTest.test_cancel_futures: terminate ends every result, most of them "
    "cancelled",
    "[conformance][executor][state][workers]") {
  procpool::Pool pool{5};
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < 50; ++i) results.push_back(pool.apply_async(slow_square, i, 100ms));
  CHECK(results[0].get() == 0);
  pool.terminate();
  pool.join();
  CHECK(std::ranges::all_of(results, [](auto& result) { return result.ready(); }));
  const auto cancelled = std::ranges::count_if(results, was_cancelled);
  CHECK(cancelled > 20);
  CHECK(cancelled < 50);
}

TEST_CASE("ExecutorShutdownTest.test_hang_gh94440: a task cancelled right before close and join",
          "[conformance][executor][state]") {
  for (int round = 0; round < 20; ++round) {
    procpool::Pool pool{1};
    auto result = pool.apply_async(square, 5);
    const bool cancelled = result.cancel();
    pool.close();
    pool.join();
    CHECK(result.ready());
    if (cancelled) {
      CHECK_THROWS_AS(result.get(), procpool::CancelledError);
    } else {
      CHECK(result.get() == 25);
    }
  }
}

TEST_CASE(
    "ExecutorTest.test_shutdown_race_issue12456: one task more than workers, then close at "
    "once",
    "[conformance][executor][state]") {
  const support::shared<std::atomic<int>> count;
  done = count.get();
  for (int round = 1; round <= 10; ++round) {
    procpool::Pool pool{5};
    for (int i = 0; i < 6; ++i) static_cast<void>(pool.apply_async(count_one));
    pool.close();
    pool.join();
    CHECK(*count == round * 6);
  }
}

TEST_CASE("_TestPool.test_enter: join before close or terminate is an error",
          "[conformance][pool][state]") {
  procpool::Pool pool{2};
  CHECK_THROWS_AS(pool.join(), std::logic_error);
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("_TestPool.test_context: a pool that did nothing comes and goes",
          "[conformance][pool][state]") {
  for (int i = 0; i < 20; ++i) procpool::Pool pool{3};
  procpool::Pool closed{3};
  closed.close();
  CHECK_NOTHROW(closed.join());
}

TEST_CASE("_TestPool.test_context: no process of the pool is left when its scope ends",
          "[conformance][pool][state][processes]") {
  const auto before = support::descendants_of(getpid()).size();
  {
    procpool::Pool pool{3};
    CHECK(pool.apply(square, 5) == 25);
    CHECK(support::descendants_of(getpid()).size() > before);
  }
  CHECK(support::descendants_of(getpid()).size() == before);
}

TEST_CASE("_TestPool.test_context: several pools live side by side", "[conformance][pool][state]") {
  procpool::Pool first{2};
  auto second = std::make_unique<procpool::Pool<>>(2);
  procpool::Pool third{2};
  CHECK(first.map(square, numbers(10)) == squares(10));
  CHECK(second->map(square, numbers(10)) == squares(10));
  second.reset();
  CHECK(third.map(square, numbers(10)) == squares(10));
  CHECK(first.map(square, numbers(10)) == squares(10));
}

TEST_CASE("MiscTestCase.test_large_pool: 200 workers square 1000 numbers without a word",
          "[conformance][pool][state][limit:120]") {
  const auto run = support::capture_child([] {
    procpool::Pool pool{200};
    const auto all = pool.map(square, numbers(1000));
    std::printf("%ld\n", std::reduce(all.begin(), all.end()));
    return 0;
  });
  CHECK(run.out == "332833500\n");
  CHECK(run.err.empty());
  CHECK(run.exitcode == 0);
}

NAMED_PROGRAM(pool_in_a_global) {
  static std::optional<procpool::Pool<>> pool;
  pool.emplace(2);
  return pool->map(square, numbers(3)) == squares(3) ? 0 : 1;
}

TEST_CASE(
    "_TestPoolWorkerLifetime."
    "test_worker_finalization_via_atexit_handler_of_multiprocessing: a program that leaves a "
    "pool in a global ends well",
    "[conformance][pool][state]") {
  const auto run = support::run_named("pool_in_a_global");
  CHECK(run.exitcode == 0);
  CHECK(run.out.empty());
  CHECK(run.err.empty());
}

NAMED_PROGRAM(pool_never_destroyed) {
  auto* pool = new procpool::Pool{2};  // exit runs no destructor for it
  return pool->map(square, numbers(3)) == squares(3) ? 0 : 1;
}

TEST_CASE(
    "ExecutorShutdownTest.test_interpreter_shutdown: a pool whose destructor never runs ends "
    "with the program",
    "[conformance][executor][state]") {
  const auto run = support::run_named("pool_never_destroyed");
  CHECK(run.exitcode == 0);
  CHECK(run.err.empty());
}

NAMED_PROGRAM(drained_at_exit) {
  static std::optional<procpool::Pool<>> pool;
  pool.emplace(2);
  static_cast<void>(pool->apply_async([] {
    sleep_for(300ms);
    std::puts("apple");
  }));
  pool->close();
  pool->join();
  return 0;
}

TEST_CASE(
    "ExecutorShutdownTest.test_interpreter_shutdown: close and join print what the last task "
    "had to say",
    "[conformance][executor][state]") {
  const auto run = support::run_named("drained_at_exit");
  CHECK(run.exitcode == 0);
  CHECK(run.out == "apple\n");
  CHECK(run.err.empty());
}

NAMED_PROGRAM(closed_and_left) {
  procpool::Pool pool{2};
  static_cast<void>(pool.apply_async([] { sleep_for(conformance::until_killed()); }));
  pool.close();
  return 0;
}

TEST_CASE("ExecutorShutdownTest.test_hang_gh83386: close without join, then the end: no hang",
          "[conformance][executor][state][workers]") {
  const auto run = support::run_named("closed_and_left");
  CHECK(run.exitcode == 0);
  CHECK(run.err.empty());
}

NAMED_PROGRAM(terminated_at_once) {
  procpool::Pool pool{2};
  for (long i = 0; i < 50; ++i) static_cast<void>(pool.apply_async(slow_square, i, 100ms));
  pool.terminate();
  return 0;
}

TEST_CASE(
    "ThreadPoolShutdownTest.test_cancel_futures_wait_false: terminate with 50 tasks waiting, "
    "then the end: nothing on stderr",
    "[conformance][executor][state]") {
  const auto run = support::run_named("terminated_at_once");
  CHECK(run.exitcode == 0);
  CHECK(run.err.empty());
}
