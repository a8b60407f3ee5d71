// SPDX-License-Identifier: MIT
// CPython's ExecutorDeadlockTest: what goes wrong while something is encoded, run or decoded ends
// that task, and neither it nor the pool hangs. (exit() in a decoder in the parent,
// test_exit_during_result_unpickle_in_result_handler, ends the program here.)
#include <sys/types.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

enum class stage { none, decoding_in_worker, encoding_in_worker, encoding_here, decoding_here };
enum class mischief { error, leave, crash };

/// Where it is encoded or decoded, as it says, something bad happens.
struct trap {
  stage when = stage::none;
  mischief what = mischief::error;
};

bool in_worker() {
  try {
    static_cast<void>(procpool::current_worker());
    return true;
  } catch (const std::logic_error&) {
    return false;
  }
}

void spring(const trap& set, stage now) {
  if (set.when != now) return;
  switch (set.what) {
    case mischief::error:
      throw std::range_error("the trap");
    case mischief::leave:
      _exit(5);
    case mischief::crash:
      ::raise(SIGSEGV);
  }
}

long take(const trap&) {
  return 1;
}

trap give(stage when, mischief what) {
  return {when, what};
}

void leave(int status) {
  _exit(status);
}

void fail() {
  throw std::runtime_error("123");
}

void crash() {
  ::raise(SIGSEGV);
}

void crash_later() {
  std::this_thread::sleep_for(100ms);
  crash();
}

std::size_t crash_with(const std::string& data) {
  crash();
  return data.size();
}

/// What a task in a new pool ends with; closing and joining the pool afterwards works.
template <class Error, class... Task>
std::optional<Error> error_of(Task... task) {
  procpool::Pool pool{2};
  std::optional<Error> found;
  try {
    static_cast<void>(pool.apply_async(task...).get(20s));
  } catch (const Error& error) {
    found = error;
  }
  CHECK(pool.apply(square, 7) == 49);
  pool.close();
  pool.join();
  return found;
}

template <class... Task>
std::optional<int> exitcode_of(Task... task) {
  const auto death = error_of<procpool::WorkerDied>(task...);
  return death ? std::optional(death->exitcode()) : std::nullopt;
}

}  // namespace

template <>
struct procpool::codec<trap> {
  static void encode(encoder& out, const trap& value) {
    spring(value, in_worker() ? stage::encoding_in_worker : stage::encoding_here);
    out.put(static_cast<int>(value.when));
    out.put(static_cast<int>(value.what));
  }
  static trap decode(decoder& in) {
    trap value;
    value.when = static_cast<stage>(in.get<int>());
    value.what = static_cast<mischief>(in.get<int>());
    spring(value, in_worker() ? stage::decoding_in_worker : stage::decoding_here);
    return value;
  }
};

TEST_CASE(
    "ExecutorDeadlockTest.test_error_at_task_pickle: an argument that cannot be encoded is "
    "told at once",
    "[conformance][executor][deadlock]") {
  CHECK(error_of<std::range_error>(take, trap{stage::encoding_here, mischief::error}));
}

TEST_CASE("ExecutorDeadlockTest.test_exit_at_task_unpickle: the worker ends while it decodes",
          "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(take, trap{stage::decoding_in_worker, mischief::leave}) == 5);
}

TEST_CASE(
    "ExecutorDeadlockTest.test_error_at_task_unpickle: an argument that cannot be decoded is "
    "the task's failure",
    "[conformance][executor][deadlock]") {
  CHECK(error_of<std::range_error>(take, trap{stage::decoding_in_worker, mischief::error}));
}

TEST_CASE("ExecutorDeadlockTest.test_crash_at_task_unpickle: the worker crashes while it decodes",
          "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(take, trap{stage::decoding_in_worker, mischief::crash}) == -SIGSEGV);
}

TEST_CASE("ExecutorDeadlockTest.test_crash_during_func_exec_on_worker: the worker crashes",
          "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(crash) == -SIGSEGV);
}

TEST_CASE("ExecutorDeadlockTest.test_exit_during_func_exec_on_worker: the worker leaves",
          "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(leave, 1) == 1);
}

TEST_CASE("ExecutorDeadlockTest.test_error_during_func_exec_on_worker: the task throws",
          "[conformance][executor][deadlock]") {
  CHECK(error_of<std::runtime_error>(fail));
}

TEST_CASE(
    "ExecutorDeadlockTest.test_crash_during_result_pickle_on_worker: the worker crashes "
    "while it encodes the result",
    "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(give, stage::encoding_in_worker, mischief::crash) == -SIGSEGV);
}

TEST_CASE(
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker: the worker leaves while "
    "it encodes the result",
    "[conformance][executor][deadlock][processes]") {
  CHECK(exitcode_of(give, stage::encoding_in_worker, mischief::leave) == 5);
}

TEST_CASE(
    "ExecutorDeadlockTest.test_error_during_result_pickle_on_worker: a result that cannot be "
    "encoded is the task's failure",
    "[conformance][executor][deadlock]") {
  CHECK(error_of<std::range_error>(give, stage::encoding_in_worker, mischief::error));
}

TEST_CASE(
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler: a result that "
    "cannot be decoded is the task's failure",
    "[conformance][executor][deadlock][workers]") {
  CHECK(error_of<std::range_error>(give, stage::decoding_here, mischief::error));
}

TEST_CASE("ExecutorDeadlockTest.test_shutdown_deadlock: a worker crashes after close",
          "[conformance][executor][deadlock][processes]") {
  procpool::Pool pool{2};
  auto result = pool.apply_async(crash_later);
  pool.close();
  pool.join();
  CHECK_THROWS_AS(result.get(), procpool::WorkerDied);
}

TEST_CASE(
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle: closing after an argument that "
    "could not be encoded",
    "[conformance][executor][deadlock]") {
  procpool::Pool pool{2};
  CHECK(pool.apply(square, 42) == 1764);
  CHECK_THROWS_AS(pool.apply_async(take, trap{stage::encoding_here, mischief::error}),
                  std::range_error);
  pool.close();
  pool.join();
}

TEST_CASE(
    "ExecutorDeadlockTest.test_crash_big_data: workers crash while large arguments are on "
    "their way",
    "[conformance][executor][deadlock][processes]") {
  procpool::Pool pool{2};
  const std::vector<std::string> data(10, std::string(std::size_t{4} << 20, 'a'));
  CHECK_THROWS_AS(pool.map(crash_with, data, {.chunksize = 1}), procpool::WorkerDied);
  pool.close();
  pool.join();
}

TEST_CASE(
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full: much is "
    "submitted while nobody reads",
    "[conformance][executor][deadlock]") {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<long>> all;
  for (long i = 0; i < 100'000; ++i) all.push_back(pool.apply_async(square, i));
  const auto [done, pending] = procpool::wait(all, procpool::ALL_COMPLETED, 60s);
  CHECK(done.size() == 100'000);
  CHECK(pending.empty());
}
