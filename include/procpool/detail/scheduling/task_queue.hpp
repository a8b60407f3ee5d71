// SPDX-License-Identifier: MIT
/// @file
/// An intrusive queue of tasks: the pending ones, and those of each worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace procpool::detail {

inline constexpr std::uint32_t no_worker = std::numeric_limits<std::uint32_t>::max();

/// The scheduler's part of a task, the base of the pool's task. In one queue at a time.
struct scheduled_task {
  scheduled_task* previous = nullptr;
  scheduled_task* next = nullptr;
  std::uint32_t worker = no_worker;  ///< its worker; no_worker while pending
};

/// An intrusive queue of tasks.
class task_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] scheduled_task* front() const noexcept { return first_; }
  [[nodiscard]] scheduled_task* back() const noexcept { return last_; }

  void push_back(scheduled_task& task) noexcept {
    task.previous = last_;
    task.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &task;
    last_ = &task;
    ++size_;
  }
  void push_front(scheduled_task& task) noexcept {
    task.next = first_;
    task.previous = nullptr;
    (first_ != nullptr ? first_->previous : last_) = &task;
    first_ = &task;
    ++size_;
  }
  void remove(scheduled_task& task) noexcept {
    (task.previous != nullptr ? task.previous->next : first_) = task.next;
    (task.next != nullptr ? task.next->previous : last_) = task.previous;
    task.previous = task.next = nullptr;
    --size_;
  }

 private:
  scheduled_task* first_ = nullptr;
  scheduled_task* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace procpool::detail
