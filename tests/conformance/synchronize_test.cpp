// SPDX-License-Identifier: MIT
// What CPython's own tests of multiprocessing's locks, semaphores, conditions, events and barriers
// assert.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>

#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using procpool::Array;
using procpool::Barrier;
using procpool::BoundedSemaphore;
using procpool::BrokenBarrier;
using procpool::Condition;
using procpool::Event;
using procpool::Lock;
using procpool::RLock;
using procpool::Semaphore;
using procpool::Value;
using support::eventually;

constexpr auto long_time = 60s;
constexpr int parties = 5;

// ---- tasks ----

template <class L>
void hold_until(L lock, Event held, Event go_on) {
  lock.acquire();
  held.set();
  go_on.wait();
  lock.release();
}
template <class L>
std::string text_of(L lock) {
  return fmt::format("{}", lock);
}
template <class L>
bool is_locked(L lock) {
  return lock.locked();
}

bool sleep_on(Condition condition, Semaphore sleeping, Semaphore woken, double timeout) {
  const std::scoped_lock held(condition);
  sleeping.release();
  bool notified = true;
  if (timeout < 0) {
    condition.wait();
  } else {
    notified = condition.wait(std::chrono::duration<double>(timeout));
  }
  woken.release();
  return notified;
}

bool wait_for_four(Condition condition, Value<int> state) {
  const std::scoped_lock held(condition);
  state.value() = 0;
  condition.notify();
  return condition.wait_for([&] { return state.value() == 4; });
}
bool wait_for_never(Condition condition, Value<int> state, Semaphore ready) {
  const std::scoped_lock held(condition);
  ready.release();
  const auto begin = std::chrono::steady_clock::now();
  const bool result = condition.wait_for([&] { return state.value() == 4; }, 100ms);
  return !result && std::chrono::steady_clock::now() - begin >= 100ms;
}

void set_it(Event event) {
  std::this_thread::sleep_for(20ms);
  event.set();
}

/// What parties do at a Barrier. @returns how often they passed
int pass(Barrier barrier, Value<long> before, Value<long> after, int times) {
  int passed = 0;
  for (int i = 0; i < times; ++i) {
    if (after.get() != long{i} * parties) return -1;
    before.atomic().fetch_add(1);
    static_cast<void>(barrier.wait());
    if (before.get() < (i + 1L) * parties) return -2;
    after.atomic().fetch_add(1);
    static_cast<void>(barrier.wait());
    ++passed;
  }
  return passed;
}
int place_of(Barrier barrier) {
  return barrier.wait();
}
/// 1: passed, 2: broken, 3: aborted it
int meet_or_abort(Barrier barrier, bool abort) {
  try {
    if (abort) {
      while (barrier.n_waiting() != parties - 1) std::this_thread::sleep_for(1ms);
      barrier.abort();
      return 3;
    }
    static_cast<void>(barrier.wait());
    return 1;
  } catch (const BrokenBarrier&) {
    return 2;
  }
}
/// 1: passed, 2: broken
int meet_twice(Barrier barrier, Barrier again, bool reset) {
  int first = 1;
  try {
    if (reset) {
      while (barrier.n_waiting() != parties - 1) std::this_thread::sleep_for(1ms);
      barrier.reset();
      first = 2;
    } else {
      static_cast<void>(barrier.wait());
    }
  } catch (const BrokenBarrier&) {
    first = 2;
  }
  static_cast<void>(again.wait());
  static_cast<void>(barrier.wait());
  return first;
}
int come_late(Barrier barrier, bool late, bool with_timeout) {
  try {
    if (late) {
      while (!barrier.broken()) std::this_thread::sleep_for(1ms);
    }
    static_cast<void>(with_timeout ? barrier.wait(50ms) : barrier.wait());
    return 1;
  } catch (const BrokenBarrier&) {
    return 2;
  }
}
bool thousand_times(Barrier barrier, Value<long> count) {
  for (long i = 0; i < 1000; ++i) {
    static_cast<void>(barrier.wait());
    const long seen = count.atomic().fetch_add(1);
    if (seen < i * parties || seen >= (i + 1) * parties) return false;
  }
  return true;
}

template <class Function, class... Arguments>
auto in_all(Function function, const Arguments&... arguments) {
  procpool::Pool pool{parties};
  std::vector<procpool::AsyncResult<std::invoke_result_t<Function, Arguments...>>> results;
  for (int i = 0; i < parties; ++i) results.push_back(pool.apply_async(function, arguments...));
  std::vector<std::invoke_result_t<Function, Arguments...>> values;
  for (auto& each : results) values.push_back(each.get(long_time));
  return values;
}

std::vector<int> with_one_other(int (*function)(Barrier, bool), const Barrier& barrier) {
  procpool::Pool pool{parties};
  std::vector<procpool::AsyncResult<int>> results;
  for (int i = 0; i < parties; ++i) results.push_back(pool.apply_async(function, barrier, i == 0));
  std::vector<int> values;
  for (auto& each : results) values.push_back(each.get(long_time));
  return values;
}

struct sleepers {
  Condition condition;
  Semaphore sleeping{0};
  Semaphore woken{0};

  [[nodiscard]] bool sleep(unsigned count) const {
    return eventually([&] { return sleeping.get_value() == count; }) &&
           eventually([&] { return condition.waiting() == count - woken.get_value(); });
  }
  [[nodiscard]] bool woke(unsigned count) const {
    return eventually([&] { return woken.get_value() == count; });
  }
  void notify(unsigned count) {
    const std::scoped_lock held(condition);
    condition.notify(count);
  }
};

/// How often the action of a Barrier has run.
support::common<std::atomic<int>*> action_runs;

}  // namespace

// ---- _TestLock ----

TEST_CASE("_TestLock.test_repr_lock: the text of a lock names its owner", "[workers]") {
  Lock lock;
  CHECK(fmt::format("{}", lock) == "Lock(owner=None)");
  lock.acquire();
  CHECK(fmt::format("{}", lock) == "Lock(owner=MainProcess)");
  lock.release();
  procpool::Pool pool{1};
  Event held;
  Event go_on;
  auto holder = pool.apply_async(hold_until<Lock>, lock, held, go_on);
  held.wait();
  CHECK_THAT(fmt::format("{}", lock), StartsWith("Lock(owner="));
  CHECK(fmt::format("{}", lock) != "Lock(owner=None)");
  go_on.set();
  holder.get();
}

TEST_CASE("_TestLock.test_repr_lock: the text names a process by its name", "[processes][fork]") {
  Lock lock;
  Event held;
  Event go_on;
  procpool::Process process{{.name = "P1"}, hold_until<Lock>, lock, held, go_on};
  process.start();
  held.wait();
  CHECK(fmt::format("{}", lock) == "Lock(owner=P1)");
  go_on.set();
  process.join();
}

TEST_CASE("_TestLock.test_lock: acquire, locked, release; a free lock cannot be released", "") {
  Lock lock;
  lock.acquire();
  CHECK(lock.locked());
  CHECK_FALSE(lock.try_lock());
  lock.release();
  CHECK_FALSE(lock.locked());
  CHECK_THROWS_AS(lock.release(), std::logic_error);
}

TEST_CASE("_TestLock.test_lock_locked_2processes: all see that it is locked", "[workers]") {
  Lock lock;
  procpool::Pool pool{2};
  Event held;
  Event go_on;
  auto holder = pool.apply_async(hold_until<Lock>, lock, held, go_on);
  held.wait();
  CHECK(lock.locked());
  CHECK(pool.apply(is_locked<Lock>, lock));
  go_on.set();
  holder.get();
  CHECK_FALSE(lock.locked());
}

TEST_CASE("_TestLock.test_repr_rlock: the text of an RLock has its owner and count", "[workers]") {
  RLock lock;
  CHECK(fmt::format("{}", lock) == "RLock(owner=None, count=0)");
  for (int i = 1; i <= 4; ++i) {
    lock.acquire();
    CHECK(fmt::format("{}", lock) == fmt::format("RLock(owner=MainProcess, count={})", i));
  }
  std::thread([&] { CHECK_THAT(fmt::format("{}", lock), ContainsSubstring("count=4")); }).join();
  procpool::Pool pool{1};
  CHECK_THAT(pool.apply(text_of<RLock>, lock), ContainsSubstring("count=4"));
  for (int i = 0; i < 4; ++i) lock.release();
  std::thread([&] {
    lock.acquire();
    CHECK_THAT(fmt::format("{}", lock), StartsWith("RLock(owner=MainProcess|thread "));
    lock.release();
  }).join();
}

TEST_CASE("_TestLock.test_rlock: three times acquired, three times released, not once more", "") {
  RLock lock;
  for (int i = 0; i < 3; ++i) lock.acquire();
  for (int i = 0; i < 3; ++i) {
    CHECK(lock.locked());
    lock.release();
  }
  CHECK_FALSE(lock.locked());
  CHECK_THROWS_AS(lock.release(), std::logic_error);
}

TEST_CASE("_TestLock.test_rlock_locked_2processes: all see that it is locked", "[workers]") {
  RLock lock;
  procpool::Pool pool{2};
  Event held;
  Event go_on;
  auto holder = pool.apply_async(hold_until<RLock>, lock, held, go_on);
  held.wait();
  CHECK(lock.locked());
  CHECK(pool.apply(is_locked<RLock>, lock));
  go_on.set();
  holder.get();
}

TEST_CASE("_TestLock.test_lock_context: a guard has it in its scope", "") {
  Lock lock;
  {
    const std::scoped_lock guard(lock);
    CHECK(lock.locked());
  }
  CHECK_FALSE(lock.locked());
}

TEST_CASE("_TestLock.test_rlock_context: a guard has it in its scope", "") {
  RLock lock;
  {
    const std::scoped_lock guard(lock);
    CHECK(lock.locked());
  }
  CHECK_FALSE(lock.locked());
}

// ---- _TestSemaphore ----

TEST_CASE("_TestSemaphore.test_semaphore: it counts, above its first value too", "") {
  Semaphore semaphore{2};
  semaphore.acquire();
  CHECK(semaphore.get_value() == 1);
  semaphore.acquire();
  CHECK(semaphore.get_value() == 0);
  CHECK_FALSE(semaphore.try_lock());
  for (unsigned i = 1; i <= 4; ++i) {
    semaphore.release();
    CHECK(semaphore.get_value() == i);
  }
}

TEST_CASE("_TestSemaphore.test_bounded_semaphore: it counts, and not above its first value", "") {
  BoundedSemaphore semaphore{2};
  semaphore.acquire();
  semaphore.acquire();
  CHECK(semaphore.get_value() == 0);
  CHECK_FALSE(semaphore.try_lock());
  semaphore.release();
  semaphore.release();
  CHECK(semaphore.get_value() == 2);
  CHECK_THROWS_AS(semaphore.release(), std::logic_error);
}

TEST_CASE("_TestSemaphore.test_timeout: nothing to acquire, in all forms", "") {
  Semaphore semaphore{0};
  CHECK_FALSE(semaphore.try_lock());
  CHECK_FALSE(semaphore.acquire(0s));
  CHECK_FALSE(semaphore.acquire(-1s));
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(semaphore.acquire(30ms));
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
}

// ---- _TestCondition ----

TEST_CASE("_TestCondition.test_notify: one at a time", "[workers]") {
  sleepers all;
  procpool::Pool pool{1};
  auto task = pool.apply_async(sleep_on, all.condition, all.sleeping, all.woken, -1.0);
  std::thread thread(sleep_on, all.condition, all.sleeping, all.woken, -1.0);
  REQUIRE(all.sleep(2));
  CHECK(all.woken.get_value() == 0);
  all.notify(1);
  CHECK(all.woke(1));
  all.notify(1);
  CHECK(all.woke(2));
  task.get();
  thread.join();
  CHECK(all.condition.waiting() == 0);
}

TEST_CASE("_TestCondition.test_notify_all: those whose time is over, then all others",
          "[workers]") {
  sleepers all;
  procpool::Pool pool{3};
  for (const double timeout : {0.02, -1.0}) {
    std::vector<procpool::AsyncResult<bool>> tasks;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      tasks.push_back(pool.apply_async(sleep_on, all.condition, all.sleeping, all.woken, timeout));
      threads.emplace_back(sleep_on, all.condition, all.sleeping, all.woken, timeout);
    }
    if (timeout < 0) {
      REQUIRE(all.sleep(12));
      const std::scoped_lock held(all.condition);
      all.condition.notify_all();
    }
    for (auto& each : tasks) CHECK(each.get(long_time) == (timeout < 0));
    for (auto& each : threads) each.join();
  }
  CHECK(all.woke(12));
  CHECK(all.condition.waiting() == 0);
}

TEST_CASE("_TestCondition.test_notify_n: two, then four, then nobody", "[workers]") {
  sleepers all;
  procpool::Pool pool{3};
  std::vector<procpool::AsyncResult<bool>> tasks;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    tasks.push_back(pool.apply_async(sleep_on, all.condition, all.sleeping, all.woken, -1.0));
    threads.emplace_back(sleep_on, all.condition, all.sleeping, all.woken, -1.0);
  }
  REQUIRE(all.sleep(6));
  all.notify(2);
  CHECK(all.woke(2));
  CHECK(all.condition.waiting() == 4);
  all.notify(4);
  CHECK(all.woke(6));
  all.notify(3);
  CHECK(all.woken.get_value() == 6);
  for (auto& each : tasks) each.get();
  for (auto& each : threads) each.join();
}

TEST_CASE("_TestCondition.test_timeout: a wait is over after its time", "") {
  Condition condition;
  const std::scoped_lock held(condition);
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(condition.wait(30ms));
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
}

TEST_CASE("_TestCondition.test_waitfor: until a Value is as it should be", "[workers]") {
  Condition condition;
  Value<int> state{-1};
  procpool::Pool pool{1};
  auto waiter = pool.apply_async(wait_for_four, condition, state);
  {
    const std::scoped_lock held(condition);
    CHECK(condition.wait_for([&] { return state.value() == 0; }));
  }
  for (int i = 0; i < 4; ++i) {
    std::this_thread::sleep_for(2ms);
    const std::scoped_lock held(condition);
    state.value() += 1;
    condition.notify();
  }
  CHECK(waiter.get(long_time));
}

TEST_CASE("_TestCondition.test_waitfor_timeout: it never is", "[workers]") {
  Condition condition;
  Value<int> state{0};
  Semaphore ready{0};
  procpool::Pool pool{1};
  auto waiter = pool.apply_async(wait_for_never, condition, state, ready);
  ready.acquire();
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(5ms);
    const std::scoped_lock held(condition);
    state.value() += 1;
    condition.notify();
  }
  CHECK(waiter.get(long_time));
}

TEST_CASE("_TestCondition.test_wait_result: whether it was notified", "[workers]") {
  sleepers all;
  {
    const std::scoped_lock held(all.condition);
    CHECK_FALSE(all.condition.wait(0s));
    CHECK_FALSE(all.condition.wait(10ms));
  }
  procpool::Pool pool{1};
  auto task = pool.apply_async(sleep_on, all.condition, all.sleeping, all.woken, 60.0);
  REQUIRE(all.sleep(1));
  all.notify(1);
  CHECK(task.get(long_time));
}

// ---- _TestEvent ----

TEST_CASE("_TestEvent.test_event: not set, set, cleared, set by another", "[workers]") {
  Event event;
  CHECK_FALSE(event.is_set());
  CHECK_FALSE(event.wait(0s));
  CHECK_FALSE(event.wait(10ms));
  event.set();
  CHECK(event.is_set());
  CHECK(event.wait(0s));
  CHECK(event.wait(10ms));
  event.clear();
  procpool::Pool pool{1};
  auto setter = pool.apply_async(set_it, event);
  event.wait();
  CHECK(event.is_set());
  setter.get();
}

// ---- _TestBarrier ----

TEST_CASE("_TestBarrier.test_barrier: five pass in step", "[workers]") {
  const Barrier barrier{parties};
  CHECK(in_all(pass, barrier, Value<long>{0}, Value<long>{0}, 1) == std::vector(parties, 1));
  CHECK(barrier.n_waiting() == 0);
  CHECK_FALSE(barrier.broken());
}

TEST_CASE("_TestBarrier.test_barrier_10: ten times", "[workers]") {
  const Barrier barrier{parties};
  CHECK(in_all(pass, barrier, Value<long>{0}, Value<long>{0}, 10) == std::vector(parties, 10));
}

TEST_CASE("_TestBarrier.test_wait_return: one of them is the first", "[workers]") {
  auto places = in_all(place_of, Barrier{parties});
  std::ranges::sort(places);
  CHECK(places == std::vector{0, 1, 2, 3, 4});
}

TEST_CASE("_TestBarrier.test_action: it runs once", "[workers]") {
  const support::shared<std::atomic<int>> memory;
  action_runs = memory.get();
  const Barrier barrier(parties, [] { ++*action_runs.get(); });
  in_all(place_of, barrier);
  CHECK(*memory == 1);
}

TEST_CASE("_TestBarrier.test_abort: one aborts, the others are told", "[workers]") {
  const Barrier barrier{parties};
  auto results = with_one_other(meet_or_abort, barrier);
  CHECK(results[0] == 3);
  results[0] = 2;
  CHECK(results == std::vector(parties, 2));
  CHECK(barrier.broken());
}

TEST_CASE("_TestBarrier.test_reset: those who wait are told, then all pass", "[workers]") {
  const Barrier barrier{parties};
  const Barrier again{parties};
  procpool::Pool pool{parties};
  std::vector<procpool::AsyncResult<int>> results;
  for (int i = 0; i < parties; ++i) {
    results.push_back(pool.apply_async(meet_twice, barrier, again, i == 0));
  }
  for (auto& each : results) CHECK(each.get(long_time) == 2);
  CHECK_FALSE(barrier.broken());
}

TEST_CASE("_TestBarrier.test_abort_and_reset: a broken one works again", "[workers]") {
  Barrier barrier{parties};
  static_cast<void>(with_one_other(meet_or_abort, barrier));
  CHECK(barrier.broken());
  barrier.reset();
  CHECK(in_all(pass, barrier, Value<long>{0}, Value<long>{0}, 1) == std::vector(parties, 1));
}

TEST_CASE("_TestBarrier.test_timeout: one is late, and it breaks for all", "[workers]") {
  const Barrier barrier{parties};
  CHECK(with_one_other([](Barrier b, bool late) { return come_late(b, late, true); }, barrier) ==
        std::vector(parties, 2));
}

TEST_CASE("_TestBarrier.test_default_timeout: the timeout it was made with", "[workers]") {
  const Barrier barrier(parties, 50ms);
  CHECK(with_one_other([](Barrier b, bool late) { return come_late(b, late, false); }, barrier) ==
        std::vector(parties, 2));
}

TEST_CASE("_TestBarrier.test_single_thread: alone it never waits", "") {
  Barrier barrier{1};
  CHECK(barrier.wait() == 0);
  CHECK(barrier.wait() == 0);
}

TEST_CASE("_TestBarrier.test_thousand: a thousand times, none is ahead", "[workers]") {
  CHECK(in_all(thousand_times, Barrier{parties}, Value<long>{0}) ==
        std::vector<bool>(parties, true));
}
