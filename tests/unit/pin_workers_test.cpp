// SPDX-License-Identifier: MIT
// pin_workers: on which CPUs workers run.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using cpus = std::vector<int>;

/// The CPUs that a process may use, its first thread.
cpus cpus_of(pid_t pid) {
  cpu_set_t set;
  if (sched_getaffinity(pid, sizeof set, &set) != 0) throw std::runtime_error("sched_getaffinity");
  cpus all;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) all.push_back(static_cast<int>(cpu));
  }
  return all;
}

/// Place, and CPUs, of the worker that runs this.
std::pair<int, cpus> where_am_i(long) {
  return {procpool::current_worker().index(), cpus_of(0)};
}

/// The CPUs of the workers, each asked at least once. @param door made before the pool
std::map<int, cpus> ask_all(support::shared<support::gate>& door, procpool::Pool<>& pool,
                            int workers) {
  door->arrived = 0;
  door->opened = false;
  const auto wait = [door = door.get()](long x) {
    door->pass();
    return where_am_i(x);
  };
  const std::vector<long> items(static_cast<std::size_t>(workers));
  auto results = pool.map_async(wait, items, {.chunksize = 1});
  const bool all_there = door->wait_for(workers);
  door->open();
  std::map<int, cpus> found;
  for (auto& [place, its] : results.get()) found[place] = its;
  CHECK(all_there);
  CHECK(found.size() == static_cast<std::size_t>(workers));
  return found;
}

void check_places(const std::map<int, cpus>& found, const cpus& usable) {
  for (const auto& [place, its] : found) {
    INFO("the worker in place " << place);
    CHECK(its == cpus{usable[static_cast<std::size_t>(place) % usable.size()]});
  }
}

}  // namespace

TEST_CASE("a pinned worker runs on the CPU of its place; the pool's other process on any",
          "[pin_workers]") {
  const cpus usable = cpus_of(0);
  support::shared<support::gate> door;
  procpool::Pool pool{{.processes = 3, .pin_workers = true}};
  check_places(ask_all(door, pool, 3), usable);
  CHECK(cpus_of(0) == usable);
  const auto children = support::children_of(getpid());
  REQUIRE(children.size() == 1);
  CHECK(cpus_of(children.front().pid) == usable);
}

TEST_CASE("without the option workers run where the program does", "[pin_workers]") {
  const cpus usable = cpus_of(0);
  support::shared<support::gate> door;
  procpool::Pool pool{2};
  for (const auto& [place, its] : ask_all(door, pool, 2)) CHECK(its == usable);
}

TEST_CASE("replacements have the CPU of their place", "[pin_workers]") {
  const cpus usable = cpus_of(0);
  support::shared<support::gate> door;
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 2, .pin_workers = true}};
  std::vector<long> items(40);
  for (const auto& [place, its] : pool.map(where_am_i, items, {.chunksize = 1})) {
    check_places({{place, its}}, usable);
  }
  for (int i = 0; i < 4; ++i) {
    CHECK_THROWS_AS(pool.apply([] { kill(getpid(), SIGKILL); }), procpool::WorkerDied);
    check_places(ask_all(door, pool, 2), usable);
  }
}

TEST_CASE("a program that may use one CPU has all its pinned workers there", "[pin_workers]") {
  const cpus usable = cpus_of(0);
  const int status = support::run_child([&usable] {
    cpu_set_t last;
    CPU_ZERO(&last);
    CPU_SET(static_cast<std::size_t>(usable.back()), &last);
    CHILD_REQUIRE(sched_setaffinity(0, sizeof last, &last) == 0);
    procpool::Pool pool{{.processes = 3, .pin_workers = true}};
    for (const auto& [place, its] : pool.map(where_am_i, {1L, 2L, 3L}, {.chunksize = 1})) {
      CHILD_REQUIRE(its == cpus{usable.back()});
    }
    return 0;
  });
  CHECK(status == 0);
}

TEST_CASE("what a pinned worker starts is where it is", "[pin_workers]") {
  procpool::Pool pool{{.processes = 1, .pin_workers = true}};
  const auto thread = [] {
    cpus its;
    std::jthread([&] { its = cpus_of(0); }).join();
    return its;
  };
  CHECK(pool.apply(thread) == cpus{cpus_of(0).front()});
  CHECK(pool.apply([] { return procpool::cpu_count(); }) == 1);
}
