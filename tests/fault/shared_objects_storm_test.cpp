// SPDX-License-Identifier: MIT
// Processes use one shared object each as fast as they can, and are killed at random moments, most
// of them without anybody being told. The others go on, and what the object promises holds.
// PROCPOOL_FULL=1: 2,000 kills for each object; without it 200.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/other_process.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"
#include "support/watchdog.hpp"

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using support::other_process;

constexpr std::size_t crowd = 4;

struct notes {
  std::array<std::atomic<std::uint64_t>, crowd> turns;
  std::atomic<int> wrong;
  std::atomic<bool> stop;
};
notes* book = nullptr;

int kills() {
  if (std::getenv("PROCPOOL_FULL") != nullptr) return 2000;
  return support::address_sanitizer || support::thread_sanitizer ? 40 : 200;
}

/// @p turn is what each does again and again; @p number is which of them it is.
void storm(const char* name, const std::function<void(std::size_t number)>& turn) {
  support::extend_limit(120s);
  const support::shared<notes> memory;
  book = memory.get();
  std::vector<std::unique_ptr<other_process>> all(crowd);
  const auto start = [&](std::size_t number) {
    all[number] = std::make_unique<other_process>([&turn, number] {
      while (!book->stop) {
        turn(number);
        ++book->turns[number];
      }
      return 0;
    });
  };
  for (std::size_t i = 0; i < crowd; ++i) start(i);
  std::mt19937 random(std::random_device{}());
  const auto total = [] {
    std::uint64_t sum = 0;
    for (const auto& each : book->turns) sum += each;
    return sum;
  };
  clock_type::duration longest{};
  int stuck = 0;
  const int planned = kills();
  for (int i = 0; i < planned && stuck == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    const std::size_t victim = random() % crowd;
    all[victim]->kill();
    if (random() % 4 == 0) {
      static_cast<void>(all[victim]->join());
    } else {
      all[victim]->kill_untold();
    }
    const std::uint64_t before = total();
    const auto begin = clock_type::now();
    while (total() < before + 3 && clock_type::now() < begin + 5s) std::this_thread::yield();
    longest = std::max(longest, clock_type::now() - begin);
    if (total() < before + 3) ++stuck;
    if (i % 16 == 0) procpool::detail::collect_dead_processes();
    start(victim);
  }
  book->stop = true;
  for (const auto& each : all) CHECK(each->join() == 0);
  std::printf(
      "storm, %s: %d kills, %llu turns, %d stuck, %d wrong, survivors waited at most %lld ms\n",
      name, planned, static_cast<unsigned long long>(total()), stuck, book->wrong.load(),
      static_cast<long long>(
          std::chrono::duration_cast<std::chrono::milliseconds>(longest).count()));
  CHECK(stuck == 0);
  CHECK(book->wrong == 0);
}

struct two_numbers {
  std::atomic<long> a;
  std::atomic<long> b;
};

/// Not more than one at a time is here, and who comes after a death is told.
template <class L>
void guarded(L& lock, two_numbers& pair) {
  if (lock.owner_died()) {
    pair.b = pair.a.load();
    lock.consistent();
  }
  if (pair.a != pair.b) ++book->wrong;
  ++pair.a;
  if (pair.a != pair.b + 1) ++book->wrong;
  ++pair.b;
}

template <class L>
void storm_of_locks(const char* name) {
  L lock;
  const support::shared<two_numbers> pair;
  storm(name, [&](std::size_t) {
    lock.acquire();
    guarded(lock, *pair);
    lock.release();
  });
}

}  // namespace

TEST_CASE("storm: Lock", "[limit:120]") {
  storm_of_locks<procpool::Lock>("Lock");
}
TEST_CASE("storm: RLock", "[limit:120]") {
  storm_of_locks<procpool::RLock>("RLock");
}

TEST_CASE("storm: BoundedSemaphore", "[limit:120]") {
  procpool::BoundedSemaphore semaphore{2};
  storm("BoundedSemaphore", [&](std::size_t) {
    semaphore.acquire();
    semaphore.release();
  });
  CHECK(support::eventually([&] { return semaphore.acquire(10ms) && semaphore.acquire(10ms); }));
  CHECK_FALSE(semaphore.acquire(10ms));
}

TEST_CASE("storm: Semaphore", "[limit:120]") {
  // A signal: half of them raise it, the others wait for it.
  procpool::Semaphore semaphore{0};
  storm("Semaphore", [&](std::size_t number) {
    if (number % 2 == 0) {
      if (semaphore.get_value() < 1000) semaphore.release();
    } else {
      static_cast<void>(semaphore.acquire(100ms));
    }
  });
}

TEST_CASE("storm: Event", "[limit:120]") {
  procpool::Event event;
  storm("Event", [&](std::size_t number) {
    if (number == 0) {
      event.set();
      event.clear();
    } else {
      static_cast<void>(event.wait(100ms));
    }
  });
}

TEST_CASE("storm: Condition", "[limit:120]") {
  procpool::Condition condition;
  const support::shared<two_numbers> pair;
  storm("Condition", [&](std::size_t number) {
    std::unique_lock held(condition);
    guarded(condition, *pair);
    if (number % 2 == 0) {
      condition.notify(1 + number);
    } else {
      static_cast<void>(condition.wait(held, 100ms));
    }
  });
  std::unique_lock held(condition, 5s);
  CHECK(held.owns_lock());
}

TEST_CASE("storm: Barrier", "[limit:120]") {
  procpool::Barrier barrier{2};
  storm("Barrier", [&](std::size_t) {
    try {
      static_cast<void>(barrier.wait(1s));
    } catch (const procpool::BrokenBarrier&) {
      barrier.reset();
    }
  });
}

TEST_CASE("storm: Value", "[limit:120]") {
  struct numbers {
    std::array<std::uint64_t, 12> all;
  };
  procpool::Value<long> word{0};
  procpool::Value<numbers> large;
  storm("Value", [&](std::size_t) {
    word.update([](long& v) { ++v; });
    large.update([](numbers& v) {
      for (auto& each : v.all) ++each;
    });
    const auto now = large.get();
    if (std::ranges::count(now.all, now.all[0]) != 12) ++book->wrong;
  });
}

TEST_CASE("a notification outlives any number of those who were notified", "[limit:120]") {
  // Many wait; one is notified and killed before it has the lock. Another one has to go on.
  const int rounds = std::max(10, kills() / 10);
  procpool::Condition condition;
  std::mt19937 random(5);
  const support::shared<std::atomic<int>> went_on;
  const support::shared<std::atomic<std::uint32_t>> came;
  int lost = 0;
  for (int round = 0; round < rounds; ++round) {
    *went_on = 0;
    *came = 0;
    std::vector<std::unique_ptr<other_process>> all;
    for (std::uint32_t i = 0; i < 3; ++i) {
      all.push_back(std::make_unique<other_process>([&] {
        std::unique_lock held(condition);
        ++*came;  // it waits when the lock is free again
        condition.wait(held);
        ++*went_on;
        return 0;
      }));
      CHECK(support::eventually([&] { return *came == i + 1; }));
    }
    {
      const std::scoped_lock held(condition);
      condition.notify();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      all[0]->kill_untold();
    }
    if (!support::eventually([&] { return *went_on >= 1; }, 2s)) ++lost;
    for (const auto& each : all) each->kill_untold();
    procpool::detail::collect_dead_processes();
    std::unique_lock held(condition, 5s);
    REQUIRE(held.owns_lock());
    condition.consistent();
  }
  std::printf("notifications: %d were passed on, %d lost\n", rounds - lost, lost);
  CHECK(lost == 0);
}
