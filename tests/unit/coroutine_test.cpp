// SPDX-License-Identifier: MIT
// co_await on results: what it gives, where it goes on, and coroutines that do not live to see it.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using support::waiting_at;

/// Runs at once and frees itself at its end; an exception leaves through resume().
struct detached {
  struct promise_type {
    detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const { throw; }
  };
};

/// Runs at once; its frame is freed by whoever has it.
struct owned {
  struct promise_type {
    owned get_return_object() {
      return owned{std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };

  explicit owned(std::coroutine_handle<promise_type> frame) : frame_(frame) {}
  owned(owned&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  owned& operator=(owned&&) = delete;
  ~owned() {
    if (frame_) frame_.destroy();
  }

  std::coroutine_handle<promise_type> frame_;
};

/// Counts those of its kind that are alive.
struct counted {
  explicit counted(std::atomic<int>& count) : count_(&count) { ++*count_; }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --*count_; }
  std::atomic<int>* count_;
};

long square(long x) {
  return x * x;
}

}  // namespace

TEST_CASE("co_await gives values, exceptions, and nothing for void", "[coroutine]") {
  procpool::Pool pool{2};
  std::string seen;
  std::atomic<bool> ended = false;
  const auto run = [&]() -> detached {
    auto number = pool.apply_async(square, 7L);
    seen += std::to_string(co_await number);
    seen += " " + std::to_string(co_await std::as_const(number));  // ready: again
    seen += " " + std::to_string(co_await pool.apply_async(square, 8L));
    co_await pool.apply_async([] {});
    try {
      co_await pool.apply_async([] { throw std::domain_error("no"); });
    } catch (const std::domain_error& error) {
      seen += std::string(" ") + error.what();
    }
    const std::vector<long> few{1, 2, 3};
    const std::vector<long> all = co_await pool.map_async(square, few);
    seen += " " + std::to_string(all.at(2));
    ended = true;
  };
  run();
  CHECK(support::eventually([&] { return ended.load(); }));
  CHECK(seen == "49 49 64 no 9");
}

TEST_CASE("co_await moves out of an rvalue, and what cannot be copied", "[coroutine]") {
  procpool::Pool pool{1};
  std::atomic<int> sum = 0;
  const auto make = [](int x) { return std::make_unique<int>(x); };
  const auto run = [&]() -> detached {
    std::unique_ptr<int> one = co_await pool.apply_async(make, 1);
    const auto kept = pool.apply_async(make, 2);
    std::unique_ptr<int> two = co_await kept;
    auto text = pool.apply_async([] { return std::string(100, 'x'); });
    const std::string copy = co_await text;
    const std::string again = co_await std::move(text);
    sum = *one + *two + static_cast<int>(copy.size() + again.size());
  };
  run();
  CHECK(support::eventually([&] { return sum == 203; }));
}

TEST_CASE("co_await does not suspend when the result is ready; else the service thread resumes",
          "[coroutine]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  std::optional<std::thread::id> before;
  std::atomic<bool> ended = false;
  std::thread::id after;
  const auto there = pool.apply_async(square, 2L);
  there.wait();
  const auto run = [&]() -> detached {
    co_await there;
    before = std::this_thread::get_id();
    co_await pool.apply_async(waiting_at(door));
    after = std::this_thread::get_id();
    ended = true;
  };
  run();
  REQUIRE(before.has_value());
  CHECK(*before == std::this_thread::get_id());
  CHECK_FALSE(ended);
  std::thread::id service;
  auto other = pool.apply_async(square, 3L);
  other.add_done_callback([&](auto&) { service = std::this_thread::get_id(); });
  door->open();
  pool.close();
  pool.join();
  CHECK(ended);
  CHECK(after == service);
  CHECK(after != std::this_thread::get_id());
}

TEST_CASE("coroutines and callbacks of one result go on in the order in which they came",
          "[coroutine]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  std::string order;
  const auto result = pool.apply_async(waiting_at(door));
  const auto run = [&](char name) -> detached {
    co_await result;
    order += name;
  };
  run('a');
  result.add_done_callback([&](auto&) { order += 'b'; });
  run('c');
  door->open();
  pool.close();
  pool.join();
  CHECK(order == "abc");
}

TEST_CASE("thousands of coroutines, each with a chain of results", "[coroutine]") {
  procpool::Pool pool{2};
  std::atomic<long> sum = 0;
  const auto run = [&](long x) -> detached {
    for (int i = 0; i < 5; ++i) x = co_await pool.apply_async([](long y) { return y + 1; }, x);
    sum += x;
  };
  for (long i = 0; i < 5'000; ++i) run(i);
  CHECK(support::eventually([&] { return sum == 5'000L * 4'999 / 2 + 25'000; }));
}

TEST_CASE("a coroutine that is destroyed while it waits", "[coroutine]") {
  std::atomic<int> alive = 0;
  std::atomic<int> went_on = 0;
  {
    const support::shared<support::gate> door;
    procpool::Pool pool{1};
    const auto result = pool.apply_async(waiting_at(door));
    const auto run = [&]() -> owned {
      const counted here(alive);
      co_await result;
      ++went_on;
    };
    std::vector<owned> all;
    for (int i = 0; i < 10; ++i) all.push_back(run());
    CHECK(alive == 10);
    {
      auto first = std::move(all[0]);  // NOLINT: that is the point
      auto middle = std::move(all[5]);
      auto last = std::move(all[9]);
    }
    CHECK(alive == 7);
    std::thread([other = std::move(all[3])] {}).join();
    CHECK(alive == 6);
    door->open();
    CHECK(result.get() == 1);
    CHECK(support::eventually([&] { return went_on == 6; }));
    pool.close();
    pool.join();
    CHECK(alive == 0);  // those that went on have come to their ends
  }
  CHECK(went_on == 6);
}

TEST_CASE("a coroutine that is destroyed on the service thread when its result is there",
          "[coroutine]") {
  for (int round = 0; round < 50; ++round) {
    const support::shared<support::gate> door;
    procpool::Pool pool{2};
    std::atomic<int> alive = 0;
    std::atomic<int> went_on = 0;
    const auto result = pool.apply_async(waiting_at(door));
    std::optional<owned> victim;
    // Before the victim in line: the result is ready then, and the victim due.
    result.add_done_callback([&](auto&) { victim.reset(); });
    const auto run = [&]() -> owned {
      const counted here(alive);
      co_await result;
      ++went_on;
    };
    victim.emplace(run());
    result.add_done_callback([&](auto&) { ++went_on; });
    door->open();
    pool.close();
    pool.join();
    CHECK(alive == 0);
    CHECK(went_on == 1);
  }
}

TEST_CASE("coroutines that are destroyed while others of the pool are resumed", "[coroutine]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  const auto slow = pool.apply_async(waiting_at(door));  // the others are done by the second worker
  std::atomic<int> alive = 0;
  std::atomic<int> done = 0;
  const auto wait_for = [&](const procpool::AsyncResult<long>& result) -> owned {
    const counted here(alive);
    co_await result;
  };
  const auto run = [&](long x) -> detached {
    co_await pool.apply_async(square, x);
    ++done;
  };
  for (int round = 0; round < 500; ++round) {
    std::vector<owned> victims;
    for (int i = 0; i < 4; ++i) victims.push_back(wait_for(slow));
    for (int i = 0; i < 10; ++i) run(i);
  }
  CHECK(alive == 0);
  CHECK(support::eventually([&] { return done == 5'000; }));
  door->open();
  CHECK(slow.get() == 1);
}

TEST_CASE("the end of the pool and cancel resume coroutines, with CancelledError", "[coroutine]") {
  std::atomic<int> cancelled = 0;
  const support::shared<support::gate> door;
  const auto wait_for = [&](procpool::AsyncResult<long> result) -> detached {
    try {
      co_await result;
    } catch (const procpool::CancelledError&) {
      ++cancelled;
    }
  };
  procpool::Pool pool{1};
  wait_for(pool.apply_async(waiting_at(door)));
  auto result = pool.apply_async(square, 1L);
  wait_for(result);
  REQUIRE(door->wait_for(1));
  CHECK(result.cancel());
  CHECK(support::eventually([&] { return cancelled == 1; }));
  pool.terminate();
  CHECK(cancelled == 2);
  wait_for(result);
  CHECK(cancelled == 3);
}

// While the service thread leads and sleeps: late ones would take a quarter of a second each.
TEST_CASE("a coroutine whose result is cancelled goes on at once, though nobody waits",
          "[coroutine][limit:20]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  pool.apply_async(waiting_at(door));
  REQUIRE(door->wait_for(1));
  std::atomic<int> went_on = 0;
  const auto wait_for = [&](procpool::AsyncResult<long> result) -> detached {
    try {
      co_await result;
    } catch (const procpool::CancelledError&) {
      ++went_on;
    }
  };
  for (int round = 0; round < 200; ++round) {
    auto result = pool.apply_async(square, 1L);
    wait_for(result);
    CHECK(result.cancel());
    REQUIRE(support::eventually([&] { return went_on == round + 1; }));
  }
}

TEST_CASE("a coroutine that owns the pool it waits for", "[coroutine]") {
  for (int round = 0; round < 20; ++round) {
    std::atomic<long> got = 0;
    const auto run = [&](bool join) -> detached {
      long value = 0;
      {
        procpool::Pool pool{1};
        value = co_await pool.apply_async(square, 6L);
        if (join) {
          pool.close();
          pool.join();
        }
      }
      got = value;
    };
    run(round % 2 == 0);
    CHECK(support::eventually([&] { return got == 36; }));
  }
}

TEST_CASE("a coroutine waits for results of two pools in turn", "[coroutine]") {
  procpool::Pool one{1};
  procpool::Pool other{1};
  std::atomic<long> got = 0;
  const auto run = [&]() -> detached {
    long x = 1;
    for (int i = 0; i < 50; ++i) {
      x = co_await one.apply_async([](long y) { return y + 1; }, x);
      x = co_await other.apply_async([](long y) { return y + 1; }, x);
    }
    got = x;
  };
  run();
  CHECK(support::eventually([&] { return got == 101; }));
}

TEST_CASE("an exception that leaves a coroutine is reported", "[coroutine]") {
  const auto child = support::capture_child([] {
    const support::shared<support::gate> door;
    procpool::Pool pool{1};
    const auto result = pool.apply_async(waiting_at(door));
    const auto run = [&]() -> detached {
      co_await result;
      throw std::runtime_error("out of the coroutine");
    };
    run();
    door->open();
    CHILD_REQUIRE(result.get() == 1);
    CHILD_REQUIRE(pool.apply(square, 3L) == 9);
    pool.close();
    pool.join();
    return 0;
  });
  CHECK(child.exitcode == 0);
  CHECK(child.err.find("out of the coroutine") != std::string::npos);
}

TEST_CASE("in a forked process a coroutine that waits is not resumed and can be destroyed",
          "[coroutine]") {
  const support::shared<support::gate> door;
  const support::shared<std::atomic<int>> went_on;
  procpool::Pool pool{1};
  const auto result = pool.apply_async(waiting_at(door));
  const auto run = [&]() -> owned {
    co_await result;
    ++*went_on;
  };
  std::optional waiting(run());
  CHECK(support::run_child([&] {
          waiting.reset();
          bool refused = false;
          const auto late = [&]() -> detached {
            try {
              co_await result;
            } catch (const std::logic_error&) {
              refused = true;
            }
          };
          late();
          CHILD_REQUIRE(refused);
          return 0;
        }) == 0);
  CHECK(*went_on == 0);
  door->open();
  CHECK(support::eventually([&] { return *went_on == 1; }));
  pool.close();
  pool.join();
}
