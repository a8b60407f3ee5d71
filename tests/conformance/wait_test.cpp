// SPDX-License-Identifier: MIT
// CPython's tests of concurrent.futures.wait, and more: several pools, pools that end, callbacks,
// stop tokens. What was cancelled is ready at once here; Python calls it done only when a worker
// has met it.

#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <future>
#include <list>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using procpool::ALL_COMPLETED;
using procpool::FIRST_COMPLETED;
using procpool::FIRST_EXCEPTION;

using result = procpool::AsyncResult<long>;
using results = std::vector<result>;

/// A result that the waiting thread decodes for as long as the door is shut.
struct held {
  static inline support::gate* door = nullptr;
};

long behind(support::gate* door, long value) {
  door->pass();
  return value;
}

long fail_behind(support::gate* door) {
  door->pass();
  throw std::domain_error("behind the door");
}

long fail() {
  throw std::domain_error("at once");
}

long throw_cancelled() {
  throw procpool::CancelledError("a pool of the task's own has ended");
}

long die() {
  ::raise(SIGKILL);
  return 0;
}

// The gate is where it was when the workers were forked, so its address holds there, too.
auto pass(support::gate& door, long value) {
  return [address = reinterpret_cast<std::uintptr_t>(&door), value] {
    return behind(reinterpret_cast<support::gate*>(address), value);
  };
}

auto pass_and_fail(support::gate& door) {
  return [address = reinterpret_cast<std::uintptr_t>(&door)] {
    return fail_behind(reinterpret_cast<support::gate*>(address));
  };
}

result finished(procpool::Pool<>& pool, long value) {
  auto found = pool.apply_async(multiply, value, 1L);
  found.wait();
  return found;
}

result failed(procpool::Pool<>& pool) {
  auto found = pool.apply_async(fail);
  found.wait();
  return found;
}

std::vector<long> values(const results& all) {
  std::vector<long> found;
  for (const auto& each : all) found.push_back(each.get());
  return found;
}

using longs = std::vector<long>;

}  // namespace

template <>
struct procpool::codec<held> {
  static void encode(encoder&, const held&) {}
  static held decode(decoder&) {
    held::door->pass();
    return {};
  }
};

TEST_CASE("WaitTests.test_20369: a result given twice is waited for and listed once",
          "[conformance][wait]") {
  procpool::Pool pool{2};
  const auto one = pool.apply_async(slow_square, 2L, 20ms);
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    const auto [done, pending] = procpool::wait(results{one, one, one}, when);
    CHECK(values(done) == longs{4});
    CHECK(pending.empty());
  }
}

TEST_CASE("WaitTests.test_first_completed: returns with the first that is ready",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{pool.apply_async(pass(*door, 1)), pool.apply_async(multiply, 21L, 2L)};
  const auto [done, pending] = procpool::wait(all, FIRST_COMPLETED);
  CHECK(values(done) == longs{42});
  CHECK(pending.size() == 1);
  door->open();
  CHECK(values(pending) == longs{1});
}

TEST_CASE("WaitTests.test_first_completed_some_already_completed: returns at once with those",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  results all{finished(pool, 1), pool.apply_async(pass(*door, 2)), finished(pool, 3)};
  REQUIRE(door->wait_for(1));
  const auto [done, pending] = procpool::wait(all, FIRST_COMPLETED);
  CHECK(values(done) == longs{1, 3});
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE("WaitTests.test_first_exception: returns when one has failed",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> failing;
  const support::shared<support::gate> door;
  procpool::Pool pool{3};
  results all{pool.apply_async(pass(*door, 1)), pool.apply_async(pass_and_fail(*failing)),
              pool.apply_async(multiply, 2L, 21L)};
  std::jthread opener([&] {
    if (all[2].wait(20s)) failing->open();
  });
  const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
  REQUIRE(done.size() == 2);
  CHECK_FALSE(done[0].successful());
  CHECK(done[1].get() == 42);
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE(
    "WaitTests.test_first_exception_some_already_complete: successes and cancelled ones do "
    "not end the wait",
    "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  const support::shared<support::gate> failing;
  procpool::Pool pool{2};
  auto blocked = pool.apply_async(pass(*door, 1));
  auto blocking = pool.apply_async(pass_and_fail(*failing));
  REQUIRE(door->wait_for(1));
  REQUIRE(failing->wait_for(1));
  auto cancelled = pool.apply_async(square, 1L);
  REQUIRE(cancelled.cancel());
  const results all{cancelled, blocked, blocking};
  CHECK(procpool::wait(all, FIRST_EXCEPTION, 50ms).done.size() == 1);
  failing->open();
  const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
  CHECK(done.size() == 2);
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE("WaitTests.test_first_exception_one_already_failed: returns at once",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{failed(pool), pool.apply_async(pass(*door, 1))};
  const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
  CHECK(done.size() == 1);
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE("WaitTests.test_all_completed: waits for all, failed and cancelled ones included",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  auto blocked = pool.apply_async(pass(*door, 1));
  REQUIRE(door->wait_for(1));
  auto cancelled = pool.apply_async(square, 2L);
  REQUIRE(cancelled.cancel());
  const results all{blocked, cancelled, pool.apply_async(fail), pool.apply_async(square, 3L)};
  door->open();
  const auto [done, pending] = procpool::wait(all);
  REQUIRE(done.size() == 4);
  CHECK(pending.empty());
  CHECK(done[0].get() == 1);
  CHECK_THROWS_AS(done[1].get(), procpool::CancelledError);
  CHECK_THROWS_AS(done[2].get(), std::domain_error);
  CHECK(done[3].get() == 9);
}

TEST_CASE("WaitTests.test_timeout: what is ready by then is done, the rest pending",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{finished(pool, 1), failed(pool), pool.apply_async(pass(*door, 2))};
  const auto [done, pending] = procpool::wait(all, ALL_COMPLETED, 50ms);
  CHECK(done.size() == 2);
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE(
    "ThreadPoolWaitTests.test_pending_calls_race: a hundred results that become ready at once",
    "[conformance][wait][workers]") {
  const support::shared<support::gate> doors[10];
  procpool::Pool pool{16};
  for (int round = 0; round < 10; ++round) {
    auto& door = *doors[round];
    results all;
    for (long i = 0; i < 100; ++i) all.push_back(pool.apply_async(pass(door, i)));
    REQUIRE(door.wait_for(16));
    std::jthread opener([&] { door.open(); });
    const auto [done, pending] =
        procpool::wait(all, round % 2 == 0 ? ALL_COMPLETED : FIRST_EXCEPTION);
    REQUIRE(pending.empty());
    REQUIRE(values(done) == numbers(100));
  }
}

// ---- our own -----------------------------------------------------------------------------------

TEST_CASE("wait: nothing to wait for returns at once", "[conformance][wait]") {
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    const auto [done, pending] = procpool::wait(results{}, when);
    CHECK(done.empty());
    CHECK(pending.empty());
  }
}

TEST_CASE("wait: any range of results will do, of any type", "[conformance][wait]") {
  procpool::Pool pool{2};
  std::list<procpool::AsyncResult<void>> nothings;
  for (int i = 0; i < 3; ++i) nothings.push_back(pool.apply_async(sleep_for, 1ms));
  CHECK(procpool::wait(nothings).done.size() == 3);
  results ten;
  for (long i : numbers(10)) ten.push_back(pool.apply_async(square, i));
  CHECK(values(procpool::wait(std::span(ten).subspan(2, 3)).done) == longs{4, 9, 16});
  const std::vector maps{pool.map_async(square, numbers(5)), pool.map_async(square, numbers(7))};
  const auto [done, pending] = procpool::wait(maps, FIRST_EXCEPTION);
  REQUIRE(done.size() == 2);
  CHECK(done[1].get() == squares(7));
}

TEST_CASE("wait: a timeout of 0 sees what is ready and waits for nothing",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{pool.apply_async(pass(*door, 1)), finished(pool, 2)};
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    const auto [done, pending] = procpool::wait(all, when, 0s);
    CHECK(values(done) == longs{2});
    CHECK(pending.size() == 1);
  }
  door->open();
}

TEST_CASE("wait: the input's order is kept", "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  results all;
  for (long i = 0; i < 20; ++i) {
    all.push_back(i % 10 == 5 ? pool.apply_async(pass(*door, i)) : finished(pool, i));
    if (i == 5) REQUIRE(door->wait_for(1));
    if (i == 5) door->open();
  }
  CHECK(values(procpool::wait(all).done) == numbers(20));
}

TEST_CASE("wait: results of several pools", "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool one{1};
  procpool::Pool two{1};
  procpool::Pool three{1};
  const results all{one.apply_async(pass(*door, 1)), two.apply_async(slow_square, 2L, 30ms),
                    three.apply_async(pass(*door, 3))};
  CHECK(values(procpool::wait(all, FIRST_COMPLETED).done) == longs{4});
  const results blocked{all[0], all[2]};
  CHECK(procpool::wait(blocked, FIRST_COMPLETED, 20ms).done.empty());
  std::jthread opener([&] {
    std::this_thread::sleep_for(20ms);
    door->open();
  });
  for (auto when : {FIRST_EXCEPTION, ALL_COMPLETED}) {
    CHECK(values(procpool::wait(all, when).done) == longs{1, 4, 3});
  }
}

TEST_CASE("wait: several pools and a failure in one of them", "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool one{1};
  procpool::Pool two{1};
  const results all{one.apply_async(pass(*door, 1)), two.apply_async(square, 2L),
                    two.apply_async(fail)};
  const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
  CHECK(done.size() == 2);
  CHECK(pending.size() == 1);
  door->open();
}

TEST_CASE("wait: a task that throws CancelledError has failed, what was cancelled has not",
          "[conformance][wait][workers][limit:20]") {
  for (bool two_pools : {false, true}) {
    const support::shared<support::gate> door;
    const support::shared<support::gate> busy;
    procpool::Pool pool{2};
    procpool::Pool other{1};
    results all{pool.apply_async(pass(*door, 1)), pool.apply_async(pass(*busy, 2))};
    REQUIRE(door->wait_for(1));
    REQUIRE(busy->wait_for(1));
    all.push_back(pool.apply_async(square, 3L));
    REQUIRE(all.back().cancel());
    CHECK(procpool::wait(all, FIRST_EXCEPTION, 20ms).done.size() == 1);
    all.push_back((two_pools ? other : pool).apply_async(throw_cancelled));
    busy->open();
    const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
    CHECK_FALSE(done.back().cancelled());
    CHECK_THROWS_AS(done.back().get(), procpool::CancelledError);
    CHECK_FALSE(pending.empty());
    door->open();
  }
}

TEST_CASE("wait: a worker that dies is a failure", "[conformance][wait][processes]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const results all{pool.apply_async(pass(*door, 1)), pool.apply_async(die)};
  const auto [done, pending] = procpool::wait(all, FIRST_EXCEPTION);
  REQUIRE(done.size() == 1);
  CHECK_THROWS_AS(done[0].get(), procpool::WorkerDied);
  door->open();
}

TEST_CASE("wait: results of a pool that was terminated are ready", "[conformance][wait][workers]") {
  results all;
  {
    procpool::Pool pool{1};
    all.push_back(pool.apply_async(square, 1L));
    for (int i = 0; i < 50; ++i) {
      all.push_back(pool.apply_async(slow_square, 2L, conformance::until_killed()));
    }
    all[0].wait();
  }
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    CHECK(procpool::wait(all, when).done.size() == 51);
  }
}

TEST_CASE("wait: a pool that is terminated meanwhile ends the wait",
          "[conformance][wait][processes]") {
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    for (bool two_pools : {false, true}) {
      procpool::Pool pool{1};
      procpool::Pool other{1};
      results all;
      for (int i = 0; i < 10; ++i) {
        auto& where = two_pools && i % 2 == 1 ? other : pool;
        all.push_back(where.apply_async(slow_square, 2L, 20s));
      }
      std::jthread end([&] {
        std::this_thread::sleep_for(20ms);
        pool.terminate();
        other.terminate();
      });
      const auto [done, pending] = procpool::wait(all, when);
      REQUIRE(!done.empty());
      CHECK_THROWS_AS(done[0].get(), procpool::CancelledError);
      if (when != FIRST_COMPLETED) CHECK(pending.empty());
    }
  }
}

TEST_CASE("wait: a pool is terminated while a callback has still to run",
          "[conformance][wait][workers]") {
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    procpool::Pool pool{1};
    std::promise<void> entered;
    std::promise<void> leave;
    results all{pool.apply_async({.callback =
                                      [&](long&) {
                                        entered.set_value();
                                        leave.get_future().wait();
                                      }},
                                 square, 2L)};
    entered.get_future().wait();
    std::jthread end([&] { pool.terminate(); });
    auto waiter = std::async(std::launch::async, [&] { return procpool::wait(all, when); });
    CHECK(waiter.wait_for(30ms) == std::future_status::timeout);
    leave.set_value();
    CHECK(values(waiter.get().done) == longs{4});
  }
}

TEST_CASE("wait: cancelling a result that is waited for ends the wait",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  auto blocked = pool.apply_async(pass(*door, 1));
  REQUIRE(door->wait_for(1));
  auto queued = pool.apply_async(square, 2L);
  std::jthread canceller([&] {
    std::this_thread::sleep_for(20ms);
    queued.cancel();
  });
  const results all{blocked, queued};
  const auto [done, pending] = procpool::wait(all, FIRST_COMPLETED);
  REQUIRE(done.size() == 1);
  CHECK_THROWS_AS(done[0].get(), procpool::CancelledError);
  door->open();
}

TEST_CASE("wait: a stop that was requested before lets it see what is ready",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  procpool::Pool other{1};
  std::stop_source stop;
  stop.request_stop();
  const results one_pool{finished(pool, 1), pool.apply_async(pass(*door, 2))};
  const results blocked{one_pool[1], other.apply_async(pass(*door, 3))};
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    CHECK(values(procpool::wait(one_pool, when, stop.get_token()).done) == longs{1});
    CHECK(procpool::wait(blocked, when, stop.get_token()).done.empty());
  }
  door->open();
}

TEST_CASE("wait: a stop ends it, with results of one pool or of two",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  procpool::Pool other{1};
  for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
    for (bool two_pools : {false, true}) {
      const results all{pool.apply_async(pass(*door, 1)),
                        (two_pools ? other : pool).apply_async(pass(*door, 2))};
      std::stop_source stop;
      std::jthread stopper([&] {
        std::this_thread::sleep_for(10ms);
        stop.request_stop();
      });
      CHECK(procpool::wait(all, when, stop.get_token()).pending.size() == 2);
    }
  }
  door->open();
}

TEST_CASE("wait: two threads wait for the same results", "[conformance][wait]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (int round = 0; round < 20; ++round) {
    results all;
    for (long i = 0; i < 40; ++i) {
      all.push_back((round % 2 == 0 || i % 4 != 0 ? pool : other).apply_async(square, i));
    }
    std::atomic<int> right = 0;
    {
      std::vector<std::jthread> waiters;
      for (auto when : {FIRST_EXCEPTION, FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED}) {
        waiters.emplace_back([&, when] {
          const auto [done, pending] = procpool::wait(all, when);
          if (when == FIRST_COMPLETED ? !done.empty() : values(done) == squares(40)) ++right;
        });
      }
    }
    REQUIRE(right == 4);
  }
}

TEST_CASE("wait: waiters that have gone are not told", "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  procpool::Pool other{1};
  results all;
  for (long i = 0; i < 50; ++i)
    all.push_back((i % 5 != 0 ? pool : other).apply_async(pass(*door, i)));
  for (int i = 0; i < 5; ++i) {
    CHECK(procpool::wait(all, FIRST_COMPLETED, 1ms).done.empty());
    CHECK(procpool::wait(all, FIRST_EXCEPTION, 1ms).done.empty());
  }
  door->open();
  CHECK(values(procpool::wait(all, FIRST_EXCEPTION).done) == numbers(50));
}

TEST_CASE("wait: in a callback, for results of its own pool and of another",
          "[conformance][wait]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (bool two_pools : {false, true}) {
    for (auto when : {ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION}) {
      std::size_t ready = 0;
      const auto callback = [&](long&) {
        const results all{pool.apply_async(slow_square, 1L, 20ms),
                          (two_pools ? other : pool).apply_async(slow_square, 2L, 20ms)};
        ready = procpool::wait(all, when).done.size();
      };
      pool.apply_async({.callback = callback}, square, 2L).wait();
      CHECK(ready >= (when == FIRST_COMPLETED ? 1U : 2U));
    }
  }
}

TEST_CASE("wait: in a callback, with a timeout and with a stop", "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  procpool::Pool other{1};
  std::stop_source stop;
  std::size_t pending = 0;
  const auto callback = [&](long&) {
    const results all{pool.apply_async(pass(*door, 1)), other.apply_async(pass(*door, 2))};
    pending += procpool::wait(all, FIRST_COMPLETED, 20ms).pending.size();
    std::jthread stopper([&] { stop.request_stop(); });
    pending += procpool::wait(all, FIRST_COMPLETED, stop.get_token()).pending.size();
  };
  pool.apply_async({.callback = callback}, square, 2L).wait();
  CHECK(pending == 4);
  door->open();
}

TEST_CASE("wait: results with callbacks are ready when those have run", "[conformance][wait]") {
  procpool::Pool pool{2};
  procpool::Pool other{1};
  for (auto when : {ALL_COMPLETED, FIRST_EXCEPTION}) {
    for (bool two_pools : {false, true}) {
      std::atomic<int> called = 0;
      results all;
      for (long i = 0; i < 20; ++i) {
        all.push_back((two_pools && i % 2 != 0 ? other : pool)
                          .apply_async({.callback = [&](long&) { ++called; }}, square, i));
      }
      CHECK(procpool::wait(all, when).pending.empty());
      CHECK(called == 20);
    }
  }
}

TEST_CASE("wait: a result that was moved from is refused", "[conformance][wait]") {
  procpool::Pool pool{1};
  results all{pool.apply_async(square, 1L), pool.apply_async(square, 2L)};
  const auto taken = std::move(all[0]);
  CHECK_THROWS_AS(procpool::wait(all), std::invalid_argument);
  CHECK(taken.get() == 1);
}

TEST_CASE("wait: a forked child sees what is ready and cannot wait for the rest",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  const results all{finished(pool, 1), pool.apply_async(pass(*door, 2))};
  CHECK(support::run_child([&] {
          CHILD_REQUIRE(procpool::wait(all, FIRST_COMPLETED).done.size() == 1);
          CHILD_REQUIRE(procpool::wait(results{all[0]}).done.size() == 1);
          for (auto when : {ALL_COMPLETED, FIRST_EXCEPTION}) {
            try {
              static_cast<void>(procpool::wait(all, when));
              return 1;
            } catch (const std::logic_error&) {
            }
          }
          return 0;
        }) == 0);
  door->open();
}

TEST_CASE("wait: a forked child cannot wait, though another thread had the pool's lock",
          "[conformance][wait][workers]") {
  const support::shared<support::gate> door;
  const support::shared<support::gate> decoding;
  held::door = decoding.get();
  procpool::Pool pool{2};
  procpool::Pool other{1};
  const auto blocked = pool.apply_async(pass(*door, 1));
  const results two_pools{blocked, other.apply_async(pass(*door, 2))};
  const auto slow = pool.apply_async([] { return held(); });
  std::jthread decoder([&] { slow.wait(); });
  REQUIRE(decoding->wait_for(1));
  CHECK(support::run_child([&] {
          ::alarm(20);  // it hangs
          const auto refused = [](auto call) {
            try {
              static_cast<void>(call());
            } catch (const std::logic_error&) {
              return true;
            }
            return false;
          };
          std::stop_source stop;
          stop.request_stop();
          CHILD_REQUIRE(refused([&] { return blocked.wait(); }));
          CHILD_REQUIRE(refused([&] { return blocked.wait(stop.get_token()); }));
          CHILD_REQUIRE(refused([&] { return blocked.get(stop.get_token()); }));
          CHILD_REQUIRE(refused(
              [&] { return procpool::wait(results{blocked}, ALL_COMPLETED, stop.get_token()); }));
          CHILD_REQUIRE(
              refused([&] { return procpool::wait(two_pools, ALL_COMPLETED, stop.get_token()); }));
          return 0;
        }) == 0);
  decoding->open();
  door->open();
}
