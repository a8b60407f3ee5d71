// SPDX-License-Identifier: MIT
/// @file
/// Carries out the scheduler's decisions: sends tasks to workers, and takes back tasks that have
/// not begun. Used under the pool's lock.
///
/// Most callers cannot report an error. So these functions use only memory reserved with the pool,
/// or do without: a frame that cannot be stored is sent later, one that cannot be copied is not
/// taken back.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <utility>
#include <vector>

#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/scheduler.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>

namespace procpool::detail {

class dispatcher {
 public:
  explicit dispatcher(worker_table& pool) : pool_(pool) {
    blocked_.reserve(pool.workers.size());
    checking_.reserve(pool.workers.size());
  }

  /// Accepts a task that is ready to be sent. An in-line body may be the submitter's memory; it is
  /// not used after the call.
  void submit(pool_task& task, preference preferred) {
    pool_.schedule.submit(task);
    dispatch(preferred);
    if (task.worker == no_worker) keep_or_drop(task);
  }

  /// Sends all tasks that can be sent. Call it after any change.
  void dispatch(preference preferred = preference::awake) noexcept {
    if (!pool_.broken.empty()) return;
    while (const auto next = pool_.schedule.next(preferred)) {
      if (next->task == nullptr) {
        pool_.workers[next->worker].retire_due = true;
        send_retire(next->worker);
      } else if (!send(next->worker, static_cast<pool_task&>(*next->task))) {
        pool_.schedule.refused(*next);
        if (pool_.schedule.front(next->worker) == nullptr) block(next->worker);
      }
    }
  }

  /// Gives idle workers the pending tasks, and tasks that other workers cannot begin with yet.
  void balance() noexcept {
    dispatch(preference::idle);
    while (relocate()) dispatch(preference::idle);
  }

  /// Resumes blocked workers. These have no task and get none, because their ring is full (of
  /// frames that were taken back and not skipped yet, or of a streamed initializer), or because
  /// they are unresponsive. They signal when they have skipped a frame. @returns whether any task
  /// was sent
  bool resume_blocked() noexcept {
    if (blocked_.empty()) return false;
    blocked_.swap(checking_);
    for (const std::uint32_t worker : checking_) {
      if (pool_.schedule.vacant(worker) || pool_.workers[worker].kill != killing::no) continue;
      if (pool_.workers[worker].unresponsive &&
          !pool_.backend->channel(worker).tasks.passed_more()) {
        block(worker);
        continue;
      }
      pool_.workers[worker].unresponsive = false;
      if (pool_.workers[worker].retire_due) send_retire(worker);
      pool_.schedule.resume(worker);
    }
    checking_.clear();
    const std::size_t before = pool_.schedule.pending();
    dispatch();
    return pool_.schedule.pending() != before;
  }

  /// Whether an idle worker got a task since each_busy_channel(). Set before the frame is
  /// published, so a thread that misses that worker's signal sees this flag. Any thread.
  [[nodiscard]] bool poll_set_grew() const noexcept {
    return poll_set_grew_.load(std::memory_order_relaxed);  // the caller has a fence
  }
  /// Calls @p each(channel) for each worker whose records are expected.
  template <class Each>
  void each_busy_channel(Each each) {
    poll_set_grew_.store(false,
                         std::memory_order_relaxed);  // under the lock, as below
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) each(pool_.backend->channel(worker));
    }
  }
  /// Whether each_blocked_channel() would call a channel that it did not call the last time.
  [[nodiscard]] bool more_blocked() const noexcept { return more_blocked_; }

  /// Calls @p each(channel) for blocked workers.
  template <class Each>
  void each_blocked_channel(Each each) {
    more_blocked_ = false;
    for (const std::uint32_t worker : blocked_) {
      if (pool_.backend->present(worker)) each(pool_.backend->channel(worker));
    }
  }

  /// Blocks an unresponsive worker whose tasks were all taken back, until it responds.
  void suspend(std::uint32_t worker) noexcept {
    if (!pool_.backend->channel(worker).tasks.note_silence()) return;  // it has responded just now
    pool_.schedule.quarantine(worker);
    pool_.workers[worker].unresponsive = true;
    block(worker);  // it signals when it has skipped the frames taken back
  }

  /// Sends the order to leave, or sends it later if the ring is full.
  void send_retire(std::uint32_t worker) noexcept {
    frame_head head{};
    head.kind = frame_kind::retire;
    head.place = body_place::in_line;
    if (pool_.backend->channel(worker).send(head, {})) {
      pool_.workers[worker].retire_due = false;
    } else {
      block(worker);
    }
  }

  /// Takes back frames from the newest to this one, except those that the worker has claimed and
  /// those that there is no memory to send again. They become first in line. Whether there were
  /// any.
  bool take_back(std::uint32_t worker, std::uint64_t from) noexcept {
    auto* next = static_cast<pool_task*>(pool_.schedule.back(worker));
    const std::uint64_t first =
        pool_.backend->channel(worker).take_back(from, [&](std::uint64_t ordinal) noexcept {
          while (next != nullptr && next->head.ordinal != ordinal)
            next = static_cast<pool_task*>(next->previous);
          return next != nullptr && recover_body(worker, *next);
        });
    bool any_taken = false;
    while (auto* task = static_cast<pool_task*>(pool_.schedule.back(worker))) {
      if (task->head.ordinal < first) break;
      pool_.schedule.taken_back(*task);
      any_taken = true;
    }
    return any_taken;
  }

  /// Removes all tasks of @p target that have not begun from workers and queue. Looks at no other
  /// job's tasks. @returns whether no worker has a task of it any more
  bool withdraw(const job& target) noexcept {
    bool all_removed = true;
    for (pool_task* task = job_tasks::first(target); task != nullptr;) {
      pool_task& each = *std::exchange(task, task->next_of_job);
      if (each.worker == no_worker) {
        pool_.schedule.withdraw(each);
      } else if (pool_.backend->channel(each.worker).take_away(each.head.ordinal)) {
        pool_.schedule.taken_away(each);
      } else {
        all_removed = false;
        continue;
      }
      pool_.discard(each);
    }
    dispatch();
    return all_removed;
  }

  /// Vacates the slot of a dead worker. Its tasks become first in line in the same order, except
  /// tasks of resolved jobs. A task fails if there is no memory to copy its body from the ring.
  void requeue_tasks_of(std::uint32_t worker) noexcept {
    task_queue orphaned;
    pool_.schedule.died(worker, [&](scheduled_task& task) { orphaned.push_back(task); });
    for (auto* task = orphaned.front(); task != nullptr; task = task->next) {
      recover_or_fail(worker, static_cast<pool_task&>(*task));
    }
    pool_.backend->free_slot(worker);
    while (!orphaned.empty()) {
      auto& task = static_cast<pool_task&>(*orphaned.back());
      orphaned.remove(task);
      if (task.owner->resolved() || task.finished()) {
        pool_.discard(task);
      } else {
        pool_.schedule.resubmit(task);
      }
    }
  }

 private:
  void block(std::uint32_t worker) noexcept {
    more_blocked_ = true;
    if (std::ranges::find(blocked_, worker) == blocked_.end()) blocked_.push_back(worker);
  }

  bool relocate() noexcept {
    const auto plan = pool_.schedule.rebalance();
    if (!plan) return false;
    return take_back(plan->from, static_cast<pool_task&>(*plan->first).head.ordinal);
  }

  // Copies the in-line body from the worker's ring, because the frame will be sent again. False: no
  // memory.
  [[nodiscard]] bool recover_body(std::uint32_t worker, pool_task& task) noexcept {
    if (task.body.place != body_place::in_line) return true;
    task.body.bytes = pool_.backend->channel(worker).tasks.body(task.head.ordinal);
    try {
      keep(task);
      return true;
    } catch (const std::bad_alloc&) {
      task.body.bytes = {};
      return false;
    }
  }
  void recover_or_fail(std::uint32_t worker, pool_task& task) noexcept {
    if (task.owner->resolved() || recover_body(worker, task)) return;
    const auto why = std::make_exception_ptr(std::bad_alloc());
    while (!task.finished()) pool_.results.fail(task, why);
  }

  bool send(std::uint32_t worker, pool_task& task) noexcept {
    parent_channel& channel = pool_.backend->channel(worker);
    task.head.first_item = task.done;
    task.head.attempt = task.attempt;
    task.head.ordinal = channel.tasks.next_ordinal();
    if (pool_.schedule.front(worker) == &task) {
      poll_set_grew_.store(true,
                           std::memory_order_relaxed);  // ordered by the frame's publication
    }
    if (!channel.send(task.head, task.body.in_ring())) return false;
    if (task.body.place == body_place::in_line) {  // the ring has a copy now
      task.body.owned.clear();
      task.body.bytes = {};
    }
    return true;
  }

  // A new task has to wait. If there is no memory for its body it is withdrawn again.
  void keep_or_drop(pool_task& task) {
    try {
      keep(task);
    } catch (...) {
      pool_.schedule.withdraw(task);
      pool_.discard(task);
      throw;
    }
  }

  // Copies the submitter's in-line body, because the task has to wait.
  void keep(pool_task& task) {
    if (task.body.place != body_place::in_line || !task.body.owned.empty()) return;
    task.body.owned.append(task.body.bytes.data(), task.body.bytes.size());
    task.body.bytes = task.body.owned.view();
  }

  worker_table& pool_;
  std::vector<std::uint32_t> blocked_;   ///< blocked workers, each once; reserved for all
  std::vector<std::uint32_t> checking_;  ///< the same, while they are checked
  std::atomic<bool> poll_set_grew_{false};
  bool more_blocked_ = false;
};

}  // namespace procpool::detail
