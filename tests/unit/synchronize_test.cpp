// SPDX-License-Identifier: MIT
// Semaphore, BoundedSemaphore, Event, Condition, Barrier: what they do, and when a process dies.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>

#include "support/other_process.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::Barrier;
using procpool::BoundedSemaphore;
using procpool::BrokenBarrier;
using procpool::Condition;
using procpool::Event;
using procpool::Lock;
using procpool::RLock;
using procpool::Semaphore;
using support::eventually;
using support::in_other_process;
using support::other_process;
using support::shared;
using clock_type = std::chrono::steady_clock;

constexpr auto never = 30s;

using processes = std::vector<std::unique_ptr<other_process>>;

processes start(int count, const std::function<int()>& body) {
  processes all;
  for (int i = 0; i < count; ++i) all.push_back(std::make_unique<other_process>(body));
  return all;
}

/// How many of them end with 0.
long joined(const processes& all) {
  return std::ranges::count_if(all, [](const auto& each) { return each->join() == 0; });
}

int meet(const Barrier& barrier) {
  Barrier here = barrier;
  try {
    static_cast<void>(here.wait());
    return 0;
  } catch (const BrokenBarrier&) {
    return 5;
  }
}

template <class Handle>
Handle sent(const Handle& handle) {
  procpool::detail::byte_buffer bytes;
  procpool::encoder(bytes).put(handle);
  procpool::decoder in({bytes.data(), bytes.size()});
  return in.get<Handle>();
}

// Tasks.
int use_all(Lock lock, Semaphore semaphore, BoundedSemaphore bounded, Event event, Barrier barrier,
            Condition condition) {
  const std::scoped_lock guard(lock, condition);
  semaphore.acquire();
  bounded.acquire();
  bounded.release();
  event.wait();
  return barrier.wait();
}

void throws_in_barrier() {
  throw std::runtime_error("the action");
}

}  // namespace

TEST_CASE("a Semaphore counts, above its first value too") {
  Semaphore semaphore{2};
  CHECK(semaphore.get_value() == 2);
  semaphore.acquire();
  CHECK(semaphore.try_lock());
  CHECK(semaphore.locked());
  CHECK_FALSE(semaphore.try_lock());
  CHECK_FALSE(semaphore.acquire(5ms));
  CHECK_FALSE(semaphore.acquire(-5ms));
  semaphore.release(4);
  CHECK(semaphore.get_value() == 4);
  CHECK(in_other_process([&] {
          semaphore.acquire();
          return 0;
        }) == 0);
  CHECK(semaphore.get_value() == 3);
  CHECK(Semaphore().get_value() == 1);
  CHECK_THROWS_AS(Semaphore(-1), std::invalid_argument);
  CHECK_THROWS_AS(Semaphore(1ULL << 31U), std::invalid_argument);
  Semaphore full{(1ULL << 31U) - 1};
  CHECK_THROWS_AS(full.release(), std::logic_error);
}

TEST_CASE("each release of a Semaphore lets one that waits go on") {
  Semaphore semaphore{0};
  Semaphore passed{0};
  const auto all = start(6, [&] {
    semaphore.acquire();
    passed.release();
    return 0;
  });
  for (unsigned i = 1; i <= 3; ++i) {
    semaphore.release();
    CHECK(eventually([&] { return passed.get_value() == i; }));
  }
  semaphore.release(3);
  CHECK(joined(all) == 6);
  CHECK(semaphore.get_value() == 0);
}

TEST_CASE("a BoundedSemaphore has so many tokens and no more") {
  for (const unsigned value : {1U, 2U, 58U, 59U, 1000U}) {
    BoundedSemaphore semaphore{value};
    CHECK(semaphore.max_value() == value);
    CHECK_THROWS_AS(semaphore.release(), std::logic_error);
    for (unsigned i = 0; i < value; ++i) REQUIRE(semaphore.try_lock());
    CHECK(semaphore.get_value() == 0);
    CHECK(semaphore.locked());
    CHECK_FALSE(semaphore.try_lock());
    CHECK_FALSE(semaphore.acquire(2ms));
    BoundedSemaphore copy = sent(semaphore);
    CHECK(copy == semaphore);
    for (unsigned i = 0; i < value; ++i) copy.release();
    CHECK(semaphore.get_value() == value);
    CHECK_THROWS_AS(semaphore.release(), std::logic_error);
  }
  BoundedSemaphore none{0};
  CHECK_FALSE(none.try_lock());
  CHECK_FALSE(none.acquire(1ms));
  CHECK_THROWS_AS(none.release(), std::logic_error);
  CHECK_THROWS_AS(BoundedSemaphore(1U << 21U), std::invalid_argument);
}

TEST_CASE("another process may release a token, and its own ones first") {
  BoundedSemaphore semaphore{3};
  semaphore.acquire();
  semaphore.acquire();
  CHECK(in_other_process([&] {
          semaphore.release();
          return semaphore.get_value() == 2 ? 0 : 1;
        }) == 0);
  CHECK(semaphore.get_value() == 2);
}

TEST_CASE("the tokens of a dead process come back") {
  for (const bool told : {true, false}) {
    BoundedSemaphore semaphore{3};
    semaphore.acquire();
    other_process owner([&] {
      semaphore.acquire();
      semaphore.acquire();
      pause();
      return 0;
    });
    REQUIRE(eventually([&] { return semaphore.get_value() == 0; }));
    other_process waiter([&] { return semaphore.acquire(never) ? 0 : 1; });
    std::this_thread::sleep_for(5ms);
    owner.kill_untold();
    if (told) procpool::detail::process_was_reaped(owner.pid());
    CHECK(waiter.join() == 0);
    CHECK(semaphore.acquire(never));
    CHECK(eventually([&] { return semaphore.try_lock(); }));
    CHECK(semaphore.get_value() == 0);
  }
}

TEST_CASE("an Event is set, cleared and waited for") {
  Event event;
  CHECK_FALSE(event.is_set());
  CHECK_FALSE(event.wait(0s));
  CHECK_FALSE(event.wait(3ms));
  CHECK_FALSE(event.wait(-3ms));
  event.set();
  event.set();
  CHECK(event.is_set());
  CHECK(event.wait(0s));
  event.wait();
  event.clear();
  CHECK_FALSE(event.is_set());
  CHECK(in_other_process([&] {
          event.set();
          return 0;
        }) == 0);
  CHECK(event.wait(never));
}

TEST_CASE("a set() that is followed by a clear() wakes all that wait") {
  Event event;
  const shared<std::atomic<int>> waiting;
  const auto all = start(5, [&] {
    ++*waiting;
    return event.wait(never) ? 0 : 1;
  });
  REQUIRE(eventually([&] { return *waiting == 5; }));
  std::this_thread::sleep_for(20ms);
  event.set();
  event.clear();
  CHECK(joined(all) == 5);
  CHECK_FALSE(event.is_set());
}

TEST_CASE("a Condition needs its lock") {
  Condition condition;
  CHECK_THROWS_AS(condition.notify(), std::logic_error);
  CHECK_THROWS_AS(condition.notify_all(), std::logic_error);
  CHECK_THROWS_AS(condition.wait(), std::logic_error);
  CHECK_THROWS_AS(condition.release(), std::logic_error);
  std::unique_lock held(condition, std::defer_lock);
  CHECK_THROWS_AS(condition.wait(held), std::logic_error);
  Condition other;
  std::unique_lock others(other);
  CHECK_THROWS_AS(condition.wait(others), std::logic_error);
  Lock lock;
  Condition with_lock(lock);
  CHECK_THROWS_AS(with_lock.notify(), std::logic_error);
  std::unique_lock guard(lock);
  CHECK(with_lock.locked());
  with_lock.notify();
  CHECK_FALSE(with_lock.wait(guard, 0s));
  Lock another;
  std::unique_lock wrong(another);
  CHECK_THROWS_AS(with_lock.wait(wrong), std::logic_error);
}

TEST_CASE("a wait ends with its time, and has the lock again, as often as before") {
  Condition condition;
  std::unique_lock held(condition);
  condition.acquire();
  CHECK_FALSE(condition.wait(held, 5ms));
  CHECK_FALSE(condition.wait(held, 0s));
  CHECK_FALSE(condition.wait(-1s));
  CHECK_FALSE(condition.wait(
      held, [] { return false; }, 5ms));
  CHECK(condition.wait(
      held, [] { return true; }, 5ms));
  CHECK(condition.wait_for([] { return true; }));
  condition.release();
  CHECK(condition.locked());
  held.unlock();
  CHECK_FALSE(condition.locked());
  CHECK(condition.waiting() == 0);
}

TEST_CASE("notify(n) wakes exactly the n that have waited longest") {
  Condition condition;
  const shared<std::atomic<unsigned>> woken;  // a bit each
  processes all;
  for (unsigned i = 0; i < 6; ++i) {
    all.push_back(std::make_unique<other_process>([&, i] {
      std::unique_lock held(condition);
      condition.wait(held);
      *woken |= 1U << i;
      return 0;
    }));
    REQUIRE(eventually([&] { return condition.waiting() == i + 1; }));
  }
  const auto notify = [&](unsigned count) {
    const std::scoped_lock held(condition);
    condition.notify(count);
  };
  notify(2);
  CHECK(eventually([&] { return *woken == 0b11U; }));
  CHECK(condition.waiting() == 4);
  notify(1);
  CHECK(eventually([&] { return *woken == 0b111U; }));
  notify(0);
  notify(9);
  CHECK(joined(all) == 6);
  CHECK(condition.waiting() == 0);
  notify(3);
  const std::scoped_lock held(condition);
  CHECK_FALSE(condition.wait(5ms));
}

TEST_CASE("a waiter that was killed before it was notified takes no notification") {
  for (const bool told : {true, false}) {
    Condition condition;
    const auto wait = [&] {
      std::unique_lock held(condition);
      return condition.wait(held, never) ? 0 : 1;
    };
    other_process first(wait);
    REQUIRE(eventually([&] { return condition.waiting() == 1; }));
    other_process second(wait);
    REQUIRE(eventually([&] { return condition.waiting() == 2; }));
    first.kill_untold();
    if (told) procpool::detail::process_was_reaped(first.pid());
    {
      const std::scoped_lock held(condition);
      condition.notify();
    }
    const auto begin = clock_type::now();
    CHECK(second.join() == 0);
    CHECK(clock_type::now() - begin < 5s);
  }
}

TEST_CASE("a waiter that was killed after it was notified passes it on") {
  Condition condition;
  const auto wait = [&] {
    std::unique_lock held(condition);
    return condition.wait(held, never) ? 0 : 1;
  };
  other_process first(wait);
  REQUIRE(eventually([&] { return condition.waiting() == 1; }));
  other_process second(wait);
  REQUIRE(eventually([&] { return condition.waiting() == 2; }));
  {
    const std::scoped_lock held(condition);  // the first cannot go on
    condition.notify();
    std::this_thread::sleep_for(5ms);
    first.kill_untold();
  }
  CHECK(second.join() == 0);
  CHECK(condition.waiting() == 0);
}

TEST_CASE("a Condition has room for more waiters than fit into a page") {
  Condition condition;
  constexpr unsigned count = 300;
  std::atomic<unsigned> woken = 0;
  std::vector<std::thread> all;
  for (unsigned i = 0; i < count; ++i) {
    all.emplace_back([&] {
      std::unique_lock held(condition);
      condition.wait(held);
      ++woken;
    });
  }
  CHECK(eventually([&] { return condition.waiting() == count; }));
  {
    const std::scoped_lock held(condition);
    condition.notify_all();
  }
  for (auto& each : all) each.join();
  CHECK(woken == count);
}

TEST_CASE("a Condition with an RLock or a Lock of the program") {
  RLock lock;
  Condition condition(lock);
  const shared<std::atomic<bool>> done;
  other_process other([&] {
    Condition here = sent(condition);
    std::unique_lock held(lock);
    here.wait(held, [&] { return done->load(); });
    return 0;
  });
  REQUIRE(eventually([&] { return condition.waiting() == 1; }));
  {
    const std::scoped_lock held(lock);
    *done = true;
    condition.notify();
  }
  CHECK(other.join() == 0);
}

TEST_CASE("a Barrier lets all go on together, again and again") {
  constexpr int parties = 4;
  constexpr int rounds = 200;
  Barrier barrier{parties};
  CHECK(barrier.parties() == parties);
  const shared<std::atomic<int>> came;
  const shared<std::atomic<int>> firsts;
  const auto all = start(parties, [&] {
    for (int round = 0; round < rounds; ++round) {
      ++*came;
      if (barrier.wait() == 0) ++*firsts;
      if (*came < parties * (round + 1)) return 1;
      static_cast<void>(barrier.wait());
    }
    return 0;
  });
  CHECK(joined(all) == parties);
  CHECK(*firsts == rounds);
  CHECK(barrier.n_waiting() == 0);
  CHECK_FALSE(barrier.broken());
}

TEST_CASE("a Barrier of many parties, of one party, and of none") {
  Barrier many{100};
  std::vector<std::thread> threads;
  std::atomic<int> sum = 0;
  for (int i = 0; i < 100; ++i) threads.emplace_back([&] { sum += many.wait(); });
  for (auto& each : threads) each.join();
  CHECK(sum == 99 * 100 / 2);
  Barrier one{1};
  CHECK(one.wait() == 0);
  CHECK(one.wait(0s) == 0);
  CHECK_THROWS_AS(Barrier(0), std::invalid_argument);
  CHECK_THROWS_AS(Barrier(5000), std::invalid_argument);
}

TEST_CASE("abort() and a timeout break a Barrier for all, reset() repairs it") {
  Barrier barrier{3};
  {
    const auto all = start(2, [&] { return meet(barrier); });
    REQUIRE(eventually([&] { return barrier.n_waiting() == 2; }));
    barrier.abort();
    for (const auto& each : all) CHECK(each->join() == 5);
  }
  CHECK(barrier.broken());
  CHECK_THROWS_AS(barrier.wait(), BrokenBarrier);
  barrier.reset();
  CHECK_FALSE(barrier.broken());
  {
    const auto all = start(1, [&] { return meet(barrier); });
    REQUIRE(eventually([&] { return barrier.n_waiting() == 1; }));
    CHECK_THROWS_AS(barrier.wait(10ms), BrokenBarrier);
    CHECK(all[0]->join() == 5);
    CHECK(barrier.broken());
  }
  barrier.reset();
  {
    const auto all = start(2, [&] { return meet(barrier); });
    REQUIRE(eventually([&] { return barrier.n_waiting() == 2; }));
    barrier.reset();
    for (const auto& each : all) CHECK(each->join() == 5);
    CHECK_FALSE(barrier.broken());
  }
  const auto all = start(2, [&] { return meet(barrier); });
  CHECK(barrier.wait() < 3);
  CHECK(joined(all) == 2);
  Barrier with_timeout(2, 5ms);
  CHECK_THROWS_AS(with_timeout.wait(), BrokenBarrier);
  CHECK_THROWS_AS(sent(with_timeout).wait(), BrokenBarrier);
}

TEST_CASE("the last to come runs the action, wherever it is") {
  static std::atomic<int>* count = nullptr;
  const shared<std::atomic<int>> runs;
  count = runs.get();
  Barrier barrier(3, [] { ++*count; });
  const auto all = start(2, [&] {
    Barrier here = sent(barrier);
    for (int i = 0; i < 20; ++i) static_cast<void>(here.wait());
    return 0;
  });
  for (int i = 0; i < 20; ++i) {
    static_cast<void>(barrier.wait());
    CHECK(*count >= i + 1);
  }
  CHECK(joined(all) == 2);
  CHECK(*count == 20);
  Barrier throwing(1, [] { throws_in_barrier(); });
  CHECK_THROWS_AS(throwing.wait(), std::runtime_error);
  CHECK(throwing.broken());
}

TEST_CASE("a death at a Barrier breaks it for those who wait") {
  for (const bool told : {true, false}) {
    Barrier barrier{4};
    other_process victim([&] { return meet(barrier); });
    REQUIRE(eventually([&] { return barrier.n_waiting() == 1; }));
    const auto all = start(2, [&] { return meet(barrier); });
    REQUIRE(eventually([&] { return barrier.n_waiting() == 3; }));
    victim.kill_untold();
    if (told) procpool::detail::process_was_reaped(victim.pid());
    for (const auto& each : all) CHECK(each->join() == 5);
    CHECK(barrier.broken());
  }
}

TEST_CASE("a death in the action of a Barrier breaks it") {
  Barrier barrier(2, [] { ::kill(::getpid(), SIGKILL); });
  other_process waiter([&] { return meet(barrier); });
  REQUIRE(eventually([&] { return barrier.n_waiting() == 1; }));
  CHECK(in_other_process([&] { return meet(barrier); }) == -SIGKILL);
  CHECK(waiter.join() == 5);
  CHECK_THROWS_AS(barrier.wait(1ms), BrokenBarrier);
  barrier.reset();
  CHECK(barrier.n_waiting() == 0);
}

TEST_CASE("all of them travel to tasks, forked and spawned") {
  for (const auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    Semaphore semaphore{2};
    Event event;
    const Condition condition;
    const Barrier barrier{1};
    auto result = pool.apply_async(use_all, Lock(), semaphore, BoundedSemaphore(70), event, barrier,
                                   condition);
    CHECK(eventually([&] { return semaphore.get_value() == 1; }));
    event.set();
    CHECK(result.get() == 0);
  }
}

TEST_CASE("fmt: the text of a shared object has its state and its owner") {
  Semaphore semaphore{2};
  BoundedSemaphore bounded{2};
  bounded.acquire();
  Event event;
  Condition condition;
  Barrier barrier{3};
  CHECK(fmt::format("{}", semaphore) == "Semaphore(value=2)");
  CHECK(fmt::format("{}", bounded) == "BoundedSemaphore(value=1, maxvalue=2)");
  CHECK(fmt::format("{:>13}", event) == " Event(unset)");
  event.set();
  CHECK(fmt::format("{}", event) == "Event(set)");
  CHECK(fmt::format("{}", condition) == "Condition(owner=None, waiting=0)");
  CHECK(fmt::format("{}", barrier) == "Barrier(parties=3, waiting=0)");
  barrier.abort();
  CHECK(fmt::format("{}", barrier) == "Barrier(parties=3, waiting=0, broken)");
  const procpool::Value<long> value{5};
  CHECK(fmt::format("{}", value) == "Value(5, owner=None)");
  const std::scoped_lock guard(value.get_lock());
  CHECK(fmt::format("{}", value) == "Value(5, owner=MainProcess)");
  CHECK(fmt::format("{}", procpool::RawValue<int>{3}) == "RawValue(3)");
  CHECK(fmt::format("{}", procpool::Array<double>(7)) == "Array(size=7, owner=None)");
}

TEST_CASE("a handle that was moved from still stands for its object") {
  BoundedSemaphore bounded{100};
  Condition condition;
  Barrier barrier{70};
  procpool::Value<std::array<long, 50>> value;
  const auto others =
      std::tuple(std::move(bounded), std::move(condition), std::move(barrier), std::move(value));
  CHECK(bounded.get_value() == 100);      // NOLINT(bugprone-use-after-move)
  CHECK(condition.waiting() == 0);        // NOLINT
  CHECK(barrier.parties() == 70);         // NOLINT
  CHECK(value.get()[49] == 0);            // NOLINT
  CHECK(std::get<0>(others) == bounded);  // NOLINT
}

TEST_CASE("an action that the program does not have is refused") {
  procpool::detail::byte_buffer bytes;
  procpool::encoder out(bytes);
  procpool::detail::put_action(out, &throws_in_barrier);
  procpool::decoder in({bytes.data(), bytes.size()});
  CHECK_THROWS_AS(procpool::detail::get_action(in), procpool::DecodeError);
}

TEST_CASE("records that were scribbled over give wrong answers or errors, and no more") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    Semaphore semaphore{1};
    BoundedSemaphore bounded{round % 2 == 0 ? 3 : 100};
    Event event;
    Condition condition;
    Barrier barrier{3};
    const auto scribble = [&](const auto& handle, bool words) {
      const auto& object = procpool::detail::object_access::object_of(handle);
      auto& record = object->record();
      for (auto& byte : record.body) byte = static_cast<std::byte>(random());
      if (!words) return;
      for (auto& word : record.wait_words) word = static_cast<std::uint32_t>(random());
    };
    scribble(semaphore, true);
    scribble(bounded, true);
    scribble(event, true);
    scribble(barrier, round % 3 != 0);
    const auto attempt = [](const auto& what) {
      try {
        static_cast<void>(what());
      } catch (const procpool::Error&) {
      } catch (const std::logic_error&) {
      }
    };
    attempt([&] { return semaphore.acquire(1ms); });
    attempt([&] { return semaphore.release(), 0; });
    attempt([&] { return bounded.acquire(1ms); });
    attempt([&] { return bounded.release(), 0; });
    attempt([&] { return sent(bounded).get_value(); });
    attempt([&] { return event.wait(1ms); });
    attempt([&] { return event.set(), event.clear(), 0; });
    attempt([&] { return barrier.wait(1ms); });
    attempt([&] { return sent(barrier).wait(1ms); });
    scribble(condition, false);
    attempt([&] { return condition.acquire(1ms); });
    auto& cells = procpool::detail::body_as<procpool::detail::condition_state>(
        procpool::detail::object_access::object_of(condition)->record());
    cells.cell_end = static_cast<std::uint32_t>(random());
    attempt([&] { return condition.wait(1ms); });
    attempt([&] { return condition.notify(3), 0; });
    condition.unlock();
  }
}
