// SPDX-License-Identifier: MIT
// A bound on the tasks of a pool that are not done; its state; and joins that give up.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <numeric>
#include <optional>
#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::pool_state;
using support::gate;
using support::shared;
using support::waiting_at;

int leaf(int x) {
  return x + 1;
}

std::vector<int> items(std::size_t count) {
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

template <class Backend>
procpool::Pool<Backend> bounded(int workers, int most) {
  return procpool::Pool<Backend>({.processes = workers, .max_pending = most});
}

/// As many tasks as there is room for, which wait at the door.
template <class Backend>
std::vector<procpool::AsyncResult<long>> fill(procpool::Pool<Backend>& pool,
                                              const shared<gate>& door) {
  std::vector<procpool::AsyncResult<long>> all;
  while (auto one = pool.try_apply_async(waiting_at(door))) all.push_back(*one);
  return all;
}

template <class Backend>
void check_bound() {
  const shared<gate> door;
  auto pool = bounded<Backend>(2, 5);
  auto all = fill(pool, door);
  CHECK(all.size() == 5);
  CHECK_FALSE(pool.try_apply_async({.retries = 1}, leaf, 1).has_value());
  std::atomic<bool> accepted = false;
  std::jthread submits([&] {
    auto late = pool.apply_async(leaf, 1);
    accepted = true;
    CHECK(late.get() == 2);
  });
  std::this_thread::sleep_for(50ms);
  CHECK_FALSE(accepted);
  door->open();
  for (auto& each : all) CHECK(each.get() == 1);
  submits.join();
  CHECK(accepted);
  CHECK(pool.try_apply_async(leaf, 2).value().get() == 3);
}

template <class Backend>
void check_whole_maps() {
  for (const int most : {1, 3}) {
    auto pool = bounded<Backend>(2, most);
    const auto all = items(300);
    std::vector<int> expected(300);
    std::iota(expected.begin(), expected.end(), 1);
    CHECK(pool.map(leaf, all, {.chunksize = 1}) == expected);
    CHECK(pool.map_async(leaf, all, {.chunksize = 7}).get() == expected);
    std::vector<int> lazy;
    for (const int each : pool.imap(leaf, all)) lazy.push_back(each);
    CHECK(lazy == expected);
    int sum = 0;
    for (const int each : pool.imap_unordered(leaf, all, {.chunksize = 3})) sum += each;
    CHECK(sum == std::accumulate(expected.begin(), expected.end(), 0));
  }
}

}  // namespace

TEST_CASE("max_pending: with so many tasks not done submitting waits and trying says no",
          "[max_pending]") {
  check_bound<procpool::Processes>();
  check_bound<procpool::Threads>();
}

TEST_CASE("max_pending: maps and imaps of more chunks go through", "[max_pending]") {
  check_whole_maps<procpool::Processes>();
  check_whole_maps<procpool::Threads>();
}

TEST_CASE("max_pending: without it any number of tasks is accepted", "[max_pending]") {
  const shared<gate> door;
  procpool::Pool pool{1};
  std::vector<procpool::AsyncResult<long>> all;
  for (int i = 0; i < 5000; ++i) all.push_back(pool.try_apply_async(waiting_at(door)).value());
  door->open();
  for (auto& each : all) CHECK(each.get() == 1);
}

TEST_CASE("max_pending: several threads that submit stay below the bound, and all get on",
          "[max_pending]") {
  auto pool = bounded<procpool::Processes>(2, 3);
  std::atomic<int> sum = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&] {
        std::vector<procpool::AsyncResult<int>> own;
        for (int i = 0; i < 200; ++i) own.push_back(pool.apply_async(leaf, 0));
        for (auto& each : own) sum += each.get();
      });
    }
  }
  CHECK(sum == 800);
}

TEST_CASE("max_pending: one that only waits for results lets those go on that wait for room",
          "[max_pending]") {
  const shared<gate> door;
  auto pool = bounded<procpool::Processes>(1, 2);
  auto blocked = pool.map_async(
      [at = door.get()](int x) {
        if (x == 1) at->pass();
        return x;
      },
      items(2), {.chunksize = 1});
  // The first item is done soon, which makes room, though the map is not done.
  std::jthread waits([&] { CHECK(blocked.get() == items(2)); });
  auto late = pool.apply_async(leaf, 5);
  door->open();
  CHECK(late.get() == 6);
}

TEST_CASE("max_pending: callbacks may submit", "[max_pending]") {
  auto pool = bounded<procpool::Processes>(2, 2);
  std::atomic<int> done = 0;
  std::vector<procpool::AsyncResult<int>> first;
  for (int i = 0; i < 20; ++i) {
    first.push_back(pool.apply_async({.callback =
                                          [&](int& value) {
                                            pool.apply_async({.callback = [&](int&) { ++done; }},
                                                             leaf, value);
                                          }},
                                     leaf, i));
    first.back().add_done_callback(
        [&](auto& result) { done += pool.apply(leaf, result.get()) > 0 ? 1 : 0; });
  }
  CHECK(support::eventually([&] { return done == 40; }));
}

TEST_CASE("max_pending: a task of a pool of threads that submits to it does not wait",
          "[max_pending]") {
  static procpool::ThreadPool* own = nullptr;
  auto pool = bounded<procpool::Threads>(1, 1);
  own = &pool;
  const auto submits = [] {
    CHECK(own->try_apply_async(leaf, 1).has_value());
    own->apply_async(leaf, 2);
    return 7;
  };
  CHECK(pool.apply_async(submits).get(20s) == 7);
  CHECK(pool.apply(leaf, 1) == 2);
}

TEST_CASE("max_pending: a requested stop ends the wait for room", "[max_pending]") {
  const shared<gate> door;
  auto pool = bounded<procpool::Processes>(1, 2);
  auto all = fill(pool, door);
  for (const bool mapped : {false, true}) {
    std::stop_source stop;
    std::jthread later([&] {
      std::this_thread::sleep_for(30ms);
      stop.request_stop();
    });
    if (mapped) {
      CHECK_THROWS_AS(pool.map(leaf, items(3), {.stop = stop.get_token()}),
                      procpool::CancelledError);
    } else {
      CHECK_THROWS_AS(pool.apply({.stop = stop.get_token()}, leaf, 1), procpool::CancelledError);
    }
  }
  door->open();
  for (auto& each : all) each.wait();
  CHECK(pool.apply(leaf, 1) == 2);
}

TEST_CASE("max_pending: trying finds the room that a call which was stopped has left",
          "[max_pending]") {
  const shared<gate> door;
  auto pool = bounded<procpool::Processes>(1, 1);
  std::stop_source stop;
  std::jthread later([&] {
    static_cast<void>(door->wait_for(1));
    stop.request_stop();
  });
  CHECK_THROWS_AS(pool.apply({.stop = stop.get_token()}, waiting_at(door)),
                  procpool::CancelledError);
  std::optional<procpool::AsyncResult<int>> one;  // nobody waits, there is no service thread
  CHECK(support::eventually([&] { return (one = pool.try_apply_async(leaf, 1)).has_value(); }));
  CHECK(one.value().get() == 2);
}

TEST_CASE("max_pending: a task of a serial pool is no part of the submission it runs in",
          "[max_pending]") {
  static procpool::Pool<>* other = nullptr;
  auto pool = bounded<procpool::Processes>(1, 1);
  other = &pool;
  auto busy = pool.apply_async([] { std::this_thread::sleep_for(50ms); });
  procpool::Pool<procpool::Serial> here;
  auto one = here.try_apply_async([] { return other->apply(leaf, 1); });
  CHECK(one.value().get() == 2);
  busy.get();
}

TEST_CASE("max_pending: next(timeout) of an imap is over in time though there is no room",
          "[max_pending]") {
  const shared<gate> door;
  auto pool = bounded<procpool::Processes>(1, 1);
  auto lazy = pool.imap(leaf, items(3), {.buffersize = 1});
  CHECK(lazy.next() == 1);
  std::vector<procpool::AsyncResult<long>> all;
  CHECK(support::eventually([&] {
    if (auto one = pool.try_apply_async(waiting_at(door))) all.push_back(*one);
    return !all.empty();
  }));
  try {
    static_cast<void>(lazy.next(30ms));
    static_cast<void>(lazy.next(30ms));
    FAIL("it should have thrown");
  } catch (const procpool::TimeoutError&) {
  }
  door->open();
  int left = 0;
  while (lazy.next()) ++left;
  CHECK(left >= 1);
}

TEST_CASE("max_pending: whoever waits for room learns of the end of the pool", "[max_pending]") {
  for (const int how : {0, 1, 2}) {
    INFO("way " << how);
    const shared<gate> door;
    auto pool = bounded<procpool::Processes>(1, 1);
    auto all = fill(pool, door);
    std::jthread ends([&] {
      std::this_thread::sleep_for(30ms);
      if (how == 0) pool.close();
      if (how == 1) pool.terminate();
      if (how == 2) all.front().cancel({.kill = true});
    });
    if (how == 2) {
      CHECK(pool.apply(leaf, 1) == 2);  // room was made by a cancel
    } else {
      CHECK_THROWS_AS(pool.apply(leaf, 1), procpool::PoolClosed);
    }
    door->open();
  }
}

TEST_CASE("max_pending: a pool that breaks tells who waits for room", "[max_pending]") {
  const shared<gate> door;
  auto pool = bounded<procpool::Processes>(1, 1);
  const pid_t server = pool.apply([] { return getppid(); });
  auto all = fill(pool, door);
  std::jthread ends([&] {
    std::this_thread::sleep_for(30ms);
    kill(server, SIGKILL);
  });
  CHECK_THROWS_AS(pool.apply(leaf, 1), procpool::BrokenPool);
  CHECK(pool.state() == pool_state::broken);
}

TEST_CASE("max_pending: a bound that makes no sense is refused", "[max_pending]") {
  for (const int most : {0, -1}) {
    CHECK_THROWS_AS(procpool::Pool({.processes = 1, .max_pending = most}), std::invalid_argument);
  }
}

TEST_CASE("a pool tells its state", "[pool_state]") {
  procpool::Pool pool{1};
  CHECK(pool.state() == pool_state::active);
  CHECK(fmt::format("{} {:>7}", pool.state(), pool_state::closed) == "active  closed");
  pool.close();
  CHECK(pool.state() == pool_state::closed);
  pool.join();
  CHECK(pool.state() == pool_state::terminated);
  procpool::Pool<procpool::Serial> here;
  CHECK(here.state() == pool_state::active);
  here.close();
  CHECK(here.state() == pool_state::closed);
  CHECK(here.join(1s));
  CHECK(here.state() == pool_state::terminated);
  procpool::Pool failing{{.processes = 1, .initializer = {[] { throw std::runtime_error("no"); }}}};
  CHECK_THROWS_AS(failing.apply(leaf, 1), procpool::BrokenPool);
  CHECK(failing.state() == pool_state::broken);
  failing.close();
  CHECK(failing.state() == pool_state::broken);
  failing.terminate();
  CHECK(failing.state() == pool_state::terminated);
}

TEST_CASE("join with a timeout gives up, and can be repeated", "[pool_state]") {
  const shared<gate> door;
  procpool::Pool pool{2};
  auto result = pool.apply_async(waiting_at(door));
  CHECK_THROWS_AS(pool.join(1ms), std::logic_error);
  pool.close();
  CHECK_FALSE(pool.join(0s));
  CHECK_FALSE(pool.join(30ms));
  CHECK(pool.state() == pool_state::closed);
  door->open();
  CHECK(pool.join(20s));
  CHECK(pool.join(0s));
  CHECK(result.get() == 1);
}

TEST_CASE("join keeps to its timeout while another thread terminates the pool", "[pool_state]") {
  const shared<gate> door;
  procpool::ThreadPool pool{1};
  auto result = pool.apply_async(waiting_at(door));
  CHECK(door->wait_for(1));
  std::jthread ends([&] { pool.terminate(); });
  CHECK(support::eventually([&] { return pool.state() == pool_state::terminated; }));
  CHECK_FALSE(pool.join(30ms));
  std::stop_source stop;
  std::jthread stops([&] { stop.request_stop(); });
  CHECK_FALSE(pool.join(stop.get_token()));
  door->open();
  CHECK(pool.join(20s));
}
