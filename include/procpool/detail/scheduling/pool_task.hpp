// SPDX-License-Identifier: MIT
/// @file
/// The pool's record of one frame's worth of work, and where such records come from.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

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
#include <procpool/detail/task/task_body.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What has gone wrong with the item of a task behind those that are done.
struct task_failures {
  std::exception_ptr partial_error;  ///< what the pieces that came of its result failed with
  std::vector<worker_death> deaths;  ///< what earlier attempts came to
};

/// A task of the pool. Its items get their outcomes strictly in order.
struct pool_task : scheduled_task {
  static constexpr std::uint8_t max_returned_unstarted = 4;
  static constexpr std::uint8_t most_unborn = 2;  ///< fewer than break the pool
  static constexpr std::uint8_t most_left = 200;  ///< honest workers do not leave one after another

  boost::intrusive_ptr<job> owner;
  pool_task* previous_of_job = nullptr;  ///< its neighbours among the tasks of the owner
  pool_task* next_of_job = nullptr;
  frame_head head{};  ///< with the ordinal that it was sent with last
  task_body body;
  std::size_t first_index = 0;              ///< index in the job's input of the first item
  std::unique_ptr<task_failures> failures;  ///< null for nearly all
  std::uint16_t attempt = 1;                ///< at the item behind those that are done
  std::uint8_t returned_unstarted =
      0;                   ///< times that its worker died before it had begun, so it said
  std::uint8_t left = 0;   ///< times that it left in order before that, so it said
  std::uint32_t done = 0;  ///< items that have their outcome

  [[nodiscard]] bool finished() const noexcept { return done == head.item_count; }
  /// Index in the input of the item behind those that are done.
  [[nodiscard]] std::size_t next_index() const noexcept { return first_index + done; }
  /// The item of the frame behind the last one that a worker may say it has started.
  [[nodiscard]] std::uint32_t most_started() const noexcept {
    return body.parts == 1 ? head.item_count : body.parts;
  }
  /// Which part of the item behind those that are done this is, as in `started`; nullopt: it is no
  /// part of it. Ordinary items have one.
  [[nodiscard]] std::optional<std::uint32_t> part(std::uint64_t started) const noexcept {
    const std::uint64_t parts_before = started - started_mark(head.ordinal, done);
    if (parts_before >= body.parts) return std::nullopt;
    return static_cast<std::uint32_t>(parts_before);
  }
  /// One time more. Whether it has happened that often.
  [[nodiscard]] static bool reaches(std::uint8_t& times, std::uint8_t most) noexcept {
    if (times < most) ++times;
    return times >= most;
  }
  [[nodiscard]] task_failures& failures_of() {
    if (failures == nullptr) failures = std::make_unique<task_failures>();
    return *failures;
  }
  /// Whether pieces of the next result have failed.
  [[nodiscard]] bool partial_error() const noexcept {
    return failures != nullptr && failures->partial_error != nullptr;
  }
  /// So many more items have their outcome.
  void pass(std::uint32_t items) noexcept {
    done += items;
    returned_unstarted = left = 0;  // it gets on
    if (attempt != 1) forget_attempts();
  }

 private:
  void forget_attempts() noexcept {
    attempt = 1;
    failures = nullptr;
  }
};

// One for each task that waits, or is with a worker. 16 bytes of it are for job_tasks: without them
// whoever cancels one task would look at all. (`done` could be behind the members of the base, but
// not with g++ 11, which leaves that place empty.)
static_assert(sizeof(pool_task) <= 208);

/// The tasks that the pool has of one job, in no particular order. Used under the lock of the pool.
class job_tasks {
 public:
  [[nodiscard]] static pool_task* first(const job& of) noexcept { return of.tasks_; }

  /// Precondition: it has its owner.
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

/// Recycles task records: submitting allocates nothing in the long run. Those that are free hang on
/// each other by `next`, the last one freed first: it is the one most likely in the caches.
class task_store {
 public:
  [[nodiscard]] pool_task& take() {
    if (free_ == nullptr) grow();
    pool_task& task = *free_;
    free_ = static_cast<pool_task*>(task.next);
    task.next = nullptr;
    return task;
  }
  /// Precondition: its arena block, if it had one, has been given back.
  void give_back(pool_task& task) noexcept {
    task.owner.reset();
    task.body.clear(keep_bytes);
    task.failures = nullptr;
    task.done = 0;
    task.pass(0);  // forgets attempts
    task.returned_unstarted = task.left = 0;
    hang(task);
  }

 private:
  static constexpr std::size_t keep_bytes = 512;

  void hang(pool_task& task) noexcept {
    task.next = free_;
    free_ = &task;
  }
  void grow() {
    constexpr std::size_t batch = 64;
    batches_.push_back(std::make_unique<pool_task[]>(batch));
    for (std::size_t i = 0; i < batch; ++i) hang(batches_.back()[i]);
  }

  std::vector<std::unique_ptr<pool_task[]>> batches_;
  pool_task* free_ = nullptr;
};

}  // namespace procpool::detail
