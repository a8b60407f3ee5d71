// SPDX-License-Identifier: MIT
// Pool::resize on every backend, while work goes on and while workers die.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::start_method;

support::common<support::gate*> door;

long square(long x) {
  return x * x;
}

pid_t pass() {
  door->pass();
  return gettid();
}

/// How many tasks run at the same time, when there are plenty.
template <class Pool>
int workers_of(Pool& pool, int expected) {
  const support::shared<support::gate> gate;
  door = gate.get();
  std::vector<procpool::AsyncResult<pid_t>> all;
  for (int i = 0; i < expected + 4; ++i) all.push_back(pool.apply_async(pass));
  const bool enough = gate->wait_for(expected);
  std::this_thread::sleep_for(50ms);
  const int found = gate->arrived;
  gate->open();
  for (auto& each : all) each.wait();
  return enough ? found : -1;
}

template <class Pool>
void check_growing_and_shrinking(Pool& pool) {
  for (const int size : {4, 1, 3, 2, 6, 1}) {
    pool.resize(size);
    CHECK(workers_of(pool, size) == size);
  }
}

template <class Pool>
void check_under_load(Pool& pool, unsigned seed) {
  std::minstd_rand chance(seed);
  std::vector<procpool::AsyncResult<long>> all;
  for (long i = 0; i < 3000; ++i) {
    all.push_back(pool.apply_async(square, i));
    if (i % 100 == 0) pool.resize(1 + static_cast<int>(chance() % 6));
  }
  long wrong = 0;
  for (long i = 0; i < 3000; ++i) {
    if (all[static_cast<std::size_t>(i)].get() != i * i) ++wrong;
  }
  CHECK(wrong == 0);
}

procpool::pool_options by(start_method method) {
  return {.processes = 2, .start_method = method};
}

}  // namespace

TEST_CASE("resize: so many workers, on threads", "[resize]") {
  procpool::ThreadPool pool{2};
  check_growing_and_shrinking(pool);
}

TEST_CASE("resize: so many workers, on processes", "[resize][processes][limit:120]") {
  for (const auto method : procpool::get_all_start_methods()) {
    procpool::Pool pool{by(method)};
    check_growing_and_shrinking(pool);
  }
}

TEST_CASE("resize: nothing is lost under load, on threads", "[resize]") {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    procpool::ThreadPool pool{2};
    check_under_load(pool, seed);
  }
}

TEST_CASE("resize: nothing is lost under load, on processes", "[resize][processes][limit:120]") {
  for (const auto method : procpool::get_all_start_methods()) {
    procpool::Pool pool{by(method)};
    check_under_load(pool, 5);
  }
}

TEST_CASE("resize: what cannot be", "[resize]") {
  procpool::ThreadPool pool{2};
  CHECK_THROWS_AS(pool.resize(0), std::invalid_argument);
  CHECK_THROWS_AS(pool.resize(-3), std::invalid_argument);
  CHECK_THROWS_AS(pool.resize(1'000'000), std::invalid_argument);
  CHECK(pool.apply(square, 3L) == 9);
  pool.close();
  CHECK_THROWS_AS(pool.resize(3), procpool::PoolClosed);
  pool.join();
  CHECK_THROWS_AS(pool.resize(3), procpool::PoolClosed);
  procpool::Pool ended{1};
  ended.terminate();
  CHECK_THROWS_AS(ended.resize(2), procpool::PoolClosed);
  procpool::Pool broken{{.processes = 1, .initializer = {[] { throw std::runtime_error("no"); }}}};
  CHECK_THROWS_AS(broken.apply(square, 1L), procpool::BrokenPool);
  CHECK_THROWS_AS(broken.resize(2), procpool::BrokenPool);
}

TEST_CASE("resize: close and join right after it", "[resize]") {
  for (int round = 0; round < 30; ++round) {
    procpool::ThreadPool pool{1 + round % 3};
    auto all = pool.map_async(square, std::vector<long>(50, 3), {.chunksize = 1});
    pool.resize(1 + round % 5);
    pool.close();
    pool.join();
    CHECK(all.get() == std::vector<long>(50, 9));
  }
}

TEST_CASE("resize: a storm of sizes and of SIGKILLs", "[resize][processes][limit:240]") {
  for (unsigned seed = 1; seed <= 4; ++seed) {
    INFO("seed " << seed);
    std::minstd_rand chance(seed);
    procpool::Pool pool{3};
    int died = 0;
    int wrong = 0;
    for (int round = 0; round < 60; ++round) {
      std::vector<procpool::AsyncResult<long>> all;
      for (long i = 0; i < 20; ++i) all.push_back(pool.apply_async(square, i));
      pool.resize(1 + static_cast<int>(chance() % 5));
      if (chance() % 2 == 0) {
        std::vector<pid_t> workers;
        for (const auto& each : support::descendants_of(getpid())) {
          if (each.parent != getpid() && !each.zombie()) workers.push_back(each.pid);
        }
        if (!workers.empty()) kill(workers[chance() % workers.size()], SIGKILL);
      }
      for (long i = 0; i < 20; ++i) {
        try {
          if (all[static_cast<std::size_t>(i)].get(30s) != i * i) ++wrong;
        } catch (const procpool::WorkerDied&) {
          ++died;
        }
      }
    }
    CHECK(wrong == 0);
    CHECK(died <= 60);
    pool.resize(2);
    CHECK(workers_of(pool, 2) == 2);
  }
}
