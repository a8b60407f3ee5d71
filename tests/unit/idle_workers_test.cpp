// SPDX-License-Identifier: MIT
// Workers that leave when they have had nothing to do, and come back; initializers that hang.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <filesystem>
#include <procpool/procpool.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::shared;

int leaf(int x) {
  return x + 1;
}
int pid_after_nap(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return getpid();
}

bool workers_are(pid_t server, std::size_t count) {
  return support::eventually([&] { return support::children_of(server).size() == count; });
}

pid_t server_of(procpool::Pool<>& pool) {
  return pool.apply([] { return getppid(); });
}

}  // namespace

TEST_CASE("idle_timeout: idle workers leave, though nobody waits, and come back as they are needed",
          "[idle_timeout]") {
  procpool::Pool pool{{.processes = 4, .idle_timeout = 50ms}};
  const pid_t server = server_of(pool);
  for (int round = 0; round < 3; ++round) {
    const auto pids = pool.map(pid_after_nap, std::vector<int>(8, 30), {.chunksize = 1});
    CHECK(std::set<int>(pids.begin(), pids.end()).size() >= 4);
    CHECK(workers_are(server, 0));
    CHECK(pool.processes() == 4);
    CHECK(pool.apply(leaf, round) == round + 1);
    CHECK(pool.apply_async(leaf, round).get() == round + 1);
    CHECK(workers_are(server, 0));
    int sum = 0;
    for (const int each : pool.imap(leaf, std::vector<int>(100, 1))) sum += each;
    CHECK(sum == 200);
  }
  CHECK(workers_are(server, 0));
  pool.close();
  pool.join();
}

TEST_CASE("idle_timeout: nobody waits for a result, and it comes all the same", "[idle_timeout]") {
  procpool::Pool pool{{.processes = 2, .idle_timeout = 30ms}};
  const pid_t server = server_of(pool);
  CHECK(workers_are(server, 0));
  std::atomic<int> called = 0;
  static_cast<void>(pool.apply_async({.callback = [&](int& value) { called = value; }}, leaf, 6));
  CHECK(support::eventually([&] { return called == 7; }));
}

TEST_CASE("idle_timeout: while one works the others leave, and are called for what comes then",
          "[idle_timeout]") {
  procpool::Pool pool{{.processes = 3, .idle_timeout = 30ms}};
  const pid_t server = server_of(pool);
  const shared<support::gate> door;
  auto one = pool.apply_async(support::waiting_at(door));
  CHECK(door->wait_for(1));
  std::jthread waits([&] { CHECK(one.get() == 1); });
  CHECK(workers_are(server, 1));
  auto two = pool.apply_async(support::waiting_at(door));
  auto three = pool.apply_async(support::waiting_at(door));
  CHECK(door->wait_for(3));
  door->open();
  CHECK(two.get() + three.get() == 2);
}

TEST_CASE("idle_timeout: no task is lost or run twice when workers leave as it comes",
          "[idle_timeout]") {
  procpool::Pool pool{{.processes = 2, .idle_timeout = 1ms}};
  const shared<std::atomic<int>> ran;
  const auto task = [count = ran.get()](int x) {
    ++*count;
    return x;
  };
  for (int i = 0; i < 300; ++i) {
    if (i % 3 != 0) std::this_thread::sleep_for(std::chrono::microseconds(900 + i % 7 * 50));
    CHECK(pool.apply(task, i) == i);
  }
  CHECK(*ran == 300);
}

TEST_CASE(
    "idle_timeout: a task that meets one leaving worker after the other is not charged for it",
    "[idle_timeout]") {
  procpool::Pool pool{{.processes = 16, .idle_timeout = 2ms}};
  std::vector<int> naps;
  for (int i = 0; i < 16; ++i) naps.push_back(5 + i / 4);
  for (int round = 0; round < 80; ++round) {
    CHECK(pool.map(pid_after_nap, naps, {.chunksize = 1}).size() == naps.size());
    for (int i = 0; i < 4; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(400 + (round * 4 + i) * 37 % 1500));
      CHECK(pool.apply(leaf, i) == i + 1);
    }
  }
}

TEST_CASE("idle_timeout: initializers run again, sizes change, deaths are replaced",
          "[idle_timeout]") {
  static int base = 0;
  procpool::Pool pool{{.processes = 2, .initializer = {[] { base = 40; }}, .idle_timeout = 40ms}};
  const pid_t server = server_of(pool);
  const auto based = [](int x) { return base + x; };
  CHECK(workers_are(server, 0));
  CHECK(pool.apply(based, 2) == 42);
  CHECK(workers_are(server, 0));
  pool.resize(4);
  const auto pids = pool.map(pid_after_nap, std::vector<int>(8, 30), {.chunksize = 1});
  CHECK(std::set<int>(pids.begin(), pids.end()).size() >= 4);
  pool.resize(1);
  CHECK(pool.apply(based, 3) == 43);
  CHECK_THROWS_AS(pool.apply([] { kill(getpid(), SIGKILL); }), procpool::WorkerDied);
  CHECK(pool.apply(based, 4) == 44);
  CHECK(workers_are(server, 0));
  CHECK(pool.map(based, std::vector<int>(5, 1)) == std::vector<int>(5, 41));
}

TEST_CASE("idle_timeout: exit in a task is still the task's fault", "[idle_timeout]") {
  procpool::Pool pool{{.processes = 2, .idle_timeout = 1h}};
  CHECK_THROWS_AS(pool.apply([] { _exit(0); }), procpool::WorkerDied);
  CHECK(pool.apply(leaf, 1) == 2);
}

TEST_CASE("idle_timeout: threads leave and come back, too", "[idle_timeout]") {
  const auto threads = [] {
    return std::ranges::distance(std::filesystem::directory_iterator("/proc/self/task"));
  };
  const auto before = threads();
  procpool::ThreadPool pool{{.processes = 4, .idle_timeout = 30ms}};
  for (int round = 0; round < 3; ++round) {
    CHECK(pool.map(leaf, std::vector<int>(20, 1)) == std::vector<int>(20, 2));
    CHECK(support::eventually([&] { return threads() == before; }));
  }
}

TEST_CASE("initializer_timeout: an initializer that hangs breaks the pool, which says so",
          "[initializer_timeout]") {
  procpool::Pool pool{{.processes = 2,
                       .initializer = {[] { std::this_thread::sleep_for(1h); }},
                       .initializer_timeout = 100ms}};
  auto waits = pool.apply_async(leaf, 1);
  try {
    pool.apply(leaf, 1);
    FAIL("it should have thrown");
  } catch (const procpool::BrokenPool& broken) {
    CHECK_THAT(broken.what(), ContainsSubstring("the initializer did not return within"));
    CHECK_THAT(broken.what(), ContainsSubstring("0.1 s"));
  }
  CHECK_THROWS_AS(waits.get(), procpool::BrokenPool);
}

TEST_CASE("initializer_timeout: one that hangs once is replaced, one in time is left alone",
          "[initializer_timeout]") {
  const shared<std::atomic<int>> runs;
  procpool::Pool pool{{.processes = 1,
                       .initializer = {[count = runs.get()] {
                         if ((*count)++ == 0) std::this_thread::sleep_for(1h);
                       }},
                       .initializer_timeout = 300ms}};
  CHECK(pool.apply(leaf, 1) == 2);
  CHECK(*runs == 2);
  procpool::Pool slow{{.processes = 1,
                       .initializer = {[] { std::this_thread::sleep_for(50ms); }},
                       .initializer_timeout = 20s}};
  CHECK(slow.apply(leaf, 1) == 2);
  std::this_thread::sleep_for(10ms);
  CHECK(slow.apply(leaf, 2) == 3);
}

TEST_CASE("a task behind an initializer that hangs goes to a worker that has come up",
          "[initializer_timeout]") {
  for (const auto limit : {0s, 3600s}) {
    const shared<std::atomic<int>> runs;
    procpool::pool_options options{.processes = 2, .initializer = {[count = runs.get()] {
                                                     if ((*count)++ == 0)
                                                       std::this_thread::sleep_for(1h);
                                                   }}};
    if (limit > 0s) options.initializer_timeout = limit;
    procpool::Pool pool(options);
    for (int i = 0; i < 3; ++i) {
      auto one = pool.apply_async(leaf, i);
      auto other = pool.apply_async(leaf, i);
      REQUIRE(one.wait(30s));
      REQUIRE(other.wait(30s));
    }
  }
}

TEST_CASE("initializer_timeout: a task runs once when the initializer returns as time runs out",
          "[initializer_timeout]") {
  struct counts {
    std::atomic<int> initializers;
    std::atomic<int> tasks;
  };
  for (int i = 0; i < 60; ++i) {
    const shared<counts> seen;
    const auto late = [of = seen.get(), after = std::chrono::microseconds(13'500 + i % 30 * 60)] {
      const auto until = std::chrono::steady_clock::now() + after;
      if (of->initializers++ > 0) return;
      while (std::chrono::steady_clock::now() < until) continue;
    };
    procpool::Pool pool{{.processes = 1, .initializer = {late}, .initializer_timeout = 15ms}};
    const auto task = [count = seen.get()] {
      std::this_thread::sleep_for(2ms);
      return ++count->tasks;
    };
    try {
      CHECK(pool.apply(task) == 1);
    } catch (const procpool::BrokenPool&) {  // three workers in a row were too slow
    }
    CHECK(seen->tasks <= 1);
  }
}

TEST_CASE("timeouts of workers that make no sense are refused by name",
          "[idle_timeout][initializer_timeout]") {
  const auto name_of = [](const procpool::pool_options& options) {
    try {
      procpool::Pool pool(options);
      return std::string("accepted");
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
  };
  CHECK_THAT(name_of({.idle_timeout = 0s}), ContainsSubstring("idle_timeout"));
  CHECK_THAT(name_of({.idle_timeout = -1s}), ContainsSubstring("idle_timeout"));
  CHECK_THAT(name_of({.initializer_timeout = 0s}), ContainsSubstring("initializer_timeout"));
  CHECK_THROWS_AS(procpool::ThreadPool({.initializer_timeout = 1s}), std::invalid_argument);
}
