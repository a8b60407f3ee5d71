// SPDX-License-Identifier: MIT
/// @file
/// pool_task: the pool's record of one frame of work; and the store that recycles these records.
/// Used under the pool's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/parent_channel.hpp>
#include <procpool/detail/scheduling/scheduler.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Failures of the first item that is not done.
struct task_failures {
  std::exception_ptr partial_error;  ///< the exception from pieces of its result
  std::vector<worker_death> deaths;  ///< of earlier attempts
};

/// A task of the pool. Its items get their outcomes strictly in order.
struct pool_task : scheduled_task {
  static constexpr std::uint8_t max_returned_unstarted = 4;
  static constexpr std::uint8_t max_died_at_start = 2;  ///< less than what breaks the pool
  static constexpr std::uint8_t max_left = 200;  ///< honest workers do not leave one after another

  intrusive_ptr<job> owner;
  pool_task* previous_of_job = nullptr;  ///< neighbours among the owner's tasks
  pool_task* next_of_job = nullptr;
  frame_head head{};  ///< with the ordinal of its last send
  task_body body;
  std::size_t first_index = 0;              ///< index of its first item in the job's input
  std::unique_ptr<task_failures> failures;  ///< null for nearly all tasks
  std::uint16_t attempt = 1;                ///< at the first item that is not done
  /// Times its worker died, or was unresponsive, without having begun it, by the worker's claim.
  std::uint8_t returned_unstarted = 0;
  std::uint8_t left = 0;   ///< times its worker left in order before that, by the worker's claim
  std::uint32_t done = 0;  ///< items with an outcome

  [[nodiscard]] bool finished() const noexcept { return done == head.item_count; }
  /// Index in the job's input of the first item that is not done.
  [[nodiscard]] std::size_t next_index() const noexcept { return first_index + done; }
  /// One more than the last item of the frame that a worker may claim to have started.
  [[nodiscard]] std::uint32_t started_end() const noexcept {
    return body.parts == 1 ? head.item_count : body.parts;
  }
  /// Which part of the first item that is not done `started` means; nullopt: no part of it.
  /// Ordinary items have one part.
  [[nodiscard]] std::optional<std::uint32_t> part(std::uint64_t started) const noexcept {
    const std::uint64_t parts_before = started - started_mark(head.ordinal, done);
    if (parts_before >= body.parts) return std::nullopt;
    return static_cast<std::uint32_t>(parts_before);
  }
  /// Counts one more time. @returns whether the maximum is reached
  [[nodiscard]] static bool reaches(std::uint8_t& times, std::uint8_t max_times) noexcept {
    if (times < max_times) ++times;
    return times >= max_times;
  }
  [[nodiscard]] task_failures& failures_of() {
    if (failures == nullptr) failures = std::make_unique<task_failures>();
    return *failures;
  }
  /// Whether pieces of the next result have failed.
  [[nodiscard]] bool partial_error() const noexcept {
    return failures != nullptr && failures->partial_error != nullptr;
  }
  /// Counts @p items more outcomes.
  void pass(std::uint32_t items) noexcept {
    done += items;
    returned_unstarted = left = 0;  // it makes progress
    if (attempt != 1) forget_attempts();
  }

 private:
  void forget_attempts() noexcept {
    attempt = 1;
    failures = nullptr;
  }
};

// There is one for each task that waits or is with a worker. 16 bytes are for job_tasks: without
// them cancelling one task would visit all tasks. (`done` would fit into the padding of the base,
// but g++ 11 does not use that.)
static_assert(sizeof(pool_task) <= 208);

/// The tasks of one job, in no particular order. Used under the pool's lock.
class job_tasks {
 public:
  [[nodiscard]] static pool_task* first(const job& of) noexcept { return of.tasks_; }

  /// Precondition: the task has its owner.
  static void add(pool_task& task) noexcept {
    pool_task*& first = task.owner->tasks_;
    task.previous_of_job = nullptr;
    task.next_of_job = first;
    if (first != nullptr) first->previous_of_job = &task;
    first = &task;
  }
  static void remove(pool_task& task) noexcept {
    pool_task* const before = task.previous_of_job;
    (before != nullptr ? before->next_of_job : task.owner->tasks_) = task.next_of_job;
    if (task.next_of_job != nullptr) task.next_of_job->previous_of_job = before;
  }
};

/// Recycles task records, so that submitting does not allocate in the long run. Free records are
/// linked by `next`, the last one freed first: it is most likely in the cache. When all are free,
/// the memory for more than a few goes back: a backlog that was long once costs nothing for ever.
class task_store {
 public:
  [[nodiscard]] pool_task& take() {
    if (free_ == nullptr) grow();
    pool_task& task = *free_;
    free_ = static_cast<pool_task*>(task.next);
    task.next = nullptr;
    ++in_use_;
    return task;
  }
  /// Precondition: its arena block, if any, has been released.
  void give_back(pool_task& task) noexcept {
    task.owner.reset();
    task.body.clear(keep_bytes);
    task.failures = nullptr;
    task.done = 0;
    task.pass(0);  // resets the attempts
    task.returned_unstarted = task.left = 0;
    push_free(task);
    if (--in_use_ == 0 && batches_.size() > max_batches) shrink();
  }

 private:
  static constexpr std::size_t keep_bytes = 512;
  static constexpr std::size_t batch_size = 64;
  static constexpr std::size_t max_batches = 64;  ///< 850 KB; to shrink after each burst costs time
  static constexpr std::size_t kept_batches = 16;

  void push_free(pool_task& task) noexcept {
    task.next = free_;
    free_ = &task;
  }
  void grow() {
    batches_.push_back(std::make_unique<pool_task[]>(batch_size));
    free_batch(*batches_.rbegin());
  }
  void free_batch(const std::unique_ptr<pool_task[]>& batch) noexcept {
    for (std::size_t i = 0; i < batch_size; ++i) push_free(batch[i]);
  }
  // Precondition: no record is in use.
  void shrink() noexcept {
    batches_.resize(kept_batches);
    free_ = nullptr;
    for (const auto& batch : batches_) free_batch(batch);
  }

  std::vector<std::unique_ptr<pool_task[]>> batches_;
  pool_task* free_ = nullptr;
  std::size_t in_use_ = 0;
};

}  // namespace procpool::detail
