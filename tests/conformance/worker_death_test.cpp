// SPDX-License-Identifier: MIT
// What Python's pool answers with a hang: workers that die. And what fills every buffer there is:
// large payloads, many threads. (cpython#96062 and its relatives.)
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using bytes = std::vector<std::uint8_t>;

support::common<support::gate*> door;
support::common<std::atomic<int>*> runs;
support::common<std::atomic<pid_t>*> victim;

void kill_myself() {
  kill(getpid(), SIGKILL);
}

void write_to_nowhere() {
  volatile std::uintptr_t nowhere = 8;  // volatile: no compiler warns of what it cannot know
  *reinterpret_cast<volatile int*>(nowhere) = 1;
}

void leave_quietly() {
  _exit(3);
}

void leave_by_exit() {
  std::exit(3);
}

void leave_well() {
  _exit(0);
}

void fail_submission() {
  std::abort();
}

void throw_something() {
  throw std::runtime_error("nobody can catch this");
}

void throw_from_noexcept() noexcept {
  throw_something();
}

void report_and_wait() {
  *victim = getpid();
  door->pass();
}

long poisonous_thirteen(long x) {
  if (x == 13) kill_myself();
  ++*runs;
  return x * x;
}

/// The error that @p work ends with.
template <class Work>
std::optional<procpool::WorkerDied> death_in(Work work) {
  try {
    work();
  } catch (const procpool::WorkerDied& death) {
    return death;
  }
  return std::nullopt;
}

/// @p task ends its worker as said, the error tells so, and the pool goes on.
void check_death(void (*task)(), int exitcode) {
  procpool::Pool pool{2};
  const auto death = death_in([&] { pool.apply(task); });
  REQUIRE(death.has_value());
  CHECK(death->exitcode() == exitcode);
  CHECK(death->signal() == (exitcode < 0 ? std::optional(-exitcode) : std::nullopt));
  CHECK(death->item() == 0U);
  CHECK(death->pid() > 0);
  CHECK(death->pid() != getpid());
  CHECK_THAT(death->what(), ContainsSubstring(std::to_string(death->pid())));
  CHECK(pool.map(square, numbers(100)) == squares(100));
}

bytes pattern(std::size_t size) {
  bytes data(size);
  std::uint32_t x = 12345;
  for (auto& byte : data) {
    x = x * 1664525 + 1013904223;
    byte = static_cast<std::uint8_t>(x >> 24);
  }
  return data;
}

bytes echo(const bytes& data) {
  return data;
}

std::uint64_t sum_of(std::span<const std::uint8_t> data) {
  return std::accumulate(data.begin(), data.end(), std::uint64_t{0});
}

/// Waits until the kernel has really ended it: until then it may still start a task.
void kill_and_wait(pid_t pid) {
  kill(pid, SIGKILL);
  CHECK(support::eventually([pid] { return !support::is_running(pid); }));
}

}  // namespace

TEST_CASE("a task whose worker is killed ends with WorkerDied and the signal",
          "[pool][death][processes]") {
  check_death(kill_myself, -SIGKILL);
}

TEST_CASE("a task that writes to a bad address ends with WorkerDied and SIGSEGV",
          "[pool][death][processes]") {
  check_death(write_to_nowhere, -SIGSEGV);
}

TEST_CASE("a task that leaves the process ends with WorkerDied and the status",
          "[pool][death][processes]") {
  check_death(leave_quietly, 3);
  check_death(leave_by_exit, 3);
  check_death(leave_well, 0);
}

TEST_CASE("a task that aborts ends with WorkerDied and SIGABRT", "[pool][death][processes]") {
  check_death(fail_submission, -SIGABRT);
  const auto run = support::capture_child([] {  // std::terminate says something on stderr
    check_death(throw_from_noexcept, -SIGABRT);
    return 0;
  });
  CHECK(run.exitcode == 0);
}

TEST_CASE("a worker killed from outside in the middle of a task is named in the error",
          "[pool][death][processes]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<pid_t>> pid;
  door = gate.get();
  victim = pid.get();
  procpool::Pool pool{2};
  auto result = pool.apply_async(report_and_wait);
  REQUIRE(gate->wait_for(1));
  kill(*pid, SIGKILL);
  const auto death = death_in([&] { result.get(20s); });
  REQUIRE(death.has_value());
  CHECK(death->pid() == *pid);
  CHECK(death->signal() == SIGKILL);
  CHECK(result.ready());
  CHECK_FALSE(result.successful());
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("an idle worker that is killed costs nothing and is replaced",
          "[pool][death][processes]") {
  procpool::Pool pool{2};
  for (int round = 0; round < 5; ++round) {
    kill_and_wait(pool.apply(worker_pid));
    CHECK(pool.map(square, numbers(50), {.chunksize = 1}) == squares(50));
  }
}

TEST_CASE("all workers killed while idle: the pool goes on", "[pool][death][processes]") {
  procpool::Pool pool{3};
  const auto pid_after_a_while = [](long) {
    sleep_for(50ms);
    return worker_pid();
  };
  const auto found = pool.map(pid_after_a_while, numbers(12), {.chunksize = 1});
  const std::set<pid_t> pids(found.begin(), found.end());
  CHECK(pids.size() == 3);
  for (pid_t pid : pids) kill_and_wait(pid);
  CHECK(pool.map(square, numbers(50)) == squares(50));
}

TEST_CASE("an idle worker that is killed does not stop close and join, nor terminate",
          "[pool][death][processes]") {
  procpool::Pool closed{1};
  kill_and_wait(closed.apply(worker_pid));
  closed.close();
  closed.join();
  procpool::Pool terminated{1};
  kill_and_wait(terminated.apply(worker_pid));
  terminated.terminate();
  terminated.join();
}

TEST_CASE(
    "one poisonous item of twenty: the others are computed once each, the error has its "
    "index",
    "[pool][death][processes]") {
  const auto check = [](const procpool::map_async_options<std::vector<long>>& options) {
    const support::shared<std::atomic<int>> count;
    runs = count.get();
    procpool::Pool pool{2};
    auto result = pool.map_async(poisonous_thirteen, numbers(20), options);
    const auto death = death_in([&] { static_cast<void>(result.get()); });
    REQUIRE(death.has_value());
    CHECK(death->item() == 13U);
    CHECK(death->signal() == SIGKILL);
    CHECK(*count == 19);
    CHECK(pool.map(square, numbers(20)) == squares(20));
  };
  check({.chunksize = 1});
  check({.chunksize = 5});
  check({.chunksize = 20});
}

TEST_CASE("a poisonous item of imap throws when its turn comes; all others arrive",
          "[pool][death][processes]") {
  const support::shared<std::atomic<int>> count;
  runs = count.get();
  procpool::Pool pool{2};
  auto results = pool.imap(poisonous_thirteen, numbers(20), {.chunksize = 4});
  for (long i = 0; i < 20; ++i) {
    if (i == 13) {
      const auto death = death_in([&] { static_cast<void>(results.next()); });
      REQUIRE(death.has_value());
      CHECK(death->item() == 13U);
    } else {
      CHECK(results.next() == i * i);
    }
  }
  CHECK(results.next() == std::nullopt);
}

TEST_CASE("many deaths in a row: each is told, none breaks the pool", "[pool][death][processes]") {
  procpool::Pool pool{2};
  std::set<pid_t> pids;
  for (int i = 0; i < 20; ++i) {
    const auto death = death_in([&] { pool.apply(kill_myself); });
    REQUIRE(death.has_value());
    pids.insert(death->pid());
  }
  CHECK(pids.size() == 20);
  CHECK(pool.map(square, numbers(100)) == squares(100));
}

TEST_CASE("many deaths at once: every result ends", "[pool][death][processes]") {
  procpool::Pool pool{3};
  std::vector<procpool::AsyncResult<void>> deadly;
  std::vector<procpool::AsyncResult<long>> harmless;
  for (long i = 0; i < 40; ++i) {
    deadly.push_back(pool.apply_async(i % 2 == 0 ? kill_myself : leave_quietly));
    harmless.push_back(pool.apply_async(square, i));
  }
  for (auto& result : deadly) CHECK(death_in([&] { result.get(30s); }).has_value());
  for (long i = 0; i < 40; ++i) CHECK(harmless[static_cast<std::size_t>(i)].get(30s) == i * i);
}

TEST_CASE("workers do not outlive a parent that is killed", "[pool][death][processes]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  const pid_t parent = support::start_child([] {
    procpool::Pool pool{3};
    auto busy = pool.map_async(
        [](long) {
          door->pass();
          return 0;
        },
        numbers(3), {.chunksize = 1});
    busy.wait();
    return 0;
  });
  REQUIRE(gate->wait_for(3));
  std::vector<pid_t> pids;
  for (const auto& process : support::descendants_of(parent)) pids.push_back(process.pid);
  CHECK(pids.size() >= 3);
  kill(parent, SIGKILL);
  CHECK(support::wait_child(parent) == -SIGKILL);
  CHECK(support::eventually([&] { return std::ranges::none_of(pids, support::is_running); }, 5s));
}

TEST_CASE("8 MiB go there and back, from one task and from many", "[pool][payload][limit:120]") {
  procpool::Pool pool{2};
  const auto data = pattern(8 << 20);
  CHECK(pool.apply(echo, data) == data);
  CHECK(pool.apply(sum_of, data) == sum_of(data));
  for (const auto& back : pool.map(echo, std::vector<bytes>(6, data), {.chunksize = 2})) {
    CHECK(back == data);
  }
}

TEST_CASE("300 MiB go there and back", "[pool][payload][limit:300]") {
  procpool::Pool pool{2};
  const auto data = pattern(300 << 20);
  CHECK(pool.apply(sum_of, data) == sum_of(data));
  CHECK(pool.apply(pattern, data.size()) == data);
  CHECK(pool.apply(echo, data) == data);
}

TEST_CASE("both directions full at once keep moving", "[pool][payload][limit:120]") {
  procpool::Pool pool{2};
  const auto data = pattern(8 << 20);
  std::vector<procpool::AsyncResult<bytes>> results;
  for (int i = 0; i < 24; ++i) results.push_back(pool.apply_async(echo, data));
  CHECK(pool.apply(square, 5) == 25);
  for (auto& result : results) CHECK(result.get() == data);
}

TEST_CASE("large results that nobody fetches do not stop others", "[pool][payload][limit:120]") {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<bytes>> unread;
  for (int i = 0; i < 8; ++i) unread.push_back(pool.apply_async(pattern, std::size_t{8 << 20}));
  CHECK(pool.map(square, numbers(1000)) == squares(1000));
}

TEST_CASE("100,000 small tasks pile up and all come back", "[pool][payload][limit:120]") {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < 100'000; ++i) results.push_back(pool.apply_async(square, i));
  long wrong = 0;
  for (long i = 0; i < 100'000; ++i) {
    if (results[static_cast<std::size_t>(i)].get() != i * i) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a worker that dies with a large task and a large result under way",
          "[pool][death][processes]") {
  procpool::Pool pool{2};
  const auto data = pattern(32 << 20);
  const auto die_with = [](const bytes& all) -> bytes {
    if (!all.empty()) kill_myself();
    return all;
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(death_in([&] { static_cast<void>(pool.apply(die_with, data)); }).has_value());
    CHECK(pool.apply(echo, data) == data);
  }
}

TEST_CASE("apply from several threads at once, with deaths between",
          "[pool][death][limit:120][processes]") {
  procpool::Pool pool{2};
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (long t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (long i = 0; i < 200; ++i) {
        const bool deadly = i % 50 == 49;
        if (deadly && death_in([&] { pool.apply(kill_myself); })) ++right;
        if (!deadly && pool.apply(multiply, t, i) == t * i) ++right;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 4 * 200);
}
