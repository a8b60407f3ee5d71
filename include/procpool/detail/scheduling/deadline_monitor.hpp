// SPDX-License-Identifier: MIT
/// @file
/// The clock: items that run too long end with their worker, and no other item with them; tasks of
/// workers that do not stir go to others.
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

  /// Looks after all workers that have something to do. @returns when to look again at the latest
  [[nodiscard]] std::optional<os::time_point> check(os::time_point now) {
    constexpr std::chrono::milliseconds at_least_every{250};  // workers may be stopped meanwhile
    next_look_.reset();
    if (pool_.schedule.assigned() > 0) next_check(now + at_least_every);
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) watch(worker, now);
    }
    return next_look_;
  }

  /// Kills a worker for the item that it runs, and for no other: frames behind are taken back, and
  /// items behind in a timed frame are not begun (see result_producer::begin_timed). False when it
  /// has finished the item by now, or cannot be kept from the frames behind. Items behind in a
  /// cancelled job do not matter.
  bool stop(std::uint32_t worker, pool_task& task, killing why, std::uint64_t target = 0) noexcept {
    parent_channel& channel = pool_.channel(worker);
    const pool_task* behind = worker_table::next_task(task);
    if (behind != nullptr) sending_.take_back(worker, behind->head.ordinal);
    behind = worker_table::next_task(task);
    if (behind != nullptr && channel.tasks().claimed(behind->head.ordinal)) return false;
    if (held_up(worker, task)) return false;
    if (why == killing::late && channel.halt() != target) {
      channel.unhalt();
      return false;
    }
    pool_.kill(worker, why, target);
    return true;
  }

  /// Whether a frame behind this task cannot be taken back for want of memory: the worker cannot be
  /// stopped then.
  [[nodiscard]] bool held_up(std::uint32_t worker, const pool_task& task) noexcept {
    const pool_task* behind = worker_table::next_task(task);
    task_producer& frames = pool_.channel(worker).tasks();
    return behind != nullptr && !frames.streaming() && !frames.claimed(behind->head.ordinal);
  }

 private:
  // Looks after the task that this worker works on, or does not begin with.
  void watch(std::uint32_t worker, os::time_point now) {
    const bool initializing = pool_.workers[worker].initializing;
    if (initializing && ended_in_initializer(worker, now)) return;
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
    } else if (!begun(worker, *task)) {
      unstuck(worker, *task, now);
    } else if (task->head.timed != 0 && !initializing) {
      keep_time_between(worker, *task, now);
    }
  }

  // Kills a worker whose initializer takes too long. Whether it has. The initializer may return
  // this moment: what is behind it is taken back first, else the worker could begin with that and
  // it would run twice. What cannot be taken back stays only for so long.
  bool ended_in_initializer(std::uint32_t worker, os::time_point now) {
    const auto limit = pool_.lives.initializer_timeout();
    if (limit.count() == 0) return false;
    const os::time_point due = pool_.workers[worker].since + limit;
    if (due > now) return next_check(due), false;
    pool_task* task = pool_.first_task(worker);
    if (task != nullptr) sending_.take_back(worker, task->head.ordinal);
    task = pool_.first_task(worker);
    const bool returned = task != nullptr && begun(worker, *task);
    if (returned) return false;
    if (task != nullptr && now - due <= grace) return next_check(now + between_items), false;
    pool_.kill(worker, killing::late);
    return true;
  }
  [[nodiscard]] bool begun(std::uint32_t worker, const pool_task& task) {
    return pool_.channel(worker).tasks().claimed(task.head.ordinal);
  }

  // The item of its front task that the worker says it runs, in the form of `started`; it may be
  // ahead of what we know to be done. What was seen running runs until its outcome is there or a
  // later item runs: a worker that says now this, now that wins no time.
  [[nodiscard]] std::optional<std::uint64_t> running_item(std::uint32_t worker,
                                                          const pool_task& task) {
    parent_channel& channel = pool_.channel(worker);
    if (pool_.workers[worker].initializing || !begun(worker, task)) return {};
    const std::uint64_t started = channel.started();
    const auto item = static_cast<std::uint32_t>(started);
    const bool possible = item >= task.done && item < task.most_started() &&
                          started == started_mark(task.head.ordinal, item);
    const worker_state& state = pool_.workers[worker];
    const bool seen = state.running &&
                      state.watched >= started_mark(task.head.ordinal, task.done) &&
                      state.watched < started_mark(task.head.ordinal, task.most_started());
    if (seen && (!possible || started < state.watched)) return state.watched;
    if (!possible) return std::nullopt;
    return started;
  }

  // A worker that leaves its next task alone while another one could do it is stopped, or starved,
  // or still being born: the other one gets it.
  void unstuck(std::uint32_t worker, pool_task& task, os::time_point now) {
    constexpr std::chrono::milliseconds patience{20};
    const os::time_point due = pool_.workers[worker].watched_since + patience;
    if (due > now) return next_check(due);
    pool_.channel(worker).wake();
    const bool moves = task.returned_unstarted < pool_task::max_returned_unstarted &&
                       pool_.schedule.anybody_idle();
    if (!moves || !sending_.take_back(worker, task.head.ordinal)) return next_check(now + patience);
    ++task.returned_unstarted;  // the worker may have lied
    if (pool_.first_task(worker) == nullptr) sending_.suspend(worker);
  }

  // The worker says when it began; the parent has seen it running, which is never earlier.
  void enforce_limit(std::uint32_t worker, pool_task& task, std::uint64_t item,
                     os::time_point now) {
    const auto began =
        std::min(pool_.channel(worker).started_at(), pool_.workers[worker].watched_since);
    const auto limit = task.owner->rules().timeout;
    if (now - began < limit) return next_check(began + limit);
    if (now - began > limit + grace) return pool_.kill(worker, killing::late, item);
    if (!stop(worker, task, killing::late, item)) next_check(now + between_items);
  }

  // The worker has the task and is between two items, or we have not seen the outcomes yet. If it
  // stays there it was stopped at just this place: others do the rest, and nobody is charged.
  void keep_time_between(std::uint32_t worker, pool_task& task, os::time_point now) {
    const auto since = pool_.workers[worker].watched_since;
    const bool late = now - since >= task.owner->rules().timeout + between_items;
    const std::uint64_t before = pool_.channel(worker).started();
    if (!late || !stop(worker, task, killing::late, before)) next_check(now + between_items);
  }

  void next_check(os::time_point when) {
    if (!next_look_ || when < *next_look_) next_look_ = when;
  }

  /// After which a worker is not believed any more that it has just finished the item.
  static constexpr std::chrono::milliseconds grace{500};
  static constexpr std::chrono::milliseconds between_items{1};  // or between item and news of it

  worker_table& pool_;
  dispatcher& sending_;
  std::optional<os::time_point> next_look_;
};

}  // namespace procpool::detail
