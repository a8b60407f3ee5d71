// SPDX-License-Identifier: MIT
// CPython's TestInitializers, InitializerMixin and FailingInitializerMixin: initializers that fail,
// where Python hangs.
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

support::common<support::gate*> door;
using Catch::Matchers::ContainsSubstring;

/// State of a worker, set by its initializer.
std::string state = "untouched";

support::common<std::atomic<int>*> runs;

void set_state(const std::string& name, int number) {
  state = name + std::to_string(number);
}

std::string get_state(long) {
  return state;
}

void count_run() {
  ++*runs;
}

void fail() {
  ++*runs;
  throw std::runtime_error("no database today");
}

void fail_to_start() {
  std::this_thread::sleep_for(100ms);
  throw std::invalid_argument("error in initializer");
}

void die() {
  ++*runs;
  _exit(7);
}

/// What the first error of @p pool says; the pool must not hang or go on without end.
std::string reason_of(procpool::Pool<>& pool) {
  try {
    static_cast<void>(pool.apply(square, 5));
  } catch (const procpool::BrokenPool& error) {
    return error.what();
  }
  return "no error at all";
}

}  // namespace

TEST_CASE("TestInitializers.test_pool_initializer: with one worker the initializer runs once",
          "[conformance][pool][initializer]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{{.processes = 1, .initializer = {count_run}}};
  CHECK(pool.map(square, numbers(50), {.chunksize = 1}) == squares(50));
  CHECK(*count == 1);
  pool.close();
  pool.join();
  CHECK(*count == 1);
}

TEST_CASE("TestInitializers.test_pool_initializer: a replaced worker is initialized too",
          "[conformance][pool][initializer][workers]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{{.processes = 1, .initializer = {count_run}, .maxtasksperchild = 1}};
  for (int i = 0; i < 5; ++i) pool.apply(square, i);
  CHECK(*count >= 5);
}

TEST_CASE("InitializerMixin.test_initializer: every worker sees what the initializer set",
          "[conformance][executor][initializer][processes]") {
  procpool::Pool pool{{.processes = 4, .initializer = {set_state, "ready", 1}}};
  const auto states = pool.map(get_state, numbers(100), {.chunksize = 1});
  CHECK(states == std::vector<std::string>(100, "ready1"));
  CHECK(state == "untouched");
}

TEST_CASE("InitializerMixin.test_initializer: a lambda with captures is an initializer",
          "[conformance][executor][initializer][processes]") {
  int number = 5;
  procpool::Pool pool{
      {.processes = 2, .initializer = {[number] { state = "captured" + std::to_string(number); }}}};
  CHECK(pool.apply(get_state, 0) == "captured5");
}

TEST_CASE(
    "TestInitializers.test_pool_initializer: one that throws breaks the pool, with the reason",
    "[conformance][pool][initializer]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{{.processes = 2, .initializer = {fail}}};
  CHECK_THAT(reason_of(pool), ContainsSubstring("no database today"));
  CHECK_THAT(reason_of(pool), ContainsSubstring("initializer"));
  CHECK_THROWS_AS(pool.map(square, numbers(10)), procpool::BrokenPool);
  CHECK_THROWS_AS(pool.imap(square, numbers(10)).next(), procpool::BrokenPool);
  CHECK(*count < 50);
  sleep_for(300ms);  // a worker that was being started may still run it
  const int so_far = *count;
  sleep_for(300ms);
  CHECK(*count == so_far);
}

TEST_CASE("TestInitializers.test_pool_initializer: one that exits breaks the pool, with the status",
          "[conformance][pool][initializer][processes]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{{.processes = 2, .initializer = {die}}};
  CHECK_THAT(reason_of(pool), ContainsSubstring("initializer"));
  CHECK_THAT(reason_of(pool), ContainsSubstring("7"));
  CHECK(*count < 50);
  pool.close();
  pool.join();
}

TEST_CASE("TestInitializers.test_pool_initializer: work that was waiting ends with BrokenPool too",
          "[conformance][pool][initializer][workers]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<int>> count;
  door = gate.get();
  runs = count.get();
  procpool::Pool pool{{.processes = 2, .initializer = {[] {
                                         door->pass();
                                         fail();
                                       }}}};
  auto single = pool.apply_async(square, 5);
  auto many = pool.map_async(square, numbers(100));
  gate->open();
  CHECK_THROWS_AS(single.get(20s), procpool::BrokenPool);
  CHECK_THROWS_AS(many.get(20s), procpool::BrokenPool);
}

TEST_CASE(
    "TestInitializers.test_pool_initializer: one failure in a start that then works is "
    "survived",
    "[conformance][pool][initializer][workers]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{{.processes = 1, .initializer = {[] {
                                         if (++*runs == 1) throw std::runtime_error("not yet");
                                       }}}};
  CHECK(pool.apply(square, 5) == 25);
  CHECK(*count == 2);
}

TEST_CASE(
    "TestInitializers.test_pool_initializer: a broken pool can be closed, terminated, dropped",
    "[conformance][pool][initializer]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool closed{{.processes = 2, .initializer = {fail}}};
  CHECK_THROWS_AS(closed.apply(square, 5), procpool::BrokenPool);
  closed.close();
  closed.join();
  procpool::Pool terminated{{.processes = 2, .initializer = {fail}}};
  terminated.terminate();
  terminated.join();
  procpool::Pool dropped{{.processes = 2, .initializer = {fail}}};
}

TEST_CASE(
    "FailingInitializerMixin.test_initializer: what is submitted ends with BrokenPool, and "
    "then nothing can be submitted",
    "[conformance][executor][initializer]") {
  procpool::Pool pool{{.processes = 2, .initializer = {fail_to_start}}};
  try {
    auto result = pool.apply_async(square, 1L);
    CHECK_THROWS_AS(result.get(20s), procpool::BrokenPool);
  } catch (const procpool::BrokenPool&) {  // it was broken already
  }
  std::string reason;
  try {
    static_cast<void>(pool.apply_async(square, 1L));
  } catch (const procpool::BrokenPool& error) {
    reason = error.what();
  }
  CHECK_THAT(reason, ContainsSubstring("error in initializer"));
}

TEST_CASE(
    "FailingInitializerResourcesTest.test_forkserver: a pool that broke leaves nothing "
    "behind",
    "[conformance][executor][initializer]") {
  const auto fds = support::count_fds();
  {
    procpool::Pool pool{{.processes = 2, .initializer = {fail_to_start}}};
    CHECK_THROWS_AS(pool.apply(square, 1), procpool::BrokenPool);
  }
  CHECK(support::count_fds() == fds);
  CHECK(support::eventually([] { return support::children_of(getpid()).empty(); }));
}
