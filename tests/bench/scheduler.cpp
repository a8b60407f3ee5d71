// SPDX-License-Identifier: MIT
/// @file
/// The scheduler alone, with many simulated workers, and the memory of what waits.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

std::size_t allocated = 0;  // bytes asked of operator new and not given back; one thread

using procpool::detail::scheduled_task;
using procpool::detail::scheduler;

class simulation {
 public:
  explicit simulation(std::size_t tasks) : tasks_(tasks), scheduler_({}), random_(1) {
    for (std::uint32_t worker = 0; worker < workers; ++worker) scheduler_.add(worker);
    busy_.reserve(workers);
    where_.assign(workers, absent);
  }

  void submit_all() {
    for (auto& task : tasks_) scheduler_.submit(task);
  }

  // Always a random worker finishes what it has begun.
  void run() {
    send();
    for (finished_ = 0; finished_ < tasks_.size(); ++finished_) {
      const std::uint32_t worker = busy_[random_() % busy_.size()];
      scheduler_.finished(worker);
      if (scheduler_.front(worker) == nullptr) forget(worker);
      send();
    }
  }

  [[nodiscard]] bool done() const {
    return scheduler_.pending() == 0 && scheduler_.assigned() == 0 && busy_.empty();
  }

 private:
  static constexpr std::uint32_t workers = 10'000;
  static constexpr std::uint32_t absent = ~std::uint32_t{0};

  void send() {
    while (const auto what = scheduler_.next()) {
      if (where_[what->worker] != absent) continue;
      where_[what->worker] = static_cast<std::uint32_t>(busy_.size());
      busy_.push_back(what->worker);
    }
  }

  void forget(std::uint32_t worker) {
    const std::uint32_t at = where_[worker];
    busy_[at] = busy_.back();
    where_[busy_[at]] = at;
    busy_.pop_back();
    where_[worker] = absent;
  }

  std::vector<scheduled_task> tasks_;
  scheduler scheduler_;
  std::minstd_rand random_;
  std::vector<std::uint32_t> busy_;   // workers that have something
  std::vector<std::uint32_t> where_;  // each of them is in busy_
  std::size_t finished_ = 0;
};

void time_of_scheduler() {
  const std::size_t tasks = bench::scaled<std::size_t>(10'000'000, 1'000'000);
  simulation world(tasks);
  const double cost = bench::nanoseconds([&] {
    world.submit_all();
    world.run();
  });
  bench::require(world.done(), "the scheduler's state at the end");
  bench::report("scheduler_time", "procpool", cost / static_cast<double>(tasks), "ns");
}

// What the pool keeps for a task that waits, beside its job and its payload.
void memory_of_records() {
  constexpr std::size_t tasks = 1'000'000;
  procpool::detail::task_store store;
  const std::size_t before = allocated;
  for (std::size_t i = 0; i < tasks; ++i) static_cast<void>(store.take());
  const auto bytes = static_cast<double>(allocated - before);
  bench::report("pending_bytes", "procpool", bytes / static_cast<double>(tasks), "B");
}

}  // namespace

void* operator new(std::size_t size) {
  void* memory = std::malloc(size + sizeof(std::max_align_t));
  if (memory == nullptr) throw std::bad_alloc();
  std::memcpy(memory, &size, sizeof size);
  allocated += size;
  return static_cast<std::max_align_t*>(memory) + 1;
}
void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  void* memory = static_cast<std::max_align_t*>(pointer) - 1;
  std::size_t size = 0;
  std::memcpy(&size, memory, sizeof size);
  allocated -= size;
  std::free(memory);
}
void operator delete(void* pointer, std::size_t /*size*/) noexcept {
  operator delete(pointer);
}

BENCH_MAIN({"scheduler_time", time_of_scheduler}, {"pending_bytes", memory_of_records})
