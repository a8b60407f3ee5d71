// SPDX-License-Identifier: MIT
// CPython's _TestPoolWorkerLifetime: workers that are replaced after so many tasks.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

}  // namespace

TEST_CASE(
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime: three workers of ten tasks each do a "
    "hundred",
    "[conformance][pool][lifetime][workers]") {
  procpool::Pool pool{{.processes = 3, .maxtasksperchild = 10}};
  const auto task = [](long x) { return std::pair(worker_id(), x * x); };
  std::vector<procpool::AsyncResult<std::pair<pid_t, long>>> results;
  for (long i = 0; i < 100; ++i) results.push_back(pool.apply_async(task, i));
  std::map<pid_t, int> tasks_of;
  for (long i = 0; i < 100; ++i) {
    const auto [pid, value] = results[static_cast<std::size_t>(i)].get();
    CHECK(value == i * i);
    ++tasks_of[pid];
  }
  CHECK(tasks_of.size() >= 10);
  for (const auto& [pid, tasks] : tasks_of) {
    CHECK(pid > 0);
    CHECK(tasks <= 10);
  }
  pool.close();
  pool.join();
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_worker_lifetime: the limit counts chunks, not items",
          "[conformance][pool][lifetime][workers]") {
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 1}};
  const auto pids = pool.map(worker_id_for, numbers(8), {.chunksize = 4});
  CHECK(std::set<pid_t>(pids.begin(), pids.begin() + 4).size() == 1);
  CHECK(std::set<pid_t>(pids.begin() + 4, pids.end()).size() == 1);
  CHECK(pids.front() != pids.back());
  const auto singles = pool.map(worker_id_for, numbers(8), {.chunksize = 1});
  CHECK(std::set<pid_t>(singles.begin(), singles.end()).size() == 8);
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_worker_lifetime: without a limit workers stay",
          "[conformance][pool][lifetime]") {
  procpool::Pool pool{2};
  const auto pids = pool.map(worker_id_for, numbers(200), {.chunksize = 1});
  CHECK(std::set<pid_t>(pids.begin(), pids.end()).size() <= 2);
}

TEST_CASE(
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime: what a worker printed is not lost "
    "when it is replaced, nor printed twice",
    "[conformance][pool][lifetime]") {
  const auto run = support::capture_child([] {
    std::fputs("before;", stdout);  // in the buffer when the workers are forked
    procpool::Pool pool{{.processes = 2, .maxtasksperchild = 1}};
    pool.map([](long) { return std::fputs("task;", stdout); }, numbers(6), {.chunksize = 1});
    pool.close();
    pool.join();
    return 0;
  });
  CHECK(run.exitcode == 0);
  const auto count = [&](const std::string& word) {
    int found = 0;
    for (auto at = run.out.find(word); at != std::string::npos; at = run.out.find(word, at + 1)) {
      ++found;
    }
    return found;
  };
  CHECK(count("before;") == 1);
  CHECK(count("task;") == 6);
}

TEST_CASE(
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime_early_close: close and join while "
    "tasks wait for their worker",
    "[conformance][pool][lifetime]") {
  procpool::Pool pool{{.processes = 3, .maxtasksperchild = 1}};
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < 6; ++i) results.push_back(pool.apply_async(slow_square, i, 300ms));
  pool.close();
  pool.join();
  for (long i = 0; i < 6; ++i) {
    auto& result = results[static_cast<std::size_t>(i)];
    CHECK(result.ready());
    CHECK(result.get() == i * i);
  }
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_maxtasksperchild_invalid: the limit is at least one",
          "[conformance][pool][lifetime]") {
  CHECK_THROWS_AS((procpool::Pool{{.processes = 2, .maxtasksperchild = 0}}), std::invalid_argument);
  CHECK_THROWS_AS((procpool::Pool{{.processes = 2, .maxtasksperchild = -1}}),
                  std::invalid_argument);
}

TEST_CASE(
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime: a task waits behind no other one for a "
    "worker that has its last tasks, while another worker is idle",
    "[conformance][pool][lifetime][limit:60][workers]") {
  support::shared<support::gate> door;
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 2}};
  const auto wait = [door = door.get()](long) { door->pass(); };
  for (int round = 0; round < 10; ++round) {
    door->arrived = 0;
    door->opened = false;
    pool.apply([] {});  // so that their last tasks come at different times
    auto both = pool.map_async(wait, numbers(2), {.chunksize = 1});
    const bool all_there = door->wait_for(2);
    door->open();
    both.get();
    REQUIRE(all_there);
  }
}
