// SPDX-License-Identifier: MIT
// What CPython's own tests of Queue, JoinableQueue and SimpleQueue assert. The other process is a
// worker of a pool, so that it is forked, spawned or a thread.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "conformance/types.hpp"

using namespace std::chrono_literals;
using procpool::Empty;
using procpool::Full;
using procpool::JoinableQueue;
using procpool::Pool;
using procpool::Queue;
using procpool::QueueClosed;
using procpool::SimpleQueue;

namespace {

using clock_type = std::chrono::steady_clock;

/// Tells the other side that it is its turn.
using signal_queue = SimpleQueue<bool>;

template <class Call>
auto took(Call call) {
  const auto begin = clock_type::now();
  call();
  return clock_type::now() - begin;
}

void drain_six(Queue<int> queue, signal_queue may_start, signal_queue may_go_on) {
  may_start.get();
  for (int i = 0; i < 6; ++i) queue.get();
  may_go_on.put(true);
}

void put_five(Queue<int> queue, signal_queue may_start, signal_queue may_go_on) {
  may_start.get();
  for (int i = 1; i <= 5; ++i) queue.put(i);
  may_go_on.put(true);
}

void put_ten_more(Queue<int> queue) {
  for (int i = 10; i < 20; ++i) queue.put(i);
}

void work_until_none(JoinableQueue<std::optional<int>> queue) {
  while (queue.get()) {
    std::this_thread::sleep_for(5ms);
    queue.task_done();
  }
  queue.task_done();
}

void tell_empty(SimpleQueue<std::string> queue, signal_queue may_start, SimpleQueue<bool> told) {
  may_start.get();
  told.put(queue.empty());
  told.put(queue.empty());
}

template <class Put>
void all_forms_are_full(Put put) {
  put([](const Queue<int>& queue) { queue.put_nowait(4); }, 0s);
  put([](const Queue<int>& queue) { queue.put(4, 100ms); }, 100ms);
  put([](const Queue<int>& queue) { queue.put(4, 0ms); }, 0s);
  put([](const Queue<int>& queue) { queue.put(4, -1s); }, 0s);
}

/// What closing does to a queue with these functions.
template <class SomeQueue>
void closing_ends_put_and_get() {
  const SomeQueue queue;
  queue.put(1);
  queue.close();
  CHECK_THROWS_AS(queue.put(2), QueueClosed);
  CHECK_THROWS_AS(queue.put_nowait(2), QueueClosed);
  CHECK_THROWS_AS(queue.put(2, 10ms), QueueClosed);
  CHECK(queue.get() == 1);
  CHECK_THROWS_AS(queue.get(), QueueClosed);
  CHECK_THROWS_AS(queue.get_nowait(), QueueClosed);
  CHECK_THROWS_AS(queue.get(10ms), QueueClosed);
}

template <class SomeQueue>
void closed_and_empty() {
  const SomeQueue unused;
  unused.close();
  CHECK(unused.empty());
  const SomeQueue used;
  used.put(1);
  used.close();
  CHECK_FALSE(used.empty());
  CHECK(used.get() == 1);
  CHECK(used.empty());
}

}  // namespace

TEST_CASE("_TestQueue.test_put: every form of put works until the queue is full",
          "[conformance][queue][workers]") {
  const Queue<int> queue{{.maxsize = 6}};
  const signal_queue may_start;
  const signal_queue may_go_on;
  Pool pool{1};
  const auto reader = pool.apply_async(drain_six, queue, may_start, may_go_on);
  CHECK(queue.empty());
  CHECK_FALSE(queue.full());
  queue.put(1);
  queue.put(2, 10s);
  queue.put(3, 0s);
  queue.put_nowait(4);
  CHECK(queue.try_put(5));
  CHECK(queue.try_put(6, 1s));
  CHECK_FALSE(queue.empty());
  CHECK(queue.full());
  all_forms_are_full([&](auto put, std::chrono::milliseconds least) {
    CHECK(took([&] { CHECK_THROWS_AS(put(queue), Full); }) >= least);
  });
  may_start.put(true);
  may_go_on.get();
  CHECK(queue.empty());
  CHECK_FALSE(queue.full());
  reader.wait();
}

TEST_CASE("_TestQueue.test_get: what a child puts arrives in order, by every form of get",
          "[conformance][queue][workers]") {
  const Queue<int> queue;
  const signal_queue may_start;
  const signal_queue may_go_on;
  Pool pool{1};
  const auto writer = pool.apply_async(put_five, queue, may_start, may_go_on);
  CHECK(queue.empty());
  may_start.put(true);
  may_go_on.get();
  CHECK_FALSE(queue.empty());
  CHECK(queue.get() == 1);
  CHECK(queue.get(10s) == 2);
  CHECK(queue.get_nowait() == 3);
  CHECK(queue.try_get() == 4);
  CHECK(queue.try_get(1s) == 5);
  CHECK(queue.empty());
  CHECK_THROWS_AS(queue.get_nowait(), Empty);
  CHECK_THROWS_AS(queue.get(0s), Empty);
  CHECK(took([&] { CHECK_THROWS_AS(queue.get(100ms), Empty); }) >= 100ms);
  CHECK(took([&] { CHECK_FALSE(queue.try_get(100ms)); }) >= 100ms);
  writer.wait();
}

TEST_CASE("_TestQueue.test_fork: a queue that was used already works from a child",
          "[conformance][queue][workers]") {
  const Queue<int> queue;
  for (int i = 0; i < 10; ++i) queue.put(i);
  Pool pool{1};
  pool.apply(put_ten_more, queue);
  for (int i = 0; i < 20; ++i) CHECK(queue.get() == i);
  CHECK_THROWS_AS(queue.get_nowait(), Empty);
}

TEST_CASE("_TestQueue.test_qsize: it follows put and get", "[conformance][queue]") {
  const Queue<int> queue;
  CHECK(queue.qsize() == 0);
  queue.put(1);
  CHECK(queue.qsize() == 1);
  queue.put(5);
  CHECK(queue.qsize() == 2);
  queue.get();
  CHECK(queue.qsize() == 1);
  queue.get();
  CHECK(queue.qsize() == 0);
}

TEST_CASE("_TestQueue.test_task_done: join returns when all values are finished",
          "[conformance][queue][workers]") {
  const JoinableQueue<std::optional<int>> queue;
  Pool pool{4};
  std::vector<procpool::AsyncResult<void>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(pool.apply_async(work_until_none, queue));
  for (int i = 0; i < 10; ++i) queue.put(i);
  queue.join();
  CHECK(queue.empty());
  for (int i = 0; i < 4; ++i) queue.put(std::nullopt);
  for (const auto& each : workers) each.wait();
  queue.join();
  CHECK_THROWS_AS(queue.task_done(), std::logic_error);
}

TEST_CASE("_TestQueue.test_timeout: get waits for its timeout", "[conformance][queue]") {
  const Queue<int> queue;
  CHECK(took([&] { CHECK_THROWS_AS(queue.get(200ms), Empty); }) >= 180ms);
}

TEST_CASE(
    "_TestQueue.test_queue_feeder_donot_stop_onexc: a value that cannot be encoded takes no "
    "room") {
  const Queue<conformance::unshippable> queue{{.maxsize = 1}};
  CHECK_THROWS_AS(queue.put({}), conformance::encoding_failed);
  queue.put({.number = 5, .broken = false});
  CHECK(queue.qsize() == 1);
  CHECK(queue.get(10s).number == 5);
  CHECK(queue.empty());
}

TEST_CASE(
    "_TestQueue.test_queue_feeder_on_queue_feeder_error: the exception of an encoding comes "
    "out of put, and the queue goes on") {
  const Queue<conformance::unshippable> queue;
  std::string told;
  try {
    queue.put({});
  } catch (const conformance::encoding_failed& error) {
    told = error.what();
  }
  CHECK(told == "this one cannot be encoded");
  queue.put({.number = 6, .broken = false});
  CHECK(queue.get(10s).number == 6);
}

TEST_CASE(
    "_TestQueue.test_closed_queue_empty_exceptions: empty() tells the truth about a closed "
    "queue") {
  closed_and_empty<Queue<int>>();
  closed_and_empty<JoinableQueue<int>>();
}

TEST_CASE(
    "_TestQueue.test_closed_queue_put_get_exceptions: a closed queue takes nothing, and gives "
    "nothing when it is empty") {
  closing_ends_put_and_get<Queue<int>>();
  closing_ends_put_and_get<JoinableQueue<int>>();
}

TEST_CASE("TestSimpleQueue.test_empty_exceptions: empty() of a closed SimpleQueue throws",
          "[conformance][queue]") {
  const SimpleQueue<int> queue;
  queue.close();
  CHECK_THROWS_AS(queue.empty(), QueueClosed);
}

TEST_CASE("TestSimpleQueue.test_empty: a child sees whether there is a value",
          "[conformance][queue][workers]") {
  const SimpleQueue<std::string> queue;
  const signal_queue may_start;
  const SimpleQueue<bool> told;
  Pool pool{1};
  CHECK(queue.empty());
  const auto child = pool.apply_async(tell_empty, queue, may_start, told);
  may_start.put(true);
  CHECK(told.get());
  CHECK(told.get());
  queue.put("now");
  const auto again = pool.apply_async(tell_empty, queue, may_start, told);
  may_start.put(true);
  CHECK_FALSE(told.get());
  CHECK_FALSE(told.get());
  CHECK_FALSE(queue.empty());
  child.wait();
  again.wait();
}

TEST_CASE("TestSimpleQueue.test_close: closing twice does not fail", "[conformance][queue]") {
  const SimpleQueue<int> queue;
  queue.close();
  queue.close();
}
