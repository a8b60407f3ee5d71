// SPDX-License-Identifier: MIT
/// @file
/// The pool's engine: no threads, no locks and no waiting. All of it runs under the lock of
/// guarded_engine.
///
/// Out of memory: submit(), which a caller asked for, fails without any change, because it
/// allocates before it changes anything. All other functions make progress for whichever thread
/// waits, or for the service thread, which cannot report an error. They use memory reserved with
/// the pool and intrusive lists, and do without optional memory (see supervisor and dispatcher). If
/// one throws all the same, break_on_throw() breaks the pool: every job ends with BrokenPool, and
/// nothing is half done.
///
/// Its parts, and which part may call which (never backwards):
///
///     engine -> supervisor   starts and deaths ---+-> result_processor    records in ---+
///            -> deadline_monitor    time limits ------+--------------> dispatcher    frames out
///                                                                   -> worker_table   shared state
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/backend/restart_policy.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/scheduling/completion.hpp>
#include <procpool/detail/scheduling/deadline_monitor.hpp>
#include <procpool/detail/scheduling/dispatcher.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/result_processor.hpp>
#include <procpool/detail/scheduling/scheduler.hpp>
#include <procpool/detail/scheduling/supervisor.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/worker/recycle_policy.hpp>

namespace procpool::detail {

class engine {
 public:
  /// The first workers, spinning_workers of the rules, may spin while they wait for work.
  /// @param slots   number of slots for workers
  /// @param wanted  the number of workers to start, in the first slots
  engine(std::unique_ptr<worker_backend> backend, std::size_t slots, std::uint32_t wanted,
         const scheduling_rules& rules, const recycle_rules& recycle,
         std::shared_ptr<const initializer_frame> initializer)
      : table(std::move(backend), slots, rules, recycle),
        sending(table),
        receiving_(table, sending, restarts_),
        supervisor_(table, sending, receiving_, restarts_, std::move(initializer), wanted,
                    rules.spinning_workers),
        deadlines_(table, sending) {}

  /// Starts all workers and waits until each has been forked.
  /// @throws ProcessError if a worker cannot be forked; the destructor ends the others.
  void start_all() { supervisor_.start_all(); }

  /// The state of workers, tasks and results, for whoever has the pool's lock.
  worker_table table;
  /// Which worker has which task. Only the engine submits to it.
  dispatcher sending;

  // ---- work in -------------------------------------------------------------------------------

  /// Accepts a frame of work. An in-line body may be the caller's memory: it is not used after the
  /// call.
  void submit(intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body&& body, preference preferred) {
    pool_task& task = table.make_task(std::move(owner), head, first_index);
    task.body.take(body);
    task.head.place = task.body.place;
    sending.submit(task, preferred);
  }

  /// Moves tasks that a worker cannot begin with yet to idle workers. Not for each step: a short
  /// task is done sooner where it is than another worker wakes up.
  void balance() noexcept {
    sending.balance();
    supervisor_.restart_idle();
  }
  /// Whether balance() would restart a worker that left because it was idle.
  [[nodiscard]] bool wants_idle_workers() const noexcept {
    return table.recycling.may_stop_idle() && table.schedule.work_for_more() &&
           supervisor_.any_idle_stopped();
  }
  /// balance(), if a busy worker has finished nothing since the last call.
  void balance_if_stuck() noexcept {
    bool any_stuck = false;
    for (std::uint32_t worker = 0; worker < table.size(); ++worker) {
      worker_state& state = table.workers[worker];
      const std::uint64_t before = std::exchange(state.finished_at_check, state.finished);
      any_stuck |= table.busy(worker) && before == state.finished;
    }
    if (any_stuck) balance();
  }

  /// Kills the workers that run a part of @p target, which the caller aborts next: its outcomes are
  /// dropped. False: a worker cannot be killed without harm to other jobs, because memory is short.
  /// @param any_killed set when a worker is killed
  [[nodiscard]] bool stop_running(const job& target, bool& any_killed) noexcept {
    if (!table.backend->can_kill()) return true;  // runs on; its outcome is dropped
    bool all = true;
    for (pool_task* task = job_tasks::first(target); task != nullptr; task = task->next_of_job) {
      const std::uint32_t worker = task->worker;
      if (worker == no_worker || !table.busy(worker) || table.first_task(worker) != task) continue;
      if (deadlines_.stop(worker, *task, killing::cancelled)) {
        any_killed = true;
      } else if (deadlines_.cannot_take_back(worker, *task)) {
        all = false;
      }
    }
    sending.dispatch();
    return all;
  }

  /// Whether a worker has begun with a part of @p target, which is not resolved.
  [[nodiscard]] bool running(const job& target) {
    if (target.begun()) return true;
    for (const pool_task* task = job_tasks::first(target); task != nullptr;
         task = task->next_of_job) {
      if (task->worker == no_worker) continue;
      if (table.backend->channel(task->worker).tasks.claimed(task->head.ordinal)) return true;
    }
    return false;
  }

  /// Ends a job as cancelled by the user.
  void abort_cancelled(job& target) noexcept {
    table.results.abort(target, table.prepared.cancelled, ending::cancelled);
  }
  /// Ends all jobs as cancelled, because the pool was terminated.
  void cancel_all() noexcept { supervisor_.end_all(table.prepared.terminated, ending::cancelled); }
  /// Releases all workers, tasks and jobs when no outcome can arrive any more.
  void release_all() noexcept { supervisor_.release_all(); }

  /// Tells all workers to leave after their tasks; none is replaced.
  void retire_all() noexcept {
    supervisor_.stop_replacing();
    table.schedule.retire_all();
    sending.dispatch();
  }

  /// Changes the number of workers. No thread may be in wait() of the backend.
  std::uint32_t resize(std::uint32_t wanted) noexcept { return supervisor_.resize(wanted); }

  // ---- outcomes out --------------------------------------------------------------------------

  /// Reads what workers have sent and sends them more; whether there was anything to read. A quick
  /// drain misses held-back records: not for use before a thread sleeps, or while several workers
  /// have tasks.
  bool advance(drain_mode how = drain_mode::full) noexcept {
    bool anything_read = sending.resume_blocked();
    for (std::uint32_t worker = 0; worker < table.size(); ++worker) {
      if (table.busy(worker) && table.backend->channel(worker).ready_to_drain(how)) {
        anything_read |= receiving_.drain(worker, how);
      }
    }
    if (anything_read) sending.dispatch();
    return anything_read;
  }

  /// Handles the backend's reports of starts and deaths.
  void handle_events() noexcept {
    break_on_throw([&] {
      while (const auto report = table.backend->next_event()) supervisor_.handle(*report);
      if (!table.backend->gone().empty() && table.broken.empty())
        supervisor_.break_pool(table.backend->gone());
      table.backend->each_flooding([&](std::uint32_t worker) {
        if (table.backend->present(worker))
          table.kill_for_violation(worker, "it sent wake-ups while no thread slept");
      });
      sending.dispatch();
    });
  }

  /// Whether check_deadlines() has to be called from time to time.
  [[nodiscard]] bool has_deadlines() const noexcept {
    return table.any_timed() || restarts_.next().has_value() ||
           table.recycling.initializer_timeout().count() != 0;
  }

  /// Does what is due by @p now: kills workers of items that ran too long, starts postponed
  /// workers, moves tasks away from unresponsive workers.
  /// @returns the latest time of the next call, if nothing happens before
  [[nodiscard]] std::optional<os::time_point> check_deadlines(os::time_point now) noexcept {
    std::optional<os::time_point> next_start;
    std::optional<os::time_point> next_check;
    break_on_throw([&] {
      next_start = supervisor_.start_due(now);
      next_check = deadlines_.check(now);
      sending.dispatch();
    });
    if (!next_start || !next_check) return next_start ? next_start : next_check;
    return std::min(*next_start, *next_check);
  }

 private:
  // Breaks the pool if a step throws.
  template <class Step>
  void break_on_throw(Step step) noexcept {
    try {
      step();
    } catch (...) {
      supervisor_.break_pool_no_memory();
    }
  }

  restart_policy restarts_;
  result_processor receiving_;
  supervisor supervisor_;
  deadline_monitor deadlines_;
};

}  // namespace procpool::detail
