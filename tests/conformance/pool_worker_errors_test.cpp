// SPDX-License-Identifier: MIT
// CPython's _TestPoolWorkerErrors and the tests of _TestPool about exceptions: what a task throws,
// what cannot be encoded on its way back, and callbacks that throw.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <exception>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

support::common<std::atomic<int>*> ended;
using Catch::Matchers::ContainsSubstring;

/// Of a type that the parent does not know.
struct stranger : std::exception {
  [[nodiscard]] const char* what() const noexcept override { return "a strange thing"; }
};

template <class Error>
void throw_one() {
  throw Error("the reason is 42");
}

/// The text nested inside an exception that came from a worker; empty if nothing is nested.
std::string remote_text(const std::exception& error) {
  try {
    std::rethrow_if_nested(error);
  } catch (const procpool::RemoteTraceback& trace) {
    return trace.what();
  }
  return {};
}

/// That @p Error arrives as itself, with its text and with the remote part nested inside.
template <class Error>
void check_keeps_type(procpool::Pool<>& pool) {
  std::string text;
  std::string remote;
  try {
    pool.apply(throw_one<Error>);
  } catch (const Error& error) {
    text = error.what();
    remote = remote_text(error);
  }
  CHECK_THAT(text, ContainsSubstring("the reason is 42"));
  CHECK_FALSE(remote.empty());
}

/// The workers of @p pool: short sleeps, so that no worker can take all of them.
std::set<pid_t> all_workers(procpool::Pool<>& pool) {
  const auto pids = pool.map(
      [](long) {
        sleep_for(50ms);
        return worker_id();
      },
      numbers(8), {.chunksize = 1});
  return {pids.begin(), pids.end()};
}

}  // namespace

TEST_CASE(
    "_TestPoolWorkerErrors.test_async_error_callback: the error callback and get both see "
    "what the task threw",
    "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::vector<std::exception_ptr> errors;
  std::atomic<int> calls = 0;
  const auto fail = [](long) -> long { throw std::out_of_range("no such key"); };
  auto result = pool.apply_async(
      procpool::task_options<long>{
          .callback = [&](long&) { ++calls; },
          .error_callback = [&](std::exception_ptr error) { errors.push_back(error); }},
      fail, 7);
  CHECK_THROWS_AS(result.get(), std::out_of_range);
  REQUIRE(errors.size() == 1);
  CHECK_THROWS_AS(std::rethrow_exception(errors[0]), std::out_of_range);
  CHECK(calls == 0);
  CHECK_FALSE(result.successful());
}

TEST_CASE(
    "_TestPoolWorkerErrors.test_unpickleable_result: a result that cannot be encoded is an "
    "error of its task alone, 20 times",
    "[conformance][pool][errors][workers]") {
  procpool::Pool pool{2};
  const auto before = all_workers(pool);
  CHECK(before.size() == 2);
  for (int i = 0; i < 20; ++i) {
    std::vector<std::exception_ptr> errors;
    auto result = pool.apply_async(
        procpool::task_options<unshippable>{
            .error_callback = [&](std::exception_ptr error) { errors.push_back(error); }},
        [] { return unshippable{}; });
    CHECK_THROWS_AS(result.get(), encoding_failed);
    REQUIRE(errors.size() == 1);
    CHECK_THROWS_AS(std::rethrow_exception(errors[0]), encoding_failed);
  }
  CHECK(all_workers(pool) == before);
}

TEST_CASE(
    "_TestPoolWorkerErrors.test_unpickleable_result: one such result in a map, the others "
    "are computed",
    "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  const auto make = [](long i) { return unshippable{.number = i, .broken = i == 5}; };
  CHECK_THROWS_AS(pool.map(make, numbers(10), {.chunksize = 4}), encoding_failed);
  auto results = pool.imap(make, numbers(10), {.chunksize = 4});
  for (long i = 0; i < 10; ++i) {
    if (i == 5) {
      CHECK_THROWS_AS(results.next(), encoding_failed);
    } else {
      CHECK(results.next().value().number == i);
    }
  }
}

TEST_CASE(
    "_TestPoolWorkerErrors.test_unpickleable_result: the error says that it comes from a "
    "worker",
    "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::string remote;
  try {
    static_cast<void>(pool.apply([] { return unshippable{}; }));
  } catch (const encoding_failed& error) {
    remote = remote_text(error);
  }
  CHECK_FALSE(remote.empty());
}

TEST_CASE(
    "_TestPool.test_traceback: an exception keeps its type and text; the remote part is "
    "nested in it",
    "[conformance][pool][errors]") {
  procpool::Pool pool{1};
  const pid_t worker = pool.apply(worker_pid);
  std::string remote;
  try {
    pool.apply(throw_one<std::invalid_argument>);
    FAIL_CHECK("nothing was thrown");
  } catch (const std::invalid_argument& error) {
    CHECK(error.what() == std::string("the reason is 42"));
    remote = remote_text(error);
  }
  CHECK_THAT(remote, ContainsSubstring(std::to_string(worker)));
}

TEST_CASE("_TestPool.test_traceback: causes that the task had nested are told",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  const auto fail = [] {
    try {
      throw std::out_of_range("the deeper cause");
    } catch (...) {
      std::throw_with_nested(std::runtime_error("the outer error"));
    }
  };
  std::string remote;
  try {
    pool.apply(fail);
    FAIL_CHECK("nothing was thrown");
  } catch (const std::runtime_error& error) {
    CHECK(error.what() == std::string("the outer error"));
    remote = remote_text(error);
  }
  CHECK_THAT(remote, ContainsSubstring("the deeper cause"));
}

TEST_CASE("_TestPool.test_traceback: an exception of the input is not wrapped",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::string remote = "not thrown";
  try {
    static_cast<void>(pool.map(square, source(4)));
  } catch (const input_failed& error) {
    remote = remote_text(error);
  }
  CHECK(remote.empty());
}

TEST_CASE("_TestPool.test_wrapped_exception: standard exceptions are thrown as what they are",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  check_keeps_type<std::runtime_error>(pool);
  check_keeps_type<std::logic_error>(pool);
  check_keeps_type<std::invalid_argument>(pool);
  check_keeps_type<std::domain_error>(pool);
  check_keeps_type<std::length_error>(pool);
  check_keeps_type<std::out_of_range>(pool);
  check_keeps_type<std::range_error>(pool);
  check_keeps_type<std::overflow_error>(pool);
  check_keeps_type<std::underflow_error>(pool);
  CHECK_THROWS_AS(pool.apply([] { throw std::bad_alloc(); }), std::bad_alloc);
}

TEST_CASE("_TestPool.test_wrapped_exception: a system_error keeps its code",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::error_code code;
  try {
    pool.apply([] {
      throw std::system_error(std::make_error_code(std::errc::no_space_on_device), "writing");
    });
  } catch (const std::system_error& error) {
    code = error.code();
    CHECK_THAT(error.what(), ContainsSubstring("writing"));
  }
  CHECK(code == std::errc::no_space_on_device);
}

TEST_CASE(
    "_TestPool.test_wrapped_exception: an exception of unknown type arrives as RemoteError "
    "with its name and text",
    "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::string type;
  std::string text;
  try {
    pool.apply([] { throw stranger(); });
  } catch (const procpool::RemoteError& error) {
    type = error.type_name();
    text = error.what();
  }
  CHECK_THAT(type, ContainsSubstring("stranger"));
  CHECK_THAT(text, ContainsSubstring("a strange thing"));
  CHECK_THROWS_AS(pool.apply([] { throw 42; }), procpool::RemoteError);
}

TEST_CASE("_TestPool.test_map_no_failfast: all chunks are awaited, large messages and all",
          "[conformance][pool][errors]") {
  const support::shared<std::atomic<int>> count;
  ended = count.get();
  procpool::Pool pool{2};
  const auto fail = [](long) -> long {
    sleep_for(200ms);
    ++*ended;
    throw std::runtime_error(std::string(1 << 20, 'x'));
  };
  CHECK_THROWS_AS(pool.map(fail, numbers(6), {.chunksize = 1}), std::runtime_error);
  CHECK(*count == 6);
  pool.close();
  pool.join();
}

TEST_CASE("_TestPool.test_map_no_failfast: close and join with large failures that nobody fetched",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  const auto fail = [](long) -> long { throw std::runtime_error(std::string(1 << 20, 'x')); };
  auto result = pool.map_async(fail, numbers(20), {.chunksize = 1});
  pool.close();
  pool.join();
  CHECK(result.ready());
  CHECK_THROWS_AS(result.get(), std::runtime_error);
}

TEST_CASE("_TestPool.test_map_no_failfast: the first failure by position is the one that is thrown",
          "[conformance][pool][errors]") {
  procpool::Pool pool{4};
  const auto fail = [](long i) -> long {
    if (i == 3) sleep_for(200ms);
    if (i >= 3) throw std::runtime_error("item " + std::to_string(i));
    return i;
  };
  for (int round = 0; round < 3; ++round) {
    std::string text;
    try {
      static_cast<void>(pool.map(fail, numbers(10), {.chunksize = 1}));
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    CHECK(text == "item 3");
  }
}

TEST_CASE("_TestPool.test_map_async_callbacks: a callback that throws harms nothing",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  auto result = pool.apply_async(
      procpool::task_options<long>{
          .callback = [](long&) { throw std::runtime_error("from the callback"); }},
      square, 5);
  CHECK(result.get() == 25);
  auto all =
      pool.map_async(square, numbers(10), {.callback = [](std::vector<long>&) { throw 42; }});
  CHECK(all.get() == squares(10));
  const auto fail = [](long) -> long { throw std::out_of_range("task"); };
  auto failed = pool.apply_async(
      procpool::task_options<long>{
          .error_callback = [](std::exception_ptr) { throw std::runtime_error("callback"); }},
      fail, 5);
  CHECK_THROWS_AS(failed.get(), std::out_of_range);
  CHECK(pool.map(square, numbers(10)) == squares(10));
}

TEST_CASE("_TestPool.test_map_async_callbacks: callbacks run though nobody waits",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  std::atomic<int> errors = 0;
  const procpool::task_options<long> options{
      .callback = [&](long&) { ++calls; }, .error_callback = [&](std::exception_ptr) { ++errors; }};
  const auto even = [](long x) {
    if (x % 2 != 0) throw std::domain_error("odd");
    return x;
  };
  for (long i = 0; i < 100; ++i) static_cast<void>(pool.apply_async(options, even, i));
  CHECK(support::eventually([&] { return calls == 50 && errors == 50; }));
}

TEST_CASE("_TestPool.test_map_async_callbacks: a callback may submit more work",
          "[conformance][pool][errors]") {
  procpool::Pool pool{2};
  std::atomic<long> sum = 0;
  using options = procpool::task_options<long>;
  const options second{.callback = [&](long& x) { sum = x; }};
  const options first{
      .callback = [&](long& x) { static_cast<void>(pool.apply_async(second, square, x)); }};
  static_cast<void>(pool.apply_async(first, square, 3));
  CHECK(support::eventually([&] { return sum == 81; }));
}
