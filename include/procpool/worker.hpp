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

/// A worker of a pool, as its tasks see it.
class WorkerContext {
 public:
  /// For the pool. @param started where the worker says which item it runs, see started_mark()
  WorkerContext(std::string name, std::uint32_t index, std::uint64_t seed,
                const std::atomic<std::uint64_t>& started)
      : name_(std::move(name)), index_(index), seed_(seed), started_(&started) {}
  WorkerContext(const WorkerContext&) = delete;
  WorkerContext& operator=(const WorkerContext&) = delete;

  /// "PoolWorker-3": also current_process().name().
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Its place in the pool, from 0; a replacement has the place of the one that died.
  [[nodiscard]] int index() const noexcept { return static_cast<int>(index_); }
  /// Which attempt at the item that runs this is: 1, or more after a worker died of it and
  /// `retries` allowed another one.
  [[nodiscard]] int attempt() const noexcept { return attempt_; }

  /// The number of the item that runs among all items ever submitted to the pool, from 0, in the
  /// order of submission: an apply takes one number, a map of n items n of them, one behind the
  /// other, an imap one for each item as it takes it from its input. The same for each attempt.
  /// @throws std::logic_error in an initializer, which is no item
  [[nodiscard]] std::uint64_t task_number() const {
    if (first_number_ != detail::unnumbered) return first_number_ + detail::started_item(running());
    throw std::logic_error("no item of a pool runs here: an initializer has no task number");
  }
  /// The pool's seed, see pool_options::seed: for a generator of your own.
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
  /// A std::mt19937_64 that is fresh for each item, and depends on seed() and task_number() only.
  /// Defined in <procpool/random.hpp>, which is not part of <procpool/procpool.hpp>.
  auto& random() const;

  /// For the pool: a frame begins, whose item 0 has this number.
  void begin_frame(std::uint64_t first_number) noexcept { first_number_ = first_number; }
  /// For the pool: how many frames there are in whose midst this one runs.
  void set_depth(std::uint64_t depth) noexcept { depth_ = depth; }
  /// For the pool: an item begins.
  void begin_item(int attempt) noexcept { attempt_ = attempt; }
  /// For the pool: the worker leaves in order.
  void leave() noexcept {
    first_number_ = detail::unnumbered;
    locals_.clear();
  }
  /// What the worker keeps from task to task: for worker_local.
  [[nodiscard]] detail::worker_locals& locals() const noexcept { return locals_; }

 private:
  // Written by this very thread.
  [[nodiscard]] std::uint64_t running() const noexcept {
    return started_->load(std::memory_order_relaxed);  // its own word
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

/// The worker that runs the calling task. On the task's own thread only; threads and processes that
/// a task starts are no workers. @throws std::logic_error outside of a task
[[nodiscard]] inline const WorkerContext& current_worker() {
  if (const WorkerContext* const worker = detail::running_worker) return *worker;
  throw std::logic_error("current_worker() was called outside of a task of a pool");
}

}  // namespace procpool
