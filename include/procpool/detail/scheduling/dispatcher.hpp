// SPDX-License-Identifier: MIT
/// @file
/// Tasks on their way to workers: carries out what the scheduler decides, and takes back what has
/// not begun.
///
/// Most of it is called where nobody is who could be told of a failure, so it needs no memory but
/// what was reserved with the pool, or does without: a frame that cannot be kept in mind is sent
/// later, one that cannot be copied is not taken back.
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
#include <procpool/detail/scheduling/task_queue.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>

namespace procpool::detail {

class dispatcher {
 public:
  explicit dispatcher(worker_table& pool) : pool_(pool) {
    stalled_.reserve(pool.workers.size());
    stalled_before_.reserve(pool.workers.size());
  }

  /// Accepts a task that is ready to be sent. An in-line body may be the submitter's memory: it is
  /// not used after the call.
  void submit(pool_task& task, preference who) {
    pool_.schedule.submit(task);
    dispatch(who);
    if (task.worker == no_worker) keep_or_drop(task);
  }

  /// Sends out what can be sent. To be called after anything has changed.
  void dispatch(preference who = preference::awake) noexcept {
    if (!pool_.broken.empty()) return;
    while (const auto what = pool_.schedule.next(who)) {
      if (what->task == nullptr) {
        pool_.workers[what->worker].retire_due = true;
        send_retire(what->worker);
      } else if (!send(what->worker, static_cast<pool_task&>(*what->task))) {
        pool_.schedule.refused(*what);
        if (pool_.schedule.front(what->worker) == nullptr) stall(what->worker);
      }
    }
  }

  /// Gives idle workers what waits, and what others have more than they can begin with.
  void balance() noexcept {
    dispatch(preference::idle);
    while (relocate()) dispatch(preference::idle);
  }

  /// Workers that have no task and get none: their ring is full of frames that were taken back,
  /// which they have not passed yet, or of a streamed initializer; or they did not stir. They ring
  /// when they have passed something. Whether any task was sent.
  bool resume_blocked() noexcept {
    if (stalled_.empty()) return false;
    stalled_.swap(stalled_before_);
    for (const std::uint32_t worker : stalled_before_) {
      if (pool_.schedule.vacant(worker) || pool_.workers[worker].kill != killing::no) continue;
      if (pool_.workers[worker].unresponsive && !pool_.channel(worker).anything_passed()) {
        stall(worker);
        continue;
      }
      pool_.workers[worker].unresponsive = false;
      if (pool_.workers[worker].retire_due) send_retire(worker);
      pool_.schedule.resume(worker);
    }
    stalled_before_.clear();
    const std::size_t before = pool_.schedule.pending();
    dispatch();
    return pool_.schedule.pending() != before;
  }

  /// Whether a worker that had nothing to do got a task since reset_poll_set_grew(). Set before the
  /// frame is published: whoever misses that worker's bell sees this. Any thread.
  [[nodiscard]] bool poll_set_grew() const noexcept {
    return widened_.load(std::memory_order_relaxed);  // the caller has fenced
  }
  void reset_poll_set_grew() noexcept {
    widened_.store(false, std::memory_order_relaxed);  // under the lock, as where it is set
  }
  /// Whether each_blocked_channel() would call a channel that it did not the last time.
  [[nodiscard]] bool more_blocked() const noexcept { return more_stalled_; }

  /// Calls @p each(channel) for these workers.
  template <class Each>
  void each_blocked_channel(Each each) {
    more_stalled_ = false;
    for (const std::uint32_t worker : stalled_) {
      if (pool_.backend->present(worker)) each(pool_.channel(worker));
    }
  }

  /// The worker does not stir, and all its tasks were taken back: it gets none until it does.
  void suspend(std::uint32_t worker) noexcept {
    if (!pool_.channel(worker).tasks().note_silence()) return;  // it did this moment
    pool_.schedule.quarantine(worker);
    pool_.workers[worker].unresponsive = true;
    stall(worker);  // it rings when it has passed what was taken back
  }

  /// Tells a worker to leave, now or when it has room for that.
  void send_retire(std::uint32_t worker) noexcept {
    frame_head head{};
    head.kind = frame_kind::retire;
    head.place = body_place::in_line;
    if (pool_.channel(worker).send(head, {})) {
      pool_.workers[worker].retire_due = false;
    } else {
      stall(worker);
    }
  }

  /// Takes frames back from the youngest to this one, as far as the worker has not begun with them
  /// and there is memory for what has to be sent again. They are first in line again. Whether there
  /// were any.
  bool take_back(std::uint32_t worker, std::uint64_t from) noexcept {
    auto* next = static_cast<pool_task*>(pool_.schedule.back(worker));
    const std::uint64_t first =
        pool_.channel(worker).take_back(from, [&](std::uint64_t ordinal) noexcept {
          while (next != nullptr && next->head.ordinal != ordinal)
            next = static_cast<pool_task*>(next->previous);
          return next != nullptr && recover_body(worker, *next);
        });
    bool any = false;
    while (auto* task = static_cast<pool_task*>(pool_.schedule.back(worker))) {
      if (task->head.ordinal < first) break;
      pool_.schedule.taken_back(*task);
      any = true;
    }
    return any;
  }

  /// Takes all tasks of @p what that have not begun away from the workers, and out of the queue.
  /// Whether none is with a worker any more. However many other tasks there are, this looks at none
  /// of them.
  bool withdraw(const job& what) noexcept {
    bool gone = true;
    for (pool_task* task = job_tasks::first(what); task != nullptr;) {
      pool_task& each = *std::exchange(task, task->next_of_job);
      if (each.worker == no_worker) {
        pool_.schedule.withdraw(each);
      } else if (pool_.channel(each.worker).take_away(each.head.ordinal)) {
        pool_.schedule.taken_away(each);
      } else {
        gone = false;
        continue;
      }
      pool_.discard(each);
    }
    dispatch();
    return gone;
  }

  /// The worker is dead: its place becomes vacant, its tasks are first in line again, in their
  /// order, but for those that nobody waits for. One that cannot be sent again, because there is no
  /// memory for what was in the ring, fails.
  void requeue_tasks_of(std::uint32_t worker) noexcept {
    task_queue left;
    pool_.schedule.died(worker, [&](scheduled_task& task) { left.push_back(task); });
    for (auto* task = left.front(); task != nullptr; task = task->next) {
      recover_or_fail(worker, static_cast<pool_task&>(*task));
    }
    pool_.backend->free_slot(worker);
    while (!left.empty()) {
      auto& task = static_cast<pool_task&>(*left.back());
      left.remove(task);
      if (task.owner->resolved() || task.finished()) {
        pool_.discard(task);
      } else {
        pool_.schedule.resubmit(task);
      }
    }
  }

 private:
  void stall(std::uint32_t worker) noexcept {
    more_stalled_ = true;
    if (std::ranges::find(stalled_, worker) == stalled_.end()) stalled_.push_back(worker);
  }

  bool relocate() noexcept {
    const auto what = pool_.schedule.rebalance();
    if (!what) return false;
    return take_back(what->from, static_cast<pool_task&>(*what->first).head.ordinal);
  }

  // The frame will be sent again: its in-line body is in the ring of the worker that had it. False:
  // there is no memory for a copy.
  [[nodiscard]] bool recover_body(std::uint32_t worker, pool_task& task) noexcept {
    if (task.body.place != body_place::in_line) return true;
    task.body.bytes = pool_.channel(worker).tasks().body(task.head.ordinal);
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
    parent_channel& channel = pool_.channel(worker);
    task.head.first_item = task.done;
    task.head.attempt = task.attempt;
    task.head.ordinal = channel.tasks().next_ordinal();
    if (pool_.schedule.front(worker) == &task) {
      widened_.store(true, std::memory_order_relaxed);  // ordered by the publication of the frame
    }
    if (!channel.send(task.head, task.body.in_ring())) return false;
    if (task.body.place == body_place::in_line) {  // the ring has it now
      task.body.owned.clear();
      task.body.bytes = {};
    }
    return true;
  }

  // A new task has to wait; when there is no memory for its body it was never submitted.
  void keep_or_drop(pool_task& task) {
    try {
      keep(task);
    } catch (...) {
      pool_.schedule.withdraw(task);
      pool_.discard(task);
      throw;
    }
  }

  // The task waits: its body must be ours.
  void keep(pool_task& task) {
    if (task.body.place != body_place::in_line || !task.body.owned.empty()) return;
    task.body.owned.append(task.body.bytes.data(), task.body.bytes.size());
    task.body.bytes = task.body.owned.view();
  }

  worker_table& pool_;
  std::vector<std::uint32_t> stalled_;         ///< has room for all, each once
  std::vector<std::uint32_t> stalled_before_;  ///< the same, while they are looked at
  std::atomic<bool> widened_{false};
  bool more_stalled_ = false;
};

}  // namespace procpool::detail
