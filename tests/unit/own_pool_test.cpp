// SPDX-License-Identifier: MIT
// A pool used where it cannot be: in a task that it runs, in processes forked from its own. Every
// member says so or does nothing, and the pool goes on.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

int leaf(int x) {
  return x + 1;
}
int add(int a, int b) {
  return a + b;
}

/// The pool of a test, known everywhere as a global one is. Its memory is there before it.
struct pool_place {
  alignas(procpool::Pool<>) std::byte memory[sizeof(procpool::Pool<>)];
  procpool::Pool<>& pool() { return *reinterpret_cast<procpool::Pool<>*>(memory); }
};
pool_place place;

/// Makes it, in memory that is full of something else.
class global_pool {
 public:
  explicit global_pool(procpool::pool_options options) {
    std::memset(place.memory, 0x5a, sizeof place.memory);
    new (place.memory) procpool::Pool<>(std::move(options));
  }
  global_pool(const global_pool&) = delete;
  global_pool& operator=(const global_pool&) = delete;
  ~global_pool() { place.pool().~Pool(); }
  procpool::Pool<>* operator->() { return &place.pool(); }
};

using uses = std::vector<std::pair<const char*, std::function<void(procpool::Pool<>&)>>>;

uses all_members() {
  static const std::vector<int> items{1, 2, 3};
  static const std::vector<int> nothing;
  static const std::vector<std::pair<int, int>> pairs{{1, 2}, {3, 4}};
  return {
      {"apply", [](auto& pool) { pool.apply(leaf, 1); }},
      {"apply with options", [](auto& pool) { pool.apply({.timeout = 1s}, leaf, 1); }},
      {"apply of much",
       [](auto& pool) { pool.apply([](std::string) {}, std::string(1 << 20, 'x')); }},
      {"apply_async", [](auto& pool) { pool.apply_async(leaf, 1); }},
      {"apply_async with options", [](auto& pool) { pool.apply_async({.retries = 1}, leaf, 1); }},
      {"map", [](auto& pool) { pool.map(leaf, items); }},
      {"map of a list",
       [](auto& pool) {
         pool.map(leaf, {1, 2});
       }},
      {"map of nothing", [](auto& pool) { pool.map(leaf, nothing); }},
      {"map_async", [](auto& pool) { pool.map_async(leaf, items); }},
      {"map_async of nothing", [](auto& pool) { pool.map_async(leaf, nothing); }},
      {"starmap", [](auto& pool) { pool.starmap(add, pairs); }},
      {"starmap_async", [](auto& pool) { pool.starmap_async(add, pairs); }},
      {"map_outcomes", [](auto& pool) { pool.map_outcomes(leaf, items); }},
      {"map_outcomes_async", [](auto& pool) { pool.map_outcomes_async(leaf, items); }},
      {"starmap_outcomes", [](auto& pool) { pool.starmap_outcomes(add, pairs); }},
      {"map_reduce", [](auto& pool) { pool.map_reduce(leaf, items, add); }},
      {"map_reduce with a value", [](auto& pool) { pool.map_reduce(leaf, items, add, 1); }},
      {"imap", [](auto& pool) { static_cast<void>(pool.imap(leaf, items)); }},
      {"imap_unordered", [](auto& pool) { static_cast<void>(pool.imap_unordered(leaf, items)); }},
      {"resize", [](auto& pool) { pool.resize(3); }},
      {"fileno", [](auto& pool) { static_cast<void>(pool.fileno()); }},
      {"close", [](auto& pool) { pool.close(); }},
      {"join", [](auto& pool) { pool.join(); }},
      {"join with a stop", [](auto& pool) { pool.join(std::stop_source().get_token()); }},
      {"terminate", [](auto& pool) { pool.terminate(); }},
  };
}

/// Which members do not say std::logic_error with these words.
std::string who_is_silent(procpool::Pool<>& pool, const char* words) {
  std::string silent;
  for (const auto& [name, use] : all_members()) {
    try {
      use(pool);
      silent += std::string(name) + " does not throw\n";
    } catch (const std::logic_error& error) {
      if (std::string(error.what()).find(words) == std::string::npos) {
        silent += std::string(name) + ": " + error.what() + "\n";
      }
    } catch (const std::exception& error) {
      silent += std::string(name) + " throws something else: " + error.what() + "\n";
    }
  }
  return silent;
}

std::string use_own_pool() {
  return who_is_silent(place.pool(), "a task cannot use the pool that runs it");
}

}  // namespace

TEST_CASE("a task that uses the pool that runs it is told so by every member", "[own_pool]") {
  global_pool pool({.processes = 2});
  CHECK(pool->apply(use_own_pool).empty());
  CHECK(pool->map([](int) { return use_own_pool(); }, std::vector<int>{1, 2, 3}) ==
        std::vector<std::string>(3));
  CHECK_THROWS_AS(pool->apply([] { return place.pool().processes(); }), std::logic_error);
  CHECK_NOTHROW(pool->apply([] { place.pool().~Pool(); }));
  CHECK(pool->apply(leaf, 1) == 2);
}

TEST_CASE("the exception of a task that uses its own pool reaches the caller", "[own_pool]") {
  global_pool pool({.processes = 2});
  try {
    pool->apply([] { return place.pool().apply(leaf, 1); });
    FAIL("it should have thrown");
  } catch (const std::logic_error& error) {
    CHECK_THAT(error.what(), ContainsSubstring("a task cannot use the pool that runs it"));
  }
}

TEST_CASE("an initializer that uses the pool breaks it, and the error says why", "[own_pool]") {
  global_pool pool({.processes = 2, .initializer = {[] { place.pool().apply(leaf, 1); }}});
  try {
    pool->apply(leaf, 1);
    FAIL("it should have thrown");
  } catch (const procpool::BrokenPool& broken) {
    CHECK_THAT(broken.what(), ContainsSubstring("initializer"));
    CHECK_THAT(broken.what(), ContainsSubstring("cannot use the pool"));
  }
}

TEST_CASE("what a task starts cannot use its pool either", "[own_pool]") {
  global_pool pool({.processes = 2});
  const auto by_process = [] {
    procpool::Process child(
        [] { _exit(who_is_silent(place.pool(), "that pool").empty() ? 0 : 1); });
    child.start();
    child.join();
    return child.exitcode().value();
  };
  CHECK(pool->apply(by_process) == 0);
  const auto by_fork = [] {
    return support::run_child(
        [] { return who_is_silent(place.pool(), "cannot use").empty() ? 0 : 1; });
  };
  CHECK(pool->apply(by_fork) == 0);
}

TEST_CASE("the workers of a later pool cannot use the one before", "[own_pool]") {
  global_pool first({.processes = 1});
  procpool::Pool second{1};
  CHECK(second.apply([] { return who_is_silent(place.pool(), "another process"); }).empty());
  CHECK_NOTHROW(second.apply([] { place.pool().~Pool(); }));
  CHECK(first->apply(leaf, 1) == 2);
}

TEST_CASE("in a forked child every member of a pool says std::logic_error, results what they can",
          "[own_pool]") {
  global_pool pool({.processes = 2});
  support::shared<support::gate> door;
  const auto ready = pool->apply_async(leaf, 1);
  ready.wait();
  const auto waits = pool->apply_async(support::waiting_at(door));
  auto lazy = pool->imap(leaf, std::vector<int>(100, 1), {.buffersize = 4});
  CHECK(lazy.next() == 2);
  const auto body = [&] {
    const auto silent = who_is_silent(place.pool(), "another process");
    std::fprintf(stderr, "%s", silent.c_str());
    CHILD_REQUIRE(silent.empty());
    CHILD_REQUIRE(place.pool().processes() == 2);
    CHILD_REQUIRE(ready.get() == 2);
    CHILD_REQUIRE(!waits.ready());
    int told = 0;
    const std::function<void()> asks[] = {
        [&] { static_cast<void>(waits.get()); },
        [&] { static_cast<void>(waits.get(1s)); },
        [&] { waits.wait(); },
        [&] { static_cast<void>(waits.exception()); },
        [&] { waits.add_done_callback([](auto&) {}); },
        [&] { static_cast<void>(procpool::wait(std::vector{waits})); },
        [&] {
          while (lazy.next()) {
          }
        },
    };
    for (const auto& ask : asks) {
      try {
        ask();
      } catch (const std::logic_error&) {
        ++told;
      }
    }
    CHILD_REQUIRE(told == 7);
    CHILD_REQUIRE(!waits.running());
    auto copy = waits;
    CHILD_REQUIRE(!copy.cancel({.kill = true}));
    { auto dropped = std::move(lazy); }
    place.pool().~Pool();
    return 0;
  };
  const auto forked = support::capture_child(body);
  INFO(forked.err);
  CHECK(forked.exitcode == 0);
  procpool::Process process([&body] { _exit(body()); });
  process.start();
  process.join();
  CHECK(process.exitcode() == 0);
  door->open();
  CHECK(waits.get() == 1);
  CHECK(pool->apply(leaf, 1) == 2);
}

TEST_CASE("an initializer cannot use a pool without workers that is being made", "[own_pool]") {
  using serial_pool = procpool::Pool<procpool::Serial>;
  alignas(serial_pool) static std::byte memory[sizeof(serial_pool)];
  static auto* const here = reinterpret_cast<serial_pool*>(memory);
  new (memory) serial_pool({.initializer = {[] { here->apply(leaf, 1); }}});
  CHECK_THROWS_AS(here->apply(leaf, 1), procpool::BrokenPool);
  here->~Pool();
}
