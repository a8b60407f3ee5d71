// SPDX-License-Identifier: MIT
/// @file
/// Decides which item is charged for the death of a worker, and with which exception.
///
/// A death loses only the item that was running. Earlier items have their outcomes in the ring;
/// later items and unclaimed frames go back to the queue.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include <procpool/detail/crash/crash_report.hpp>
#include <procpool/detail/crash/death_report.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/result_processor.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class death_attribution {
 public:
  death_attribution(worker_table& pool, result_processor& receiving)
      : pool_(pool), receiving_(receiving) {}

  /// Fills in what is known of a death without its task, as far as memory allows.
  void complete(std::uint32_t worker, worker_death& death) noexcept {
    try {
      describe_end_of(worker, death);
    } catch (...) {  // no memory: the description stays incomplete
    }
  }

  /// Whether the next item of the front task was running when the worker died.
  /// @param died_at_start the worker exited as if it could not start
  bool charged(std::uint32_t worker, pool_task& task, const worker_death& death,
               bool died_at_start) noexcept {
    // Limits how often a worker is believed: one that overwrote its `started` mark before it died
    // must neither cause endless retries nor break the pool.
    const std::uint8_t max_times =
        died_at_start ? pool_task::max_died_at_start : pool_task::max_returned_unstarted;
    const killing kill = pool_.workers[worker].kill;
    // Killed for an item that is done.
    const bool killed_for_item = kill == killing::late || kill == killing::cancelled;
    if (was_running(worker, task)) return true;
    if (killed_for_item) return false;
    if (left_in_order(worker, death)) return pool_task::reaches(task.left, pool_task::max_left);
    return pool_task::reaches(task.returned_unstarted, max_times);
  }

  /// Retries that item, or ends it with the exception.
  void charge(std::uint32_t worker, pool_task& task, worker_death& death) noexcept {
    if (task.attempt <= task.owner->rules().retries && !task.owner->resolved()) {
      note_death(worker, task, death);
      ++task.attempt;
      return;
    }
    pool_.results.fail(task, failure_or_bad_alloc(worker, task, death));
    task.failures = nullptr;
    if (task.finished()) receiving_.finish_front(worker, task);
  }

 private:
  void describe_end_of(std::uint32_t worker, worker_death& death) {
    const worker_state& state = pool_.workers[worker];
    death.worker = pool_.backend->name(worker);
    if (state.kill == killing::violation) death.cause = state.violation;
    if (state.kill == killing::late) death.cause = "it ran longer than its time limit";
    if (state.kill != killing::no || death.exitcode >= 0) return;
    crash_report report = pool_.backend->crash_report_of(worker, -death.exitcode);
    death.fault_address = report.fault_address;
    death.reason = std::move(report.reason);
    death.stack = without_callers(std::move(report.stack));
  }

  // Adds a death to those of the item. False: no memory.
  bool note_death(std::uint32_t worker, pool_task& task, worker_death& death) noexcept {
    try {
      death.item = task.next_index() + running_part(worker, task);
      death.callable = task.owner->rules().callable.text();
      death.attempt = task.attempt;
      task.failures_of().deaths.push_back(std::move(death));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  // The exception of the item: std::bad_alloc if there is no memory for a better one.
  [[nodiscard]] std::exception_ptr failure_or_bad_alloc(std::uint32_t worker, pool_task& task,
                                                        worker_death& death) noexcept {
    try {
      if (note_death(worker, task, death)) return failure_of(worker, task);
    } catch (...) {  // the same as no memory for the death
    }
    return std::make_exception_ptr(std::bad_alloc());
  }

  // Whether the worker left because it had grown too large or was idle, just as a task arrived.
  [[nodiscard]] bool left_in_order(std::uint32_t worker, const worker_death& death) const {
    const bool may = pool_.recycling.may_leave() || pool_.recycling.may_stop_idle();
    return may && death.exitcode == 0 && pool_.backend->channel(worker).said_it_leaves();
  }

  // Whether a dead worker had begun with the next item of its front task: it was seen running the
  // item, or claims so. An item that may have run must not run again.
  [[nodiscard]] bool was_running(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    parent_channel& channel = pool_.backend->channel(worker);
    const std::uint64_t next = started_mark(task.head.ordinal, task.done);
    const bool seen = state.running && state.watched >= next &&
                      state.watched < started_mark(task.head.ordinal, task.started_end());
    if (seen || !claim_possible(channel, task)) return true;
    if (!task.part(channel.started()) || !channel.tasks.claimed(task.head.ordinal)) return false;
    if (task.body.parts != 1) return true;  // its partial result is lost
    // An item after the one it was killed for was not begun, see stop().
    return state.kill == killing::no || state.kill == killing::violation || state.target == next;
  }

  // For an item with several parts: the part for which the worker died, if known.
  [[nodiscard]] std::uint32_t running_part(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    const bool late = state.kill == killing::late;
    return task.part(late ? state.target : pool_.backend->channel(worker).started()).value_or(0);
  }

  // Whether the worker's `started` mark can be true. Outcomes are in order, so the mark is at the
  // next item, or at the one before if that has just finished, or before this frame.
  [[nodiscard]] static bool claim_possible(parent_channel& channel, const pool_task& task) {
    const std::uint64_t started = channel.started();
    const std::uint64_t next = started_mark(task.head.ordinal, task.done);
    if (task.part(started) || (task.done > 0 && started + 1 == next)) return true;
    const auto answered = channel.tasks.last_answered();
    if (answered) return started >> 32 == started_mark(*answered, 0) >> 32;
    return started == nothing_started || started == 0;  // 0: died before the first mark
  }

  [[nodiscard]] std::exception_ptr failure_of(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    auto replay = pool_.copy_for_replay(worker, task);
    const std::size_t index = task.next_index();
    if (task.owner->wants_replay(index)) task.owner->keep_replay(index, replay);
    const bool out_of_cpu =
        pool_.recycling.cpu_ns() != 0 && task.failures->deaths.back().exitcode == -SIGXCPU;
    if (state.kill == killing::late)
      return too_late(task.failures->deaths, task.owner->rules().timeout);
    if (out_of_cpu) {
      return out_of_time(task.failures->deaths, std::chrono::nanoseconds(pool_.recycling.cpu_ns()));
    }
    return worker_died(task.failures->deaths, std::move(replay));
  }

  worker_table& pool_;
  result_processor& receiving_;
};

}  // namespace procpool::detail
