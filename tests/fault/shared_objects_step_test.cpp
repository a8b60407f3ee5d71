// SPDX-License-Identifier: MIT
// Every instruction of the operations of locks, semaphores, events, conditions, barriers and
// values: a process is killed after the first, the second ... while another one uses the same
// object. Nobody is stuck afterwards, and nothing is half-done. PROCPOOL_FULL=1 kills at every
// instruction; without it at about 150 places of each.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <procpool/procpool.hpp>

#include "fault/object_steps.hpp"
#include "support/other_process.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using fault::object_attack;
using fault::object_tally;

struct four_numbers {
  std::array<std::uint64_t, 4> all;
};

/// What the victim, its partner and the test share.
struct objects {
  procpool::Lock lock;
  procpool::RLock rlock;
  procpool::Semaphore semaphore{0};
  procpool::BoundedSemaphore bounded{1};
  procpool::Event event;
  procpool::Condition condition;
  procpool::Barrier barrier{2};
  procpool::Value<long> word{0};
  procpool::Value<four_numbers> large;
  procpool::RawValue<long> flag{0};
};
objects* all = nullptr;

// ---- the operations ----

void lock_and_unlock() {
  all->lock.acquire();
  all->lock.release();
}
void try_and_unlock() {
  if (all->lock.try_lock()) all->lock.unlock();
}
void rlock_twice() {
  const std::scoped_lock guard(all->rlock);
  const std::scoped_lock again(all->rlock);
}
void acquire_and_release_token() {
  all->bounded.acquire();
  all->bounded.release();
}
void release_semaphore() {
  all->semaphore.release();
}
void acquire_semaphore() {
  all->semaphore.acquire();
}
void set_and_clear() {
  all->event.set();
  all->event.clear();
}
void wait_for_event() {
  static_cast<void>(all->event.wait(5s));
}
void notify_two() {
  const std::scoped_lock held(all->condition);
  all->condition.notify(2);
}
void wait_for_condition() {
  std::unique_lock held(all->condition);
  all->condition.wait(held, 5s);
}
void wait_a_moment() {
  std::unique_lock held(all->condition);
  all->condition.wait(held, 0s);
}
void meet() {
  try {
    static_cast<void>(all->barrier.wait(5s));
  } catch (const procpool::BrokenBarrier&) {
  }
}
void update_word() {
  all->word.update([](long& v) { ++v; });
}
void count_on(four_numbers& v) {
  for (auto& each : v.all) ++each;
}
void update_large() {
  all->large.update(count_on);
}

// ---- the partner ----

/// A process that does something again and again.
class partner {
 public:
  explicit partner(std::function<void()> turn)
      : process_([this, turn] {
          while (!shared_->stop) {
            turn();
            ++shared_->turns;
            ::usleep(100);
          }
          return 0;
        }) {}
  ~partner() {
    shared_->stop = true;
    static_cast<void>(process_.join());
  }
  partner(const partner&) = delete;
  partner& operator=(const partner&) = delete;

  [[nodiscard]] bool goes_on() const {
    const long before = shared_->turns;
    return support::eventually([&] { return shared_->turns >= before + 2; }, 2s);
  }

 private:
  struct notes {
    std::atomic<long> turns;
    std::atomic<bool> stop;
  };
  support::shared<notes> shared_;
  support::other_process process_;
};

void attack(const char* name, fault::operation operate, std::function<void()> turn,
            std::function<std::string()> look) {
  const partner other(std::move(turn));
  const object_tally tally =
      fault::kill_at_every_instruction({.operate = operate, .survive = [&]() -> std::string {
                                          procpool::detail::collect_dead_processes();
                                          if (!other.goes_on()) return "the partner is stuck";
                                          return look();
                                        }});
  std::printf("%s: %zu instructions, %zu kills, %zu wrong, the survivors took at most %lld us\n",
              name, tally.instructions, tally.kills, tally.complaints.size(),
              static_cast<long long>(tally.longest.count()));
  for (const std::string& each : tally.complaints) UNSCOPED_INFO(each);
  CHECK(tally.complaints.empty());
  CHECK(tally.longest < 2s);
}

template <class L>
std::string can_be_taken(L& lock) {
  if (!lock.acquire(2s)) return "the lock is stuck";
  lock.consistent();
  lock.release();
  return {};
}

void turn_of_barrier() {
  try {
    static_cast<void>(all->barrier.wait(200ms));
  } catch (const procpool::BrokenBarrier&) {
    all->barrier.reset();
  }
}

std::string barrier_works() {
  const auto until = std::chrono::steady_clock::now() + 3s;
  while (std::chrono::steady_clock::now() < until) {
    try {
      static_cast<void>(all->barrier.wait(1s));
      return {};
    } catch (const procpool::BrokenBarrier&) {
      all->barrier.reset();
    }
  }
  return "the barrier lets nobody pass";
}

std::string condition_works() {
  std::unique_lock held(all->condition, 2s);
  if (!held.owns_lock()) return "the condition's lock is stuck";
  if (!all->condition.wait(held, 2s)) return "no notification arrives";
  return {};
}

}  // namespace

TEST_CASE("a process is killed at every instruction of what it does with shared objects",
          "[limit:300]") {
  if (support::address_sanitizer || support::thread_sanitizer) return;
  if (const std::string why = fault::tracing_refused(); !why.empty()) {
    WARN("processes cannot be traced here: " << why);
    return;
  }
  const auto objects_of_test = std::make_unique<objects>();
  all = objects_of_test.get();

  attack("Lock: acquire, release", &lock_and_unlock, lock_and_unlock,
         [] { return can_be_taken(all->lock); });
  attack("Lock: try_lock, unlock", &try_and_unlock, lock_and_unlock,
         [] { return can_be_taken(all->lock); });
  attack("RLock: twice", &rlock_twice, rlock_twice, [] { return can_be_taken(all->rlock); });
  attack("BoundedSemaphore: acquire, release", &acquire_and_release_token,
         acquire_and_release_token, [] {
           if (!all->bounded.acquire(2s)) return std::string("the token is lost");
           all->bounded.release();
           return std::string();
         });
  const auto let_one_pass = [] { static_cast<void>(all->semaphore.acquire(1ms)); };
  attack("Semaphore: release", &release_semaphore, let_one_pass, [] { return std::string(); });
  attack(
      "Semaphore: acquire", &acquire_semaphore, [] { all->semaphore.release(); },
      [] { return all->semaphore.acquire(2s) ? "" : "the semaphore is stuck"; });
  const auto wait_for_set = [] { static_cast<void>(all->event.wait(1ms)); };
  attack("Event: set, clear", &set_and_clear, wait_for_set, [] {
    all->event.set();
    const bool seen = all->event.wait(0s);
    all->event.clear();
    return seen ? "" : "the event is not set";
  });
  attack("Event: wait", &wait_for_event, set_and_clear,
         [] { return all->event.wait(2s) ? "" : "no set() is seen"; });
  attack(
      "Condition: notify", &notify_two,
      [] {
        std::unique_lock held(all->condition);
        all->condition.wait(held, 2ms);
      },
      [] { return can_be_taken(all->condition); });
  attack("Condition: wait", &wait_for_condition, notify_two, condition_works);
  attack("Condition: a wait without time", &wait_a_moment, notify_two, condition_works);
  attack("Barrier: wait", &meet, turn_of_barrier, barrier_works);
  attack("Value: update of a word", &update_word, update_word, [] {
    const long before = all->word.get();
    return all->word.update([](long& v) { v += 1; }) > before ? "" : "an update is lost";
  });
  attack("Value: update of 32 bytes", &update_large, update_large, [] {
    const auto now = all->large.get();
    for (const auto each : now.all) {
      if (each != now.all[0]) return "the value is half-written";
    }
    return all->large.update(count_on).all[0] > now.all[0] ? "" : "an update is lost";
  });
}
