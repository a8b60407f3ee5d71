// SPDX-License-Identifier: MIT
// Level 3: memory and rings.
/// @file
/// current_worker(): what a task can know about the worker that runs it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace procpool {

/// A worker of a pool, as its tasks see it.
class WorkerContext {
 public:
  WorkerContext(std::string name, std::uint32_t index) : name_(std::move(name)), index_(index) {}

  /// "PoolWorker-3": also current_process().name().
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Its place in the pool, from 0; a replacement has the place of the one that died.
  [[nodiscard]] int index() const noexcept { return static_cast<int>(index_); }
  /// Which attempt at the item that runs this is: 1, or more after a worker died of it and
  /// `retries` allowed another one.
  [[nodiscard]] int attempt() const noexcept { return attempt_; }

  /// For the pool: an item begins.
  void begin_item(int attempt) noexcept { attempt_ = attempt; }

 private:
  std::string name_;
  std::uint32_t index_;
  int attempt_ = 1;
};

namespace detail {
/// The worker whose task the calling thread runs.
inline constinit thread_local WorkerContext* running_worker = nullptr;
}  // namespace detail

/// The worker that runs the calling task. On the task's own thread only; threads and processes that
/// a task starts are no workers. @throws std::logic_error outside of a task
[[nodiscard]] inline const WorkerContext& current_worker() {
  if (detail::running_worker != nullptr) return *detail::running_worker;
  throw std::logic_error("current_worker() was called outside of a task of a pool");
}

}  // namespace procpool
