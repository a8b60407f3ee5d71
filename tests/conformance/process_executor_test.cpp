// SPDX-License-Identifier: MIT
// CPython's tests of concurrent.futures that are about processes: ProcessPoolExecutorTest and
// ProcessPoolShutdownTest. Where Python's pool breaks because a worker dies, one task ends here and
// the pool goes on.
//
// Not here, because there is nothing it could mean: workers that are started on demand
// (test_idle_process_reuse_one and _multiple), limits of Windows and of named semaphores
// (test_max_workers_too_large, test_sysconf_permission_error), the interpreter's own end
// (test_python_finalization_error, test_submit_after_interpreter_shutdown), mocks of private
// methods (test_terminate_workers, test_kill_workers, test_force_shutdown_workers_invalid_op). A
// worker that cannot be replaced (test_failed_worker_replacement_breaks_pool) is in
// bad_input_test.cpp.
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

using results = std::vector<procpool::AsyncResult<long>>;

support::common<support::gate*> door;
support::common<std::atomic<int>*> alive;
support::common<std::atomic<int>*> runs;
support::common<std::atomic<pid_t>*> victim;

/// Counts its objects in the workers.
struct counted_there {
  counted_there() { ++*alive; }
  counted_there(const counted_there&) { ++*alive; }
  counted_there& operator=(const counted_there&) = default;
  ~counted_there() { --*alive; }
};

long power(long base, long exponent) {
  long result = 1;
  for (long i = 0; i < exponent; ++i) result = result * base % 1'000'003;
  return result;
}

void leave(int status) {
  _exit(status);
}

void fail() {
  throw std::runtime_error("123");
}

long slow(long x) {
  std::this_thread::sleep_for(20ms * x);
  return x;
}

long fail_slowly(long x) {
  slow(x);
  throw std::domain_error("failing task");
}

long pass(long x) {
  door->pass();
  return x;
}

pid_t tell_pid() {
  const pid_t self = getpid();
  victim->store(self);
  door->pass();
  return self;
}

/// Whether none of these processes is there.
bool gone(const std::vector<support::process_info>& family) {
  return std::ranges::none_of(family,
                              [](const auto& each) { return support::is_running(each.pid); });
}

}  // namespace

template <>
struct procpool::codec<counted_there> {
  static void encode(encoder& out, const counted_there&) { out.put(1); }
  static counted_there decode(decoder& in) {
    static_cast<void>(in.get<int>());
    return {};
  }
};

// ---- ProcessPoolExecutorTest -------------------------------------------------------------------

TEST_CASE(
    "ProcessPoolExecutorTest.test_killed_child: its task ends with WorkerDied, the pool goes "
    "on",
    "[conformance][executor][process][processes]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<pid_t>> worker;
  door = gate.get();
  victim = worker.get();
  procpool::Pool pool{{.processes = 2, .ignore_signals = false}};  // Catch2 handles SIGTERM
  auto result = pool.apply_async(tell_pid);
  REQUIRE(gate->wait_for(1));
  ::kill(*worker, SIGTERM);
  CHECK_THROWS_AS(result.get(20s), procpool::WorkerDied);
  CHECK(pool.apply(multiply, 2, 8) == 16);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_broken_process_pool_traceback: each result has an error of "
    "its own",
    "[conformance][executor][process][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{{.processes = 3, .ignore_signals = false}};  // Catch2 handles SIGTERM
  results all;
  for (long i = 0; i < 3; ++i) all.push_back(pool.apply_async(pass, i));
  REQUIRE(gate->wait_for(3));
  for (const auto& process : support::descendants_of(getpid())) {
    if (process.parent != getpid()) ::kill(process.pid, SIGTERM);  // the fork server's children
  }
  std::set<pid_t> pids;
  for (auto& each : all) {
    try {
      static_cast<void>(each.get(20s));
    } catch (const procpool::WorkerDied& death) {
      pids.insert(death.pid());
      CHECK_THAT(death.what(), ContainsSubstring(std::to_string(death.pid())));
    }
  }
  CHECK(pids.size() == 3);
}

TEST_CASE("ProcessPoolExecutorTest.test_map_chunksize: chunks of any size give the same",
          "[conformance][executor][process]") {
  procpool::Pool pool{2};
  std::vector<std::pair<long, long>> pairs;
  std::vector<long> expected;
  for (long i = 0; i < 40; ++i) {
    pairs.emplace_back(i, i);
    expected.push_back(power(i, i));
  }
  for (int chunksize : {6, 40, 50}) {
    CHECK(pool.starmap(power, pairs, {.chunksize = chunksize}) == expected);
  }
  CHECK_THROWS_AS(pool.starmap(power, pairs, {.chunksize = -1}), std::invalid_argument);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_traceback: the exception keeps its type and has where it "
    "came from nested inside",
    "[conformance][executor][process][workers]") {
  procpool::Pool pool{2};
  auto result = pool.apply_async(fail);
  std::string what;
  std::string cause;
  try {
    result.get();
  } catch (const std::runtime_error& error) {
    what = error.what();
    try {
      std::rethrow_if_nested(error);
    } catch (const procpool::RemoteTraceback& traceback) {
      cause = traceback.what();
    }
  }
  CHECK(what == "123");
  CHECK_THAT(cause, ContainsSubstring("PoolWorker-") && ContainsSubstring("fail"));
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly: the "
    "error tells the exit code",
    "[conformance][executor][process][processes]") {
  procpool::Pool pool{1};
  int exitcode = 0;
  std::string what;
  try {
    pool.apply(leave, 99);
  } catch (const procpool::WorkerDied& death) {
    exitcode = death.exitcode();
    what = death.what();
  }
  CHECK(exitcode == 99);
  CHECK_THAT(what, ContainsSubstring("99"));
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers: arguments do not outlive their "
    "task",
    "[conformance][executor][process]") {
  const support::shared<std::atomic<int>> count;
  alive = count.get();
  procpool::Pool pool{1};
  std::optional<counted_there> argument(std::in_place);
  const int during = pool.apply([](const counted_there&) { return alive->load(); }, *argument);
  CHECK(during >= 2);
  argument.reset();
  CHECK(support::eventually([&] { return *count == 0; }));
  CHECK(pool.apply(square, 2) == 4);  // it is the same worker, and it lives
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_saturation: many tasks more than workers make no more "
    "workers",
    "[conformance][executor][process][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{4};
  const auto before = support::descendants_of(getpid()).size();
  results all;
  for (long i = 0; i < 60; ++i) all.push_back(pool.apply_async(pass, i));
  REQUIRE(gate->wait_for(4));
  CHECK(support::descendants_of(getpid()).size() == before);
  CHECK(gate->arrived == 4);
  gate->open();
  CHECK(procpool::wait(all).done.size() == 60);
  CHECK(support::descendants_of(getpid()).size() == before);
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_per_child: after three tasks another process",
          "[conformance][executor][process][workers]") {
  procpool::Pool pool{{.processes = 1, .maxtasksperchild = 3}};
  std::vector<pid_t> pids;
  pids.reserve(6);
  for (int i = 0; i < 6; ++i) pids.push_back(pool.apply(worker_id));
  CHECK(std::set<pid_t>(pids.begin(), pids.begin() + 3).size() == 1);
  CHECK(std::set<pid_t>(pids.begin() + 3, pids.end()).size() == 1);
  CHECK(pids[2] != pids[3]);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_max_tasks_per_child_pending_tasks_gh115634: what waits is "
    "done by the replacements",
    "[conformance][executor][process]") {
  for (auto [workers, limit, tasks] : {std::tuple{1, 2, 6}, std::tuple{2, 2, 8}}) {
    procpool::Pool pool{{.processes = workers, .maxtasksperchild = limit}};
    results all;
    for (long i = 0; i < tasks; ++i) all.push_back(pool.apply_async(multiply, i, 2L));
    for (long i = 0; i < tasks; ++i) CHECK(all[static_cast<std::size_t>(i)].get(20s) == 2 * i);
    pool.close();
    pool.join();
  }
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592: workers are replaced "
    "after close, too",
    "[conformance][executor][process][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{{.processes = 1, .maxtasksperchild = 1}};
  results all;
  for (long i = 0; i < 3; ++i) all.push_back(pool.apply_async(pass, i));
  REQUIRE(gate->wait_for(1));
  pool.close();
  gate->open();
  for (long i = 0; i < 3; ++i) CHECK(all[static_cast<std::size_t>(i)].get(20s) == i);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967: what waits for a "
    "pool that is gone is cancelled at once",
    "[conformance][executor][process][workers]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  std::optional<procpool::Pool<>> pool(
      std::in_place, procpool::pool_options{.processes = 1, .maxtasksperchild = 1});
  results all;
  for (long i = 0; i < 3; ++i) all.push_back(pool->apply_async(pass, i));
  REQUIRE(gate->wait_for(1));
  gate->open();
  CHECK(all[0].get(20s) == 0);
  pool.reset();
  for (auto& each : all) CHECK(each.ready());
  CHECK(all[0].get() == 0);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit: a replacement "
    "does not escape terminate",
    "[conformance][executor][process]") {
  for (int round = 0; round < 20; ++round) {
    procpool::Pool pool{{.processes = 2, .maxtasksperchild = 1}};
    results all;
    for (long i = 0; i < 20; ++i) all.push_back(pool.apply_async(square, i));
    all[0].wait();
    const auto family = support::descendants_of(getpid());
    pool.terminate();
    for (auto& each : all) REQUIRE(each.ready());
    REQUIRE(gone(family));
    REQUIRE(support::eventually([] { return support::children_of(getpid()).empty(); }));
  }
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_early_shutdown: all tasks are done all the same",
          "[conformance][executor][process]") {
  procpool::Pool pool{{.processes = 3, .maxtasksperchild = 1}};
  results all;
  for (long i = 0; i < 6; ++i) all.push_back(pool.apply_async(square, i));
  pool.close();
  pool.join();
  for (long i = 0; i < 6; ++i) CHECK(all[static_cast<std::size_t>(i)].get() == i * i);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_force_shutdown_workers: a task that has begun does not "
    "get to its end",
    "[conformance][executor][process][processes]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<int>> count;
  door = gate.get();
  runs = count.get();
  procpool::Pool pool{1};
  auto result = pool.apply_async([] {
    door->pass();
    ++*runs;
  });
  REQUIRE(gate->wait_for(1));
  const auto family = support::descendants_of(getpid());
  pool.terminate();
  CHECK(gone(family));
  gate->open();
  CHECK_THROWS_AS(result.get(), procpool::CancelledError);
  CHECK(*count == 0);
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_force_shutdown_workers_dead_workers: terminate after a "
    "worker's death",
    "[conformance][executor][process][processes]") {
  procpool::Pool pool{1};
  CHECK_THROWS_AS(pool.apply(leave, 1), procpool::WorkerDied);
  CHECK_NOTHROW(pool.terminate());
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_force_shutdown_workers_not_started_yet: terminate before "
    "any task",
    "[conformance][executor][process]") {
  procpool::Pool pool{1};
  CHECK_NOTHROW(pool.terminate());
}

TEST_CASE(
    "ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool: nothing can be "
    "submitted afterwards",
    "[conformance][executor][process]") {
  procpool::Pool pool{1};
  CHECK(pool.apply(square, 3) == 9);
  const auto family = support::descendants_of(getpid());
  pool.terminate();
  CHECK_THROWS_AS(pool.apply_async(square, 3), procpool::PoolClosed);
  CHECK(gone(family));
}

// ---- ProcessPoolShutdownTest -------------------------------------------------------------------

TEST_CASE(
    "ProcessPoolShutdownTest.test_processes_terminate: after close and join no worker is "
    "left",
    "[conformance][executor][process][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{5};
  results all;
  for (long i = 0; i < 3; ++i) all.push_back(pool.apply_async(pass, i));
  REQUIRE(gate->wait_for(3));
  const auto family = support::descendants_of(getpid());
  CHECK(family.size() >= 5);
  gate->open();
  pool.close();
  pool.join();
  CHECK(gone(family));
  for (long i = 0; i < 3; ++i) CHECK(all[static_cast<std::size_t>(i)].get() == i);
}

TEST_CASE("ProcessPoolShutdownTest.test_context_manager_shutdown: no worker outlives the scope",
          "[conformance][executor][process][processes]") {
  std::vector<support::process_info> family;
  {
    procpool::Pool pool{5};
    family = support::descendants_of(getpid());
    CHECK(pool.map(square, numbers(10)) == squares(10));
  }
  CHECK(family.size() >= 5);
  CHECK(gone(family));
}

TEST_CASE("ProcessPoolShutdownTest.test_del_shutdown: results can be read when the pool is gone",
          "[conformance][executor][process]") {
  std::vector<support::process_info> family;
  const auto result = [&] {
    procpool::Pool pool{5};
    family = support::descendants_of(getpid());
    auto found = pool.map_async(square, numbers(10));
    pool.close();
    pool.join();
    return found;
  }();
  CHECK(gone(family));
  CHECK(result.get() == squares(10));
}

TEST_CASE("ProcessPoolShutdownTest.test_shutdown_no_wait: after close alone the work is finished",
          "[conformance][executor][process]") {
  procpool::Pool pool{5};
  const auto result = pool.map_async(square, numbers(10));
  pool.close();
  CHECK(support::eventually([&] { return result.ready(); }));
  CHECK(result.get() == squares(10));
}

TEST_CASE(
    "ProcessPoolShutdownTest.test_shutdown_gh_132969_case_1: a task fails while workers are "
    "replaced and the pool is closed; with two workers",
    "[conformance][executor][process]") {
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 1}};
  results all{pool.apply_async(slow, 1L), pool.apply_async(fail_slowly, 2L),
              pool.apply_async(slow, 3L)};
  CHECK(all[0].get(20s) == 1);
  CHECK_THROWS_AS(all[1].get(20s), std::domain_error);
  pool.close();
  pool.join();
  CHECK(all[2].get() == 3);
}

TEST_CASE("ProcessPoolShutdownTest.test_shutdown_gh_132969_case_2: the same with four workers",
          "[conformance][executor][process]") {
  procpool::Pool pool{{.processes = 4, .maxtasksperchild = 1}};
  results all{pool.apply_async(slow, 1L), pool.apply_async(fail_slowly, 2L),
              pool.apply_async(slow, 3L)};
  CHECK(all[0].get(20s) == 1);
  CHECK_THROWS_AS(all[1].get(20s), std::domain_error);
  pool.close();
  CHECK(all[2].get(20s) == 3);
}
