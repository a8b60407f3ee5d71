// SPDX-License-Identifier: MIT
// CPython's FutureTests, on results of a pool. Nobody outside can set a result here, so its states
// are made with tasks that wait, fail or are cancelled. (wait and as_completed have files of their
// own.)
#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;

long fail(long number) {
  throw std::domain_error("no " + std::to_string(number));
}

/// What an exception_ptr says; "none" for null.
std::string text_of(const std::exception_ptr& what) {
  if (what == nullptr) return "none";
  try {
    std::rethrow_exception(what);
  } catch (const procpool::CancelledError& error) {
    return std::string("cancelled: ") + error.what();
  } catch (const std::exception& error) {
    return error.what();
  }
}

bool is_cancelled(const std::exception_ptr& what) {
  return text_of(what).starts_with("cancelled: ");
}

/// One result in each state that there is, of a pool with one worker.
struct all_states {
  support::shared<support::gate> door;
  procpool::Pool<> pool{1};
  procpool::AsyncResult<long> successful = pool.apply_async(square, 7L);
  procpool::AsyncResult<long> failed = pool.apply_async(fail, 7L);
  std::optional<procpool::AsyncResult<long>> running;
  std::optional<procpool::AsyncResult<long>> pending;
  std::optional<procpool::AsyncResult<long>> cancelled;

  all_states() {
    successful.wait();
    failed.wait();
    support::gate* gate = door.get();
    running = pool.apply_async([gate](long x) { return gate->pass(), x; }, 1L);
    pending = pool.apply_async(square, 2L);
    cancelled = pool.apply_async(square, 3L);
    REQUIRE(door->wait_for(1));
    REQUIRE(cancelled->cancel());
  }
  ~all_states() { door->open(); }
};

/// A pool whose one worker waits, and a result behind it.
struct one_pending {
  support::shared<support::gate> door;
  procpool::Pool<> pool{1};
  procpool::AsyncResult<void> blocker;

  one_pending()
      : blocker([this] {
          support::gate* gate = door.get();
          return pool.apply_async([gate] { gate->pass(); });
        }()) {
    REQUIRE(door->wait_for(1));
  }
  ~one_pending() { door->open(); }
};

}  // namespace

// ---- add_done_callback --------------------------------------------------------------------------

TEST_CASE("FutureTests.test_done_callback_with_result: a callback gets the result, which is there",
          "[conformance][future][workers]") {
  one_pending at;
  std::atomic<long> seen = -1;
  const auto result = at.pool.apply_async(square, 5L);
  result.add_done_callback([&](const procpool::AsyncResult<long>& done) {
    seen = done.done() && !done.cancelled() ? done.get(0s) : -2;
  });
  CHECK(seen == -1);
  at.door->open();
  CHECK(support::eventually([&] { return seen == 25; }));
}

TEST_CASE("FutureTests.test_done_callback_with_exception: a callback can read the exception",
          "[conformance][future][workers]") {
  one_pending at;
  std::atomic<bool> right = false;
  const auto result = at.pool.apply_async(fail, 5L);
  result.add_done_callback([&](auto& done) { right = text_of(done.exception(0s)) == "no 5"; });
  at.door->open();
  CHECK(support::eventually([&] { return right.load(); }));
}

TEST_CASE("FutureTests.test_done_callback_with_cancel: a callback sees that it was cancelled",
          "[conformance][future][workers]") {
  one_pending at;
  std::atomic<bool> right = false;
  auto result = at.pool.apply_async(square, 5L);
  result.add_done_callback(
      [&](auto& done) { right = done.cancelled() && is_cancelled(done.exception()); });
  CHECK(result.cancel());
  CHECK(support::eventually([&] { return right.load(); }));
}

TEST_CASE("FutureTests.test_done_callback_raises: the next callback runs, stderr tells",
          "[conformance][future]") {
  const auto child = support::capture_child([] {
    procpool::Pool pool{1};
    std::atomic<int> calls = 0;
    const auto result = pool.apply_async([] { std::this_thread::sleep_for(50ms); });
    result.add_done_callback([&](auto&) {
      ++calls;
      throw std::runtime_error("doh!");
    });
    result.add_done_callback([&](auto&) {
      ++calls;
      throw 42;
    });
    result.add_done_callback([&](auto&) { ++calls; });
    CHILD_REQUIRE(support::eventually([&] { return calls == 3; }));
    CHILD_REQUIRE(pool.apply(square, 3L) == 9);
    return 0;
  });
  CHECK(child.exitcode == 0);
  CHECK(child.err.find("a callback failed") != std::string::npos);
  CHECK(child.err.find("doh!") != std::string::npos);
}

TEST_CASE("FutureTests.test_done_callback_already_successful: called at once by the same thread",
          "[conformance][future]") {
  procpool::Pool pool{1};
  const auto result = pool.apply_async(square, 5L);
  result.wait();
  long seen = 0;
  std::thread::id where;
  result.add_done_callback([&](auto& done) {
    seen = done.get();
    where = std::this_thread::get_id();
  });
  CHECK(seen == 25);
  CHECK(where == std::this_thread::get_id());
}

TEST_CASE("FutureTests.test_done_callback_already_failed: called at once",
          "[conformance][future]") {
  procpool::Pool pool{1};
  const auto result = pool.apply_async(fail, 5L);
  result.wait();
  std::string seen;
  result.add_done_callback([&](auto& done) { seen = text_of(done.exception()); });
  CHECK(seen == "no 5");
}

TEST_CASE("FutureTests.test_done_callback_already_cancelled: called at once",
          "[conformance][future][workers]") {
  one_pending at;
  auto result = at.pool.apply_async(square, 5L);
  CHECK(result.cancel());
  bool seen = false;
  result.add_done_callback([&](auto& done) { seen = done.cancelled(); });
  CHECK(seen);
}

TEST_CASE("FutureTests.test_done_callback_raises_already_succeeded: it does not reach the caller",
          "[conformance][future]") {
  const auto child = support::capture_child([] {
    procpool::Pool pool{1};
    const auto result = pool.apply_async(square, 5L);
    result.wait();
    result.add_done_callback([](auto&) { throw std::runtime_error("doh!"); });
    CHILD_REQUIRE(result.get() == 25);
    return 0;
  });
  CHECK(child.exitcode == 0);
  CHECK(child.err.find("doh!") != std::string::npos);
}

TEST_CASE("FutureTests.test_done_callback_with_result: in the order added, each once, one thread",
          "[conformance][future][workers]") {
  one_pending at;
  std::vector<int> order;
  std::vector<std::thread::id> where;
  const auto result = at.pool.apply_async(square, 5L);
  for (int i = 0; i < 100; ++i) {
    result.add_done_callback([&, i](auto&) {
      order.push_back(i);
      where.push_back(std::this_thread::get_id());
    });
  }
  at.door->open();
  at.pool.close();
  at.pool.join();  // waits for callbacks, too
  REQUIRE(order.size() == 100);
  CHECK(std::ranges::is_sorted(order));
  CHECK(std::ranges::count(where, where.front()) == 100);
  CHECK(where.front() != std::this_thread::get_id());
}

TEST_CASE("FutureTests.test_done_callback_with_result: after the callbacks of the options",
          "[conformance][future][workers]") {
  one_pending at;
  std::vector<std::string> order;
  std::optional<procpool::AsyncResult<long>> result;
  result = at.pool.apply_async(
      procpool::task_options<long>{
          .callback = [&](long&) { order.emplace_back(result->done() ? "late" : "before"); }},
      square, 5L);
  result->add_done_callback(
      [&](auto& done) { order.emplace_back(done.done() ? "after" : "early"); });
  at.door->open();
  at.pool.close();
  at.pool.join();
  CHECK(order == std::vector<std::string>{"before", "after"});
}

TEST_CASE("FutureTests.test_done_callback_with_result: a map calls it once, with all results",
          "[conformance][future]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  std::atomic<bool> right = true;
  for (int i = 0; i < 50; ++i) {
    pool.map_async(square, numbers(100), {.chunksize = 7}).add_done_callback([&](auto& done) {
      if (done.get() != squares(100)) right = false;
      ++calls;
    });
    pool.map_async(square, std::vector<long>{}).add_done_callback([&](auto& done) {
      if (!done.get().empty()) right = false;
      ++calls;
    });
    pool.map_async([](long) {}, numbers(10)).add_done_callback([&](auto& done) {
      done.get();
      ++calls;
    });
    pool.map_outcomes_async(square, numbers(3)).add_done_callback([&](auto& done) {
      if (done.get()[2].value() != 4) right = false;
      ++calls;
    });
  }
  pool.close();
  pool.join();
  CHECK(right);
  CHECK(calls == 200);
}

TEST_CASE("FutureTests.test_done_callback_with_result: many results, many threads that add",
          "[conformance][future]") {
  constexpr int threads = 4;
  constexpr int each = 2'000;
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  std::vector<std::thread> adding;
  for (int t = 0; t < threads; ++t) {
    adding.emplace_back([&] {
      for (long i = 0; i < each; ++i) {
        const auto result = pool.apply_async(square, i);
        for (int twice = 0; twice < 2; ++twice) {
          result.add_done_callback([&, i](auto& done) { calls += done.get() == i * i ? 1 : 0; });
        }
      }
    });
  }
  for (auto& thread : adding) thread.join();
  CHECK(support::eventually([&] { return calls == 2 * threads * each; }));
}

// ---- states -------------------------------------------------------------------------------------

TEST_CASE("FutureTests.test_cancel: only what is pending can be cancelled",
          "[conformance][future][workers]") {
  all_states at;
  CHECK(at.pending->cancel());
  CHECK(at.pending->cancelled());
  CHECK_FALSE(at.running->cancel());
  CHECK(at.running->running());
  CHECK_FALSE(at.cancelled->cancel());  // Python says true again; here it tells who did it
  CHECK(at.cancelled->cancelled());
  CHECK_FALSE(at.successful.cancel());
  CHECK_FALSE(at.failed.cancel());
  CHECK(at.successful.get() == 49);
}

TEST_CASE("FutureTests.test_cancelled: true in that state only", "[conformance][future][workers]") {
  all_states at;
  CHECK_FALSE(at.pending->cancelled());
  CHECK_FALSE(at.running->cancelled());
  CHECK(at.cancelled->cancelled());
  CHECK_FALSE(at.successful.cancelled());
  CHECK_FALSE(at.failed.cancelled());
}

TEST_CASE("FutureTests.test_cancelled: the end of the pool cancels, a broken pool does not",
          "[conformance][future][processes]") {
  one_pending at;
  auto single = at.pool.apply_async(square, 1L);
  auto whole = at.pool.map_async(square, numbers(3));
  auto outcomes = at.pool.map_outcomes_async(square, numbers(3));
  at.pool.terminate();
  CHECK(single.cancelled());
  CHECK(whole.cancelled());
  CHECK(outcomes.cancelled());
  CHECK(outcomes.exception() == nullptr);  // each of its outcomes says so
  auto thrown = procpool::Pool{1};
  const auto result = thrown.apply_async([] { throw procpool::CancelledError("not really"); });
  CHECK(result.exception() != nullptr);
  CHECK_FALSE(result.cancelled());
}

TEST_CASE("FutureTests.test_done: true once it cannot change any more",
          "[conformance][future][workers]") {
  all_states at;
  CHECK_FALSE(at.pending->done());
  CHECK_FALSE(at.running->done());
  CHECK(at.cancelled->done());
  CHECK(at.successful.done());
  CHECK(at.failed.done());
}

TEST_CASE("FutureTests.test_running: true in that state only", "[conformance][future][workers]") {
  all_states at;
  CHECK_FALSE(at.pending->running());
  CHECK(at.running->running());
  CHECK_FALSE(at.cancelled->running());
  CHECK_FALSE(at.successful.running());
  CHECK_FALSE(at.failed.running());
  at.door->open();
  CHECK(at.running->get() == 1);
  CHECK_FALSE(at.running->running());
}

TEST_CASE("FutureTests.test_running: a map runs from its first chunk to its last",
          "[conformance][future][workers]") {
  const support::shared<support::gate> first;
  const support::shared<support::gate> last;
  support::gate* one = first.get();
  support::gate* other = last.get();
  procpool::Pool pool{1};
  const auto result = pool.map_async(
      [one, other](long x) {
        if (x == 0) one->pass();
        if (x == 9) other->pass();
      },
      numbers(10), {.chunksize = 1});
  CHECK(support::eventually([&] { return result.running(); }));
  first->open();
  REQUIRE(last->wait_for(1));
  CHECK(result.running());
  last->open();
  result.get();
  CHECK_FALSE(result.running());
}

TEST_CASE("FutureTests.test_running: none after the pool has ended",
          "[conformance][future][processes]") {
  one_pending at;
  CHECK(at.blocker.running());
  at.pool.terminate();
  CHECK_FALSE(at.blocker.running());
}

// ---- waiting ------------------------------------------------------------------------------------

TEST_CASE("FutureTests.test_result_with_timeout: the value, the exception or TimeoutError",
          "[conformance][future][workers]") {
  all_states at;
  CHECK_THROWS_AS(at.pending->get(0s), procpool::TimeoutError);
  CHECK_THROWS_AS(at.running->get(0s), procpool::TimeoutError);
  CHECK_THROWS_AS(at.cancelled->get(0s), procpool::CancelledError);
  CHECK_THROWS_AS(at.failed.get(0s), std::domain_error);
  CHECK(at.successful.get(0s) == 49);
}

TEST_CASE("FutureTests.test_result_with_success: a thread that waits gets the value",
          "[conformance][future][workers]") {
  one_pending at;
  const auto result = at.pool.apply_async(square, 6L);
  long got = 0;
  std::thread waits([&] { got = result.get(20s); });
  at.door->open();
  waits.join();
  CHECK(got == 36);
}

TEST_CASE("FutureTests.test_result_with_cancel: a thread that waits gets CancelledError",
          "[conformance][future][workers]") {
  one_pending at;
  auto result = at.pool.apply_async(square, 6L);
  std::exception_ptr got;
  std::thread waits([&] {
    try {
      result.get(20s);
    } catch (...) {
      got = std::current_exception();
    }
  });
  std::this_thread::sleep_for(20ms);
  CHECK(result.cancel());
  waits.join();
  CHECK(is_cancelled(got));
}

TEST_CASE("FutureTests.test_exception_with_timeout: the exception, none or TimeoutError",
          "[conformance][future][workers]") {
  all_states at;
  CHECK_THROWS_AS(at.pending->exception(0s), procpool::TimeoutError);
  CHECK_THROWS_AS(at.running->exception(0s), procpool::TimeoutError);
  CHECK(is_cancelled(at.cancelled->exception(0s)));  // Python throws it
  CHECK(text_of(at.failed.exception(0s)) == "no 7");
  CHECK(at.successful.exception(0s) == nullptr);
}

TEST_CASE("FutureTests.test_exception_with_success: a thread that waits gets the exception",
          "[conformance][future][workers]") {
  one_pending at;
  const auto result = at.pool.apply_async(fail, 6L);
  std::exception_ptr got;
  std::thread waits([&] { got = result.exception(); });
  at.door->open();
  waits.join();
  CHECK(text_of(got) == "no 6");
}

TEST_CASE("FutureTests.test_exception_with_success: a wait for it can be stopped",
          "[conformance][future][workers]") {
  one_pending at;
  std::stop_source stop;
  std::thread stops([&] {
    std::this_thread::sleep_for(20ms);
    stop.request_stop();
  });
  const auto result = at.pool.apply_async(square, 6L);
  CHECK_THROWS_AS(result.exception(stop.get_token()), procpool::CancelledError);
  stops.join();
  CHECK_THROWS_AS(result.exception(stop.get_token()), procpool::CancelledError);  // before it began
  at.door->open();
  result.wait();
  CHECK(result.exception(stop.get_token()) == nullptr);  // what is there needs no wait
}

TEST_CASE("FutureTests.test_multiple_set_result: what is done stays as it is",
          "[conformance][future]") {
  procpool::Pool pool{1};
  auto result = pool.apply_async(square, 3L);
  CHECK(result.get() == 9);
  CHECK_FALSE(result.cancel({.kill = true}));
  pool.terminate();
  CHECK(result.get() == 9);
  CHECK_FALSE(result.cancelled());
}

TEST_CASE("FutureTests.test_multiple_set_exception: what has failed stays as it is",
          "[conformance][future]") {
  procpool::Pool pool{1};
  auto result = pool.apply_async(fail, 3L);
  CHECK(text_of(result.exception()) == "no 3");
  CHECK_FALSE(result.cancel({.kill = true}));
  pool.terminate();
  CHECK(text_of(result.exception()) == "no 3");
}
