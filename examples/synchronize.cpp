// SPDX-License-Identifier: MIT
//
// Locks and shared variables: workers count together, a killed one leaves nobody waiting.
//
//     counter = Value("l", 0)
//     def count(times):
//         for _ in range(times):
//             with counter.get_lock():
//                 counter.value += 1

#include <fmt/core.h>

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <vector>

#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

/// A task. Handles are arguments as any other.
void count(procpool::Value<long> counter, int times) {
  for (int i = 0; i < times; ++i) counter.update([](long& v) { ++v; });
}

/// A task: waits until all have come, then says who was the first.
int meet(procpool::Barrier barrier) {
  return barrier.wait();
}

/// A process that is killed while it has the lock.
void die_with(procpool::Lock lock) {
  lock.acquire();
  ::kill(::getpid(), SIGKILL);
}

/// A process that waits until there is work.
void work_when_there_is_some(procpool::Condition condition, procpool::Value<int> work) {
  std::unique_lock held(condition);
  condition.wait(held, [&] { return work.value() > 0; });
  work.value() -= 1;
}

int main() {
  procpool::Pool pool{3};
  const procpool::Value<long> counter{0};
  std::vector<procpool::AsyncResult<void>> counts;
  for (int i = 0; i < 6; ++i) counts.push_back(pool.apply_async(count, counter, 1000));
  for (auto& each : counts) each.get();
  fmt::print("counted to {}\n", counter.get());

  const procpool::Barrier barrier{3};
  std::vector<procpool::AsyncResult<int>> places;
  for (int i = 0; i < 3; ++i) places.push_back(pool.apply_async(meet, barrier));
  int sum = 0;
  for (auto& each : places) sum += each.get();
  fmt::print("places 0, 1 and 2 add up to {}\n", sum);

  procpool::Lock lock;
  procpool::Process victim(die_with, lock);
  victim.start();
  victim.join();
  const bool taken = lock.acquire(10s);
  fmt::print("taken: {}, its owner died: {}, {}\n", taken, lock.owner_died(), lock);
  lock.consistent();  // what it guards is in order
  lock.release();

  procpool::Condition condition;
  procpool::Value<int> work{0};
  procpool::Process worker(work_when_there_is_some, condition, work);
  worker.start();
  {
    const std::scoped_lock held(condition);
    work.value() += 1;
    condition.notify();
  }
  worker.join();
  fmt::print("left to do: {}\n", work.get());
}
