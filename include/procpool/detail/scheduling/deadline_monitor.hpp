// SPDX-License-Identifier: MIT
/// @file
/// Enforces time limits: kills the worker of an item that runs too long, without harm to other
/// items. Gives tasks of unresponsive workers (stopped, or without a CPU) to others. Runs under the
/// pool's lock, before the driving thread sleeps.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <procpool/detail/os/event.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/scheduling/dispatcher.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>

namespace procpool::detail {

class deadline_monitor {
 public:
  deadline_monitor(worker_table& pool, dispatcher& sending) : pool_(pool), sending_(sending) {}

  /// Checks all busy workers. @returns the latest time of the next check
  [[nodiscard]] std::optional<os::time_point> check(os::time_point now) {
    constexpr std::chrono::milliseconds max_interval{250};  // workers may be stopped meanwhile
    next_check_time_.reset();
    if (pool_.schedule.assigned() > 0) next_check(now + max_interval);
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) watch(worker, now);
    }
    return next_check_time_;
  }

  /// Kills a worker for the item that it runs. No other item is harmed: later frames are taken
  /// back, and later items of a timed frame are not begun (see result_producer::begin_timed). Later
  /// items of a cancelled job do not matter. False when the worker has finished the item by now, or
  /// later frames cannot be kept from it.
  bool stop(std::uint32_t worker, pool_task& task, killing why, std::uint64_t target = 0) noexcept {
    parent_channel& channel = pool_.backend->channel(worker);
    const pool_task* next = worker_table::next_task(task);
    if (next != nullptr) sending_.take_back(worker, next->head.ordinal);
    next = worker_table::next_task(task);
    if (next != nullptr && channel.tasks.claimed(next->head.ordinal)) return false;
    if (cannot_take_back(worker, task)) return false;
    if (why == killing::late && channel.halt() != target) {
      channel.unhalt();
      return false;
    }
    pool_.kill(worker, why, target);
    return true;
  }

  /// Whether a frame behind this task cannot be taken back because memory is short. Then the worker
  /// cannot be stopped.
  [[nodiscard]] bool cannot_take_back(std::uint32_t worker, const pool_task& task) noexcept {
    const pool_task* next = worker_table::next_task(task);
    task_producer& frames = pool_.backend->channel(worker).tasks;
    return next != nullptr && !frames.streaming() && !frames.claimed(next->head.ordinal);
  }

 private:
  // Checks the worker's front task, whether the worker has begun with it or not.
  void watch(std::uint32_t worker, os::time_point now) {
    const bool initializing = pool_.workers[worker].initializing;
    if (initializing && limit_initializer(worker, now)) return;
    pool_task* task = pool_.first_task(worker);
    if (task == nullptr) return;
    worker_state& state = pool_.workers[worker];
    const auto item = running_item(worker, *task);
    const std::uint64_t next = item.value_or(started_mark(task->head.ordinal, task->done));
    const bool same_item = std::exchange(state.watched, next) == next;
    const bool same_state = std::exchange(state.running, item.has_value()) == item.has_value();
    if (!same_item || !same_state) state.watched_since = now;
    if (item && task->head.timed != 0) {
      enforce_limit(worker, *task, *item, now);
    } else if (!has_begun(worker, *task)) {
      reassign_unbegun(worker, *task, now);
    } else if (task->head.timed != 0 && !initializing) {
      limit_between_items(worker, *task, now);
    }
  }

  // Kills a worker whose initializer takes too long; whether it did. The initializer may return
  // just now and the worker begin with a frame, which would then run twice. So frames are taken
  // back first; one that cannot be taken back delays the kill, at most for the grace period.
  bool limit_initializer(std::uint32_t worker, os::time_point now) {
    const auto limit = pool_.recycling.initializer_timeout();
    if (limit.count() == 0) return false;
    const os::time_point due = pool_.workers[worker].since + limit;
    if (due > now) return next_check(due), false;
    pool_task* task = pool_.first_task(worker);
    if (task != nullptr) sending_.take_back(worker, task->head.ordinal);
    task = pool_.first_task(worker);
    const bool returned = task != nullptr && has_begun(worker, *task);
    if (returned) return false;
    if (task != nullptr && now - due <= grace) return next_check(now + between_items), false;
    pool_.kill(worker, killing::late);
    return true;
  }
  [[nodiscard]] bool has_begun(std::uint32_t worker, const pool_task& task) {
    return pool_.backend->channel(worker).tasks.claimed(task.head.ordinal);
  }

  // The item of the front task that the worker claims to run, as in `started`; it may be ahead of
  // the outcomes read so far. An item seen running counts as running until its outcome is there or
  // a later item runs. So a worker that alternates between claims gains no time.
  [[nodiscard]] std::optional<std::uint64_t> running_item(std::uint32_t worker,
                                                          const pool_task& task) {
    parent_channel& channel = pool_.backend->channel(worker);
    if (pool_.workers[worker].initializing || !has_begun(worker, task)) return {};
    const std::uint64_t started = channel.started();
    const auto item = static_cast<std::uint32_t>(started);
    const bool possible = item >= task.done && item < task.started_end() &&
                          started == started_mark(task.head.ordinal, item);
    const worker_state& state = pool_.workers[worker];
    const bool seen = state.running &&
                      state.watched >= started_mark(task.head.ordinal, task.done) &&
                      state.watched < started_mark(task.head.ordinal, task.started_end());
    if (seen && (!possible || started < state.watched)) return state.watched;
    if (!possible) return std::nullopt;
    return started;
  }

  // A worker that does not begin with its next task is stopped, has no CPU, or has not come up. If
  // another worker is idle, that one gets the task.
  void reassign_unbegun(std::uint32_t worker, pool_task& task, os::time_point now) {
    constexpr std::chrono::milliseconds max_wait{20};
    const os::time_point due = pool_.workers[worker].watched_since + max_wait;
    if (due > now) return next_check(due);
    pool_.backend->channel(worker).wake();
    const bool may_move =
        task.returned_unstarted < pool_task::max_returned_unstarted && pool_.schedule.any_idle();
    if (!may_move || !sending_.take_back(worker, task.head.ordinal))
      return next_check(now + max_wait);
    ++task.returned_unstarted;  // the worker's claim may be false
    if (pool_.first_task(worker) == nullptr) sending_.suspend(worker);
  }

  // The start is the worker's claim, or when the parent saw the item run if that is earlier. (A
  // true claim is never later.)
  void enforce_limit(std::uint32_t worker, pool_task& task, std::uint64_t item,
                     os::time_point now) {
    const auto began =
        std::min(pool_.backend->channel(worker).started_at(), pool_.workers[worker].watched_since);
    const auto limit = task.owner->rules().timeout;
    if (now - began < limit) return next_check(began + limit);
    if (now - began > limit + grace) return pool_.kill(worker, killing::late, item);
    if (!stop(worker, task, killing::late, item)) next_check(now + between_items);
  }

  // The worker is between two items of the task, or the outcomes have not been read yet. If it
  // stays there it was stopped between them: others do the rest, and no item is charged.
  void limit_between_items(std::uint32_t worker, pool_task& task, os::time_point now) {
    const auto since = pool_.workers[worker].watched_since;
    const bool late = now - since >= task.owner->rules().timeout + between_items;
    const std::uint64_t before = pool_.backend->channel(worker).started();
    if (!late || !stop(worker, task, killing::late, before)) next_check(now + between_items);
  }

  void next_check(os::time_point when) {
    if (!next_check_time_ || when < *next_check_time_) next_check_time_ = when;
  }

  /// After this time a worker cannot claim any more that it has just finished the item.
  static constexpr std::chrono::milliseconds grace{500};
  static constexpr std::chrono::milliseconds between_items{1};  // or item and outcome

  worker_table& pool_;
  dispatcher& sending_;
  std::optional<os::time_point> next_check_time_;
};

}  // namespace procpool::detail
