// SPDX-License-Identifier: MIT
/// @file
/// current_worker(): what a task can know about the worker that runs it.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/worker_locals.hpp>

namespace procpool {

/// A worker of a pool, as its tasks see it. Obtained from current_worker(); to be used on the
/// task's own thread. Python: only the name has a counterpart, current_process().name.
class WorkerContext {
 public:
  /// For the pool. @param started tells which item runs, see started_mark()
  WorkerContext(std::string name, std::uint32_t index, std::uint64_t seed,
                const std::atomic<std::uint64_t>& started)
      : name_(std::move(name)), index_(index), seed_(seed), started_(&started) {}
  WorkerContext(const WorkerContext&) = delete;
  WorkerContext& operator=(const WorkerContext&) = delete;

  /// The worker's name, such as "PoolWorker-3". The same as current_process().name().
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// The worker's index in the pool, from 0. The replacement of a dead worker has its index.
  [[nodiscard]] int index() const noexcept { return static_cast<int>(index_); }
  /// The number of this attempt at the running item, from 1. It is above 1 after a worker died
  /// while running the item and `retries` allowed another attempt.
  [[nodiscard]] int attempt() const noexcept { return attempt_; }

  /// The number of the running item among all items ever submitted to the pool, from 0, in the
  /// order of submission. An apply takes one number, a map of n items n consecutive numbers, an
  /// imap one number whenever it takes an item from its input. The same for each attempt.
  /// @throws std::logic_error in an initializer, which is not an item
  [[nodiscard]] std::uint64_t task_number() const {
    if (first_number_ != detail::unnumbered) return first_number_ + detail::started_item(running());
    throw std::logic_error("no item of a pool runs here: an initializer has no task number");
  }
  /// The pool's seed (pool_options::seed), for a generator of your own.
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
  /// A std::mt19937_64 that is new for each item and depends only on seed() and task_number().
  /// Defined in <procpool/random.hpp>, which is not part of <procpool/procpool.hpp>.
  auto& random() const;

  /// For the pool: a frame starts, whose item 0 has this number.
  void begin_frame(std::uint64_t first_number) noexcept { first_number_ = first_number; }
  /// For the pool: the number of frames inside which this one runs.
  void set_depth(std::uint64_t depth) noexcept { depth_ = depth; }
  /// For the pool: an item starts.
  void begin_item(int attempt) noexcept { attempt_ = attempt; }
  /// For the pool: the worker exits in order.
  void leave() noexcept {
    first_number_ = detail::unnumbered;
    locals_.clear();
  }
  /// For worker_local: the objects that the worker keeps across tasks.
  [[nodiscard]] detail::worker_locals& locals() const noexcept { return locals_; }

 private:
  [[nodiscard]] std::uint64_t running() const noexcept {
    return started_->load(std::memory_order_relaxed);  // this thread wrote it
  }

  std::string name_;
  std::uint32_t index_;
  int attempt_ = 1;
  std::uint64_t seed_;
  std::uint64_t first_number_ = detail::unnumbered;
  std::uint64_t depth_ = 0;
  const std::atomic<std::uint64_t>* started_;
  mutable detail::worker_locals locals_;
};

namespace detail {
/// The worker whose task the calling thread runs.
inline constinit os::per_thread_pointer<WorkerContext> running_worker{"running worker"};
inline const bool running_worker_prepared = running_worker.prepare();
}  // namespace detail

/// The worker that runs the calling task. Python: current_process() in a task.
/// @returns a reference that is valid until the task ends
/// @throws std::logic_error outside of a task, also on threads and in processes that a task starts
[[nodiscard]] inline const WorkerContext& current_worker() {
  if (const WorkerContext* const worker = detail::running_worker) return *worker;
  throw std::logic_error("current_worker() was called outside of a task of a pool");
}

}  // namespace procpool
