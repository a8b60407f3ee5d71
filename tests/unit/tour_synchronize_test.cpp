// SPDX-License-Identifier: MIT
// The tour of the API: locks and values that processes share.
#include <catch2/catch_test_macros.hpp>

#include <chrono>
#include <mutex>
#include <span>
#include <thread>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

TEST_CASE("tour: locks, semaphores, events", "[tour]") {
  procpool::Lock lock;
  { std::scoped_lock guard(lock); }
  procpool::RLock rlock;
  { std::scoped_lock guard(rlock); }
  procpool::Semaphore semaphore{2};
  { std::scoped_lock guard(semaphore); }
  procpool::BoundedSemaphore bounded{2};
  { std::scoped_lock guard(bounded); }
  lock.acquire();
  CHECK_FALSE(lock.acquire(1ms));
  CHECK_FALSE(lock.try_lock());
  lock.release();
  CHECK_FALSE(lock.locked());
  CHECK_FALSE(lock.owner_died());
  procpool::Event event;
  event.set();
  event.clear();
  CHECK_FALSE(event.is_set());
  CHECK_FALSE(event.wait(1ms));
}

TEST_CASE("tour: a condition and a barrier", "[tour]") {
  const auto ready = [] { return true; };
  procpool::Condition condition;
  {
    std::unique_lock held(condition);
    condition.wait(
        held, [&] { return ready(); }, 1s);
    condition.notify(2);
    condition.notify_all();
  }
  procpool::Barrier barrier{3};
  std::jthread second([&] { barrier.wait(); });
  std::jthread third([&] { barrier.wait(); });
  int place = barrier.wait();
  CHECK((place >= 0 && place < 3));
}

TEST_CASE("tour: values and arrays", "[tour]") {
  procpool::Value<long> counter{0};
  {
    std::scoped_lock guard(counter.get_lock());
    counter.value() += 1;
  }
  counter.update([](long& v) { ++v; });
  counter.atomic().fetch_add(1);
  CHECK(counter.value() == 3);
  procpool::Array<double> array(1000);
  array[3] = 1.5;
  std::span<double> all = array;
  CHECK(all[3] == 1.5);
  procpool::RawValue<int> raw{1};
  procpool::RawArray<int> rest(3);
  CHECK(raw.value() + rest[0] == 1);
}
