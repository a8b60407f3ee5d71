// SPDX-License-Identifier: MIT
/// @file
/// The pool's engine: no thread, no lock and no waiting, all of it runs under the lock of
/// pool_core.
///
/// When there is no memory. What a caller asked for, submit(), fails with nothing changed: what may
/// fail is made first. The rest is progress, made by whoever happens to wait, or by the service
/// thread: nobody is there who could be told. It relies on what was reserved with the pool, and on
/// lists that are linked through their members; where more memory would be of use it does without,
/// see supervisor and dispatcher. Should anything there throw all the same, or_break() ends the
/// pool: everything has BrokenPool, and nothing is left half done.
///
/// Its parts, and who may call whom (never backwards):
///
///     engine -> supervisor   births and deaths ---+-> result_processor    records in ---+
///            -> deadline_monitor  limits of time ------+--------------> dispatcher    frames out
///                                                                   -> worker_table   what is
///                                                                   known
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

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
#include <procpool/detail/worker/recycle_policy.hpp>

namespace procpool::detail {

class engine {
 public:
  /// The rules' spinning_workers, the first workers, may spin while they wait for work.
  /// @param places for workers, of which the first @p wanted are to be filled
  engine(std::unique_ptr<worker_backend> backend, std::size_t places, std::uint32_t wanted,
         const scheduling_rules& rules, const recycle_rules& life,
         std::shared_ptr<const initializer_frame> initializer)
      : pool_(std::move(backend), places, rules, life),
        sending_(pool_),
        receiving_(pool_, sending_, starts_),
        lives_(pool_, sending_, receiving_, starts_, std::move(initializer), wanted,
               rules.spinning_workers),
        clock_(pool_, sending_) {}

  /// Starts all workers and waits until each has been forked.
  /// @throws ProcessError when one cannot be; the others are ended by the destructor.
  void start_all() { lives_.start_all(); }

  [[nodiscard]] worker_backend& backend() noexcept { return *pool_.backend; }
  [[nodiscard]] std::size_t outstanding() const noexcept {
    return pool_.schedule.pending() + pool_.schedule.assigned();
  }
  /// Tasks that no worker has got.
  [[nodiscard]] std::size_t waiting() const noexcept { return pool_.schedule.pending(); }
  /// Workers that have a task.
  [[nodiscard]] std::uint32_t working() const noexcept { return pool_.schedule.working(); }
  /// Whether those workers are busy, as far as is known, that need no wake-up.
  [[nodiscard]] bool spinners_busy() const noexcept { return pool_.schedule.spinners_busy(); }
  [[nodiscard]] std::size_t workers_present() const noexcept { return pool_.schedule.present(); }
  /// Why the pool cannot run tasks any more; empty while it can.
  [[nodiscard]] const std::string& broken() const noexcept { return pool_.broken; }

  // ---- work in -------------------------------------------------------------------------------

  /// A job that has no items has all its outcomes.
  void complete(job& nothing) noexcept { pool_.results.complete(nothing); }

  /// Accepts a frame of work. An in-line body may be the caller's memory: it is not used after the
  /// call.
  void submit(boost::intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body&& body, preference who) {
    pool_task& task = pool_.make_task(std::move(owner), head, first_index);
    task.body.take(body);
    task.head.place = task.body.place;
    sending_.submit(task, who);
  }

  /// See pool_interface::take_numbers().
  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) noexcept {
    return pool_.take_numbers(items);
  }

  /// Moves tasks from workers that have more than they can begin with to idle ones. Not at every
  /// turn: short tasks are done sooner where they are than another worker can be woken.
  void balance() noexcept {
    sending_.balance();
    lives_.restart_idle();
  }
  /// Whether balance() would start a worker again that has left for want of work.
  [[nodiscard]] bool wants_idle_workers() const noexcept {
    return pool_.lives.may_stop_idle() && pool_.schedule.work_for_more() &&
           lives_.any_idle_stopped();
  }
  /// The same, if a worker has finished nothing since the last call.
  void balance_if_stuck() noexcept {
    bool stuck = false;
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      worker_state& state = pool_.workers[worker];
      const std::uint64_t before = std::exchange(state.finished_then, state.finished);
      stuck |= pool_.busy(worker) && before == state.finished;
    }
    if (stuck) balance();
  }

  /// Takes everything of @p what that has not begun out of the queues. Whether nothing of it is
  /// with a worker any more.
  bool withdraw(const job& what) noexcept { return sending_.withdraw(what); }

  /// Kills the workers that run something of @p what, which is aborted next: what becomes of it
  /// counts no more. False: there is one that cannot be killed without harm to others, for want of
  /// memory. @param any set when one is killed
  [[nodiscard]] bool stop_running(const job& what, bool& any) noexcept {
    if (!backend().can_kill()) return true;  // it goes on, and nobody will know
    bool all = true;
    for (pool_task* task = job_tasks::first(what); task != nullptr; task = task->next_of_job) {
      const std::uint32_t worker = task->worker;
      if (worker == no_worker || !pool_.busy(worker) || pool_.first_task(worker) != task) continue;
      if (clock_.stop(worker, *task, killing::cancelled)) {
        any = true;
      } else if (clock_.held_up(worker, *task)) {
        all = false;
      }
    }
    sending_.dispatch();
    return all;
  }

  /// Whether a worker has begun with some of @p what, which is not resolved.
  [[nodiscard]] bool running(const job& what) {
    if (what.begun()) return true;
    for (const pool_task* task = job_tasks::first(what); task != nullptr;
         task = task->next_of_job) {
      if (task->worker == no_worker) continue;
      if (pool_.channel(task->worker).tasks().claimed(task->head.ordinal)) return true;
    }
    return false;
  }

  void abort(job& what, const std::exception_ptr& why, ending how = ending::failed) noexcept {
    pool_.results.abort(what, why, how);
  }
  /// The same, as cancelled by the user.
  void abort_cancelled(job& what) noexcept {
    abort(what, pool_.prepared.cancelled, ending::cancelled);
  }
  /// The pool has been terminated: ends every job that is outstanding, as cancelled.
  void cancel_all() noexcept { lives_.end_all(pool_.prepared.terminated, ending::cancelled); }
  /// Lets go of all workers, tasks and jobs, when nothing will come of them any more.
  void release_all() noexcept { lives_.release_all(); }

  /// Tells all workers to leave when they have done what they have; none is replaced.
  void retire_all() noexcept {
    lives_.stop_replacing();
    pool_.schedule.retire_all();
    sending_.dispatch();
  }

  /// There are to be so many workers now. Nobody is in wait() of the backend.
  std::uint32_t resize(std::uint32_t wanted) noexcept { return lives_.resize(wanted); }

  // ---- outcomes out --------------------------------------------------------------------------

  /// Reads what workers have sent and keeps them busy; whether there was anything. A quick look
  /// misses what is held back: not before anybody sleeps, nor while several workers have tasks.
  bool advance(drain_mode how = drain_mode::full) noexcept {
    bool news = sending_.resume_blocked();
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker) && pool_.channel(worker).ready_to_drain(how)) {
        news |= receiving_.drain(worker, how);
      }
    }
    if (news) sending_.dispatch();
    return news;
  }

  /// Handles what the backend reports of lives and deaths.
  void handle_events() noexcept {
    or_break([&] {
      while (const auto report = backend().next_event()) lives_.handle(*report);
      if (!backend().gone().empty() && pool_.broken.empty()) lives_.break_down(backend().gone());
      backend().each_flooding([&](std::uint32_t worker) {
        if (backend().present(worker))
          pool_.kill_for_violation(worker, "it rang its bell when nobody slept");
      });
      sending_.dispatch();
    });
  }

  /// Whether check_deadlines() has to be called from time to time.
  [[nodiscard]] bool has_deadlines() const noexcept {
    return pool_.any_timed() || starts_.next().has_value() ||
           pool_.lives.initializer_timeout().count() != 0;
  }

  /// Does what is due by @p now: kills workers whose task has taken too long, starts those that had
  /// to wait for it, moves tasks away from workers that do not stir.
  /// @returns when to look again at the latest, if nothing happens before that
  [[nodiscard]] std::optional<os::time_point> check_deadlines(os::time_point now) noexcept {
    std::optional<os::time_point> next_start;
    std::optional<os::time_point> next_check;
    or_break([&] {
      next_start = lives_.start_due(now);
      next_check = clock_.check(now);
      sending_.dispatch();
    });
    if (!next_start || !next_check) return next_start ? next_start : next_check;
    return std::min(*next_start, *next_check);
  }

  /// Calls @p each(channel) for the workers that something is expected from.
  template <class Each>
  void each_busy_channel(Each each) {
    sending_.reset_poll_set_grew();
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) each(pool_.channel(worker));
    }
  }

  /// Whether something is expected from more workers than each_busy_channel() has called. Any
  /// thread.
  [[nodiscard]] bool poll_set_grew() const noexcept { return sending_.poll_set_grew(); }
  /// The same for the next ones.
  [[nodiscard]] bool more_blocked() const noexcept { return sending_.more_blocked(); }

  /// Calls @p each(channel) for the workers that get no task for now, see resume_blocked().
  template <class Each>
  void each_blocked_channel(Each each) {
    sending_.each_blocked_channel(each);
  }

  /// Jobs that nobody else refers to any more: to be destroyed without the lock, because that runs
  /// destructors of the user's.
  [[nodiscard]] job_list take_dead() noexcept { return pool_.take_dead(); }
  [[nodiscard]] bool any_dead() const noexcept { return pool_.any_dead(); }
  /// Whether the calling thread is decoding a result of this pool, under the lock.
  [[nodiscard]] bool decoding() const noexcept { return pool_.results.decoding(); }

  /// Jobs that have all their outcomes and a callback to run; they are not ready yet.
  [[nodiscard]] job_list& with_callbacks() noexcept { return pool_.results.with_callbacks(); }
  /// The callbacks of such a job have run.
  void set_ready(job& what) { pool_.results.set_ready(what); }
  /// What goes on behind jobs that have become ready.
  [[nodiscard]] continuation_queue& due() noexcept { return pool_.results.due(); }
  /// Whether any job has become ready or resolved since the last call.
  [[nodiscard]] bool take_notice() noexcept { return pool_.results.take_notice(); }
  /// How many asynchronous submissions have become ready since the last call.
  [[nodiscard]] std::uint64_t take_ready() noexcept { return pool_.results.take_ready(); }

 private:
  // Progress that cannot be made ends the pool.
  template <class Step>
  void or_break(Step step) noexcept {
    try {
      step();
    } catch (...) {
      lives_.break_down_for_want_of_memory();
    }
  }

  restart_policy starts_;
  worker_table pool_;
  dispatcher sending_;
  result_processor receiving_;
  supervisor lives_;
  deadline_monitor clock_;
};

}  // namespace procpool::detail
