// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// The pool's engine: carries out what the scheduler decides and tells it what has happened; turns
/// records from workers into outcomes of jobs, and deaths of workers into exceptions. No thread, no
/// lock and no waiting: all of it runs under the lock of pool_core.
///
/// What is lost when a worker dies: the item that was running, nothing else. Items before it have
/// their outcomes in the ring; items behind it and frames not begun go back to the queue.
#pragma once

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/death_report.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/outcomes.hpp>
#include <procpool/detail/pool_task.hpp>
#include <procpool/detail/regions.hpp>
#include <procpool/detail/scheduler.hpp>
#include <procpool/detail/start_policy.hpp>
#include <procpool/detail/worker_lives.hpp>
#include <procpool/detail/worker_report.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What every worker runs first.
struct initializer_frame {
  code_ref entry;
  byte_buffer body;  ///< callable and arguments
};

template <class Backend>
class engine {
 public:
  /// The rules' favourites, the first workers, may spin while they wait for work.
  engine(const region_sizes& sizes, const scheduling_rules& rules, const life_rules& lives,
         std::shared_ptr<const initializer_frame> initializer)
      : initializer_(std::move(initializer)),
        spinners_(rules.favourites),
        backend_(sizes),
        scheduler_(rules),
        lives_(lives, rules.maxtasksperchild),
        workers_(sizes.workers) {}

  /// Starts all workers and waits until each has been forked.
  /// @throws ProcessError when one cannot be; the others are ended by the destructor.
  void start_all() {
    constexpr std::uint32_t window = 16;  // requests on the way, so that no socket buffer fills up
    std::vector<worker_report> early_deaths;
    std::uint32_t asked = 0;
    for (std::uint32_t started = 0; started < backend_.workers();) {
      while (asked < backend_.workers() && asked - started < window) start(asked++);
      const worker_report report = await_report();
      if (report.kind == worker_report::kind_type::started) ++started;
      if (report.kind == worker_report::kind_type::exited) early_deaths.push_back(report);
    }
    for (const worker_report& report : early_deaths) handle(report);
  }

  [[nodiscard]] Backend& backend() noexcept { return backend_; }
  [[nodiscard]] std::size_t outstanding() const noexcept {
    return scheduler_.pending() + scheduler_.assigned();
  }
  [[nodiscard]] std::size_t waiting() const noexcept { return scheduler_.pending(); }
  [[nodiscard]] std::size_t workers_present() const noexcept { return scheduler_.present(); }
  /// Why the pool cannot run tasks any more; empty while it can.
  [[nodiscard]] const std::string& broken() const noexcept { return broken_; }

  // ---- work in -------------------------------------------------------------------------------

  /// Accepts a frame of work. An in-line body may be the caller's memory: it is not used after the
  /// call.
  void submit(boost::intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body body, preference who) {
    pool_task& task = store_.take();
    task.owner = std::move(owner);
    task.head = head;
    task.head.timed = task.owner->rules().timeout.count() != 0 ? 1 : 0;
    task.first_index = first_index;
    timed_ += task.head.timed;
    std::swap(task.body, body);  // a buffer from before is used again by keep()
    if (task.body.place == body_place::in_line) std::swap(task.body.owned, body.owned);
    scheduler_.submit(task);
    dispatch(who);
    if (task.worker == no_worker) keep_or_drop(task);
  }

  /// Moves tasks from workers that have more than they can begin with to idle ones. Not at every
  /// turn: short tasks are done sooner where they are than another worker can be woken.
  void balance() {
    while (relocate()) dispatch(preference::idle);
  }

  /// Takes everything of @p what that has not begun out of the queues. Whether nothing of it is
  /// with a worker any more.
  bool withdraw(const job& what) {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) take_back_all(worker, what);
    auto* next = scheduler_.first_pending();
    while (next != nullptr) {
      auto& task = static_cast<pool_task&>(*std::exchange(next, next->next));
      if (task.owner.get() != &what) continue;
      scheduler_.withdraw(task);
      discard(task);
    }
    const bool gone = !any_assigned(what);
    dispatch();
    return gone;
  }

  /// Ends every job that is outstanding with this exception.
  void end_all(const std::exception_ptr& why) {
    scheduler_.drop_pending([&](scheduled_task& task) { end(static_cast<pool_task&>(task), why); });
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      for (auto* task = first_task(worker); task != nullptr; task = task->next) {
        abort(*static_cast<pool_task*>(task)->owner, why);
      }
    }
  }
  void abort(job& what, const std::exception_ptr& why) { outcomes_.abort(what, why); }

  /// Kills the workers that run something of @p what, which is aborted next: what becomes of it
  /// counts no more.
  void stop_running(const job& what) {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      auto* task = static_cast<pool_task*>(first_task(worker));
      if (!busy(worker) || task == nullptr || task->owner.get() != &what) continue;
      static_cast<void>(stop(worker, *task, killing::cancelled));
    }
    dispatch();
  }

  /// Lets go of all workers, tasks and jobs, when nothing will come of them any more.
  void forget_all() {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      if (scheduler_.vacant(worker)) continue;
      scheduler_.died(worker,
                      [this](scheduled_task& task) { discard(static_cast<pool_task&>(task)); });
      workers_[worker] = worker_state{};
    }
  }

  /// Tells all workers to leave when they have done what they have; none is replaced.
  void retire_all() {
    replacing_ = false;
    starts_.clear();
    scheduler_.retire_all();
    dispatch();
  }

  // ---- outcomes out --------------------------------------------------------------------------

  /// Reads what workers have sent and keeps them busy; whether there was anything.
  bool advance() {
    bool news = resume_stalled();
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      if (busy(worker)) news |= drain(worker);
    }
    if (news) dispatch();
    return news;
  }

  /// Handles what the backend reports of lives and deaths.
  void handle_reports() {
    const bool alive = backend_.reports([this](const auto& report) { handle(report); });
    if (!alive && broken_.empty()) {
      static_cast<void>(advance());  // what workers had done by then counts
      break_down("the fork server of the pool has ended unexpectedly");
    }
    backend_.each_flooding(
        [this](std::uint32_t worker) { condemn(worker, "it rang its bell when nobody slept"); });
    dispatch();
  }

  /// Whether look_at_clock() has to be called from time to time.
  [[nodiscard]] bool clock_matters() const noexcept {
    return timed_ > 0 || starts_.next().has_value();
  }

  /// Does what is due by @p now: kills workers whose task has taken too long, starts those that had
  /// to wait for it, moves tasks away from workers that do not stir.
  /// @returns when to look again at the latest, if nothing happens before that
  [[nodiscard]] std::optional<os::time_point> look_at_clock(os::time_point now) {
    constexpr std::chrono::milliseconds at_least_every{250};  // workers may be stopped meanwhile
    while (const auto worker = starts_.due(now)) replace(*worker);
    next_look_ = starts_.next();
    if (scheduler_.assigned() > 0) look_by(now + at_least_every);
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      if (busy(worker)) watch(worker, now);
    }
    dispatch();
    return next_look_;
  }

  /// Calls @p each(channel) for the workers that something is expected from.
  template <class Each>
  void each_busy_channel(Each each) {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      if (busy(worker)) each(backend_.channel(worker));
    }
  }

  /// Calls @p each(channel) for the workers that had no room and nothing to do, see resume_stalled.
  template <class Each>
  void each_stalled_channel(Each each) {
    for (const std::uint32_t worker : stalled_) {
      if (backend_.present(worker)) each(backend_.channel(worker));
    }
  }

  /// Jobs that nobody else refers to any more: to be destroyed without the lock, because that runs
  /// destructors of the user's.
  [[nodiscard]] std::vector<boost::intrusive_ptr<job>> take_dead() noexcept {
    return std::exchange(dead_, {});
  }
  /// Whether the calling thread is decoding a result of this pool, under the lock.
  [[nodiscard]] bool decoding() const noexcept { return outcomes_.decoding(); }

  /// Jobs that have all their outcomes and a callback to run; they are not ready yet.
  [[nodiscard]] std::vector<boost::intrusive_ptr<job>>& with_callbacks() noexcept {
    return outcomes_.with_callbacks();
  }
  /// Whether any job has become ready or resolved since the last call.
  [[nodiscard]] bool take_news() noexcept { return outcomes_.take_news(); }

 private:
  // Why a worker is being killed.
  enum class killing : std::uint8_t { no, violation, late, cancelled };

  // What the pool knows of a worker besides the scheduler's part.
  struct worker_state {
    bool initializing = false;                  ///< its initializer has not returned yet
    bool retire_due = false;                    ///< has to be told to retire, when there is room
    killing kill = killing::no;                 ///< nothing is expected from it any more
    std::uint64_t target = 0;                   ///< the item it is killed for, as in `started`
    std::uint64_t finished = 0;                 ///< frames
    os::time_point measured{};                  ///< when it last had finished some
    std::uint64_t watched = ~std::uint64_t{0};  ///< the item it was seen with, as in `started`
    os::time_point watched_since{};
    bool silent = false;   ///< it left its tasks alone and gets none until it stirs
    bool running = false;  ///< it was seen to have begun with that
    std::exception_ptr init_error;
    std::string violation;  ///< what it did that no worker does
  };

  // ---- workers -------------------------------------------------------------------------------

  void start(std::uint32_t worker) {
    backend_.start(worker, lives_.limits());
    backend_.set_spin(worker, worker < spinners_);
    workers_[worker] = worker_state{};
    scheduler_.add(worker, lives_.most_tasks());
    if (initializer_ != nullptr) send_initializer(worker);
  }

  void send_initializer(std::uint32_t worker) {
    parent_channel& channel = backend_.channel(worker);
    frame_head head{};
    head.kind = frame_kind::run;
    head.entry_offset = initializer_->entry.offset;
    head.entry_module = initializer_->entry.module;
    head.item_count = 1;
    head.initializer = 1;
    head.body_size = initializer_->body.size();
    const auto place = head.body_size <= channel.tasks().in_line_limit() ? body_place::in_line
                                                                         : body_place::stream;
    (void)channel.send(head,
                       {place, initializer_->body.view()});  // the ring is empty: there is room
    workers_[worker].initializing = true;
  }

  worker_report await_report() {
    std::optional<worker_report> got;
    while (!got) {
      if (!backend_.wait_for_report([&](const worker_report& report) { got = report; })) {
        throw ProcessError("the fork server of the pool ended while workers were started");
      }
    }
    if (got->kind == worker_report::kind_type::not_started) {
      os::throw_errno("cannot start a worker process of the pool", got->status);
    }
    return *got;
  }

  void handle(const worker_report& report) {
    using kind = worker_report::kind_type;
    if (report.kind == kind::exited) {
      worker_exited(report.worker, {.pid = report.pid, .exitcode = report.status});
    } else if (report.kind == kind::not_started) {
      if (scheduler_.vacant(report.worker)) return backend_.vacate(report.worker);
      abandon_tasks(report.worker);
      start_failed(report.worker, "a worker process could not be started: " +
                                      std::generic_category().message(report.status));
    }
  }

  // The order matters: first what it still had to say, then who is to blame, then the rest.
  void worker_exited(std::uint32_t worker, worker_death death) {
    if (scheduler_.vacant(worker)) return backend_.vacate(worker);  // the pool broke before that
    if (workers_[worker].kill != killing::violation) drain_last(worker);
    const bool idle = !backend_.channel(worker).tasks().anything_claimed();
    complete(worker, death);
    if (auto* task = static_cast<pool_task*>(scheduler_.front(worker));
        task != nullptr && !workers_[worker].initializing) {
      blame(worker, *task, death);
    }
    const worker_state last = workers_[worker];
    abandon_tasks(worker);
    if (!replacing_ || !broken_.empty()) return;
    if (last.initializing || (death.exitcode > 0 && idle)) {
      start_failed(worker, why_not_started(last, death));
    } else {
      replace(worker);
    }
  }

  // What can be said of a death without looking at tasks.
  void complete(std::uint32_t worker, worker_death& death) {
    const worker_state& state = workers_[worker];
    death.worker = backend_.name(worker);
    if (state.kill == killing::violation) death.cause = state.violation;
    if (state.kill == killing::late) death.cause = "it ran longer than its time limit";
    if (state.kill != killing::no || death.exitcode >= 0) return;
    crash_report last_words = backend_.last_words(worker, -death.exitcode);
    death.fault_address = last_words.fault_address;
    death.reason = std::move(last_words.reason);
    death.stack = std::move(last_words.stack);
  }

  // The item that was running when the worker died is tried again, or it gets the exception.
  void blame(std::uint32_t worker, pool_task& task, worker_death death) {
    // A worker that overwrote its own word before it died cannot lead us in circles for ever.
    constexpr std::uint16_t most_orphaned = 16;
    if (!was_running(worker, task) && ++task.orphaned < most_orphaned) return;
    const job_rules& rules = task.owner->rules();
    death.item = task.next_index();
    death.callable = rules.callable.text();
    death.attempt = task.attempt;
    task.deaths.push_back(std::move(death));
    if (task.attempt <= rules.retries && !task.owner->resolved()) {
      ++task.attempt;
      return;
    }
    outcomes_.fail(task, verdict(workers_[worker], task));
    task.deaths.clear();
    if (task.finished()) finish_front(worker);
  }

  // Whether a dead worker had begun with the next item of its front task. Its own word: what it
  // says wrong costs its own task.
  [[nodiscard]] bool was_running(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = workers_[worker];
    parent_channel& channel = backend_.channel(worker);
    if (state.kill == killing::violation) return true;
    const std::uint64_t next = started_mark(task.ordinal, task.done);
    if (!channel.tasks().claimed(task.ordinal) || channel.started() != next) return false;
    // One that came after the item it was killed for was held back, see stop().
    return state.kill == killing::no || state.target == next;
  }

  [[nodiscard]] std::exception_ptr verdict(const worker_state& state, const pool_task& task) {
    const bool out_of_cpu = lives_.cpu_ns() != 0 && task.deaths.back().exitcode == -SIGXCPU;
    if (state.kill == killing::late) return too_late(task.deaths, task.owner->rules().timeout);
    if (out_of_cpu) {
      return out_of_time(task.deaths, std::chrono::nanoseconds(lives_.cpu_ns()));
    }
    return worker_died(task.deaths);
  }

  // The place becomes vacant; its tasks are first in line again, in their order.
  void abandon_tasks(std::uint32_t worker) {
    std::vector<pool_task*> tasks;
    for (auto* task = first_task(worker); task != nullptr; task = task->next) {
      tasks.push_back(static_cast<pool_task*>(task));
      recover_body(worker, *tasks.back());
    }
    scheduler_.died(worker, [](scheduled_task&) {});
    backend_.vacate(worker);
    for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) {
      if ((*task)->owner->resolved()) {
        discard(**task);  // nobody waits for the rest of it
      } else {
        scheduler_.resubmit(**task);
      }
    }
  }

  void replace(std::uint32_t worker) {
    try {
      start(worker);
    } catch (const Error& error) {
      start_failed(worker, error.what());
    }
  }

  void start_failed(std::uint32_t worker, const std::string& why) {
    if (starts_.failed()) {
      break_down(why + " (" + std::to_string(starts_.failures()) +
                 " workers failed to start in a row)");
    } else {
      starts_.postpone(worker, std::chrono::steady_clock::now());
    }
  }

  void break_down(const std::string& why) {
    broken_ = "the pool is broken: " + why;
    starts_.clear();
    end_all(std::make_exception_ptr(BrokenPool(broken_)));
    forget_all();  // workers that still run are not listened to any more
  }

  [[nodiscard]] std::string why_not_started(const worker_state& last, const worker_death& death) {
    if (last.init_error != nullptr) return "the initializer failed: " + describe(last.init_error);
    return (last.initializing ? "the initializer did not return: " : "a worker did not come up: ") +
           describe_death(death);
  }

  // ---- the clock -----------------------------------------------------------------------------

  // Looks after the task that this worker works on, or does not begin with.
  void watch(std::uint32_t worker, os::time_point now) {
    auto* task = static_cast<pool_task*>(first_task(worker));
    if (task == nullptr) return;
    worker_state& state = workers_[worker];
    const auto item = running_item(worker, *task);
    const std::uint64_t next = item.value_or(started_mark(task->ordinal, task->done));
    const bool same = std::exchange(state.watched, next) == next;
    if (!same || item.has_value() != std::exchange(state.running, item.has_value())) {
      state.watched_since = now;
    }
    if (item && task->head.timed != 0) {
      keep_time(worker, *task, *item, now);
    } else if (!backend_.channel(worker).tasks().claimed(task->ordinal)) {
      unstuck(worker, *task, now);
    } else if (task->head.timed != 0) {
      look_by(now + between_items);
    }
  }

  // The item of its front task that the worker says it runs, in the form of `started`; it may be
  // ahead of what we know to be done.
  [[nodiscard]] std::optional<std::uint64_t> running_item(std::uint32_t worker,
                                                          const pool_task& task) {
    parent_channel& channel = backend_.channel(worker);
    if (workers_[worker].initializing || !channel.tasks().claimed(task.ordinal)) return {};
    const std::uint64_t started = channel.started();
    const auto item = static_cast<std::uint32_t>(started);
    const bool possible = item >= task.done && item < task.head.item_count &&
                          started == started_mark(task.ordinal, item);
    return possible ? std::optional(started) : std::nullopt;
  }

  // A worker that leaves its next task alone while another one could do it is stopped, or starved,
  // or still being born: the other one gets it.
  void unstuck(std::uint32_t worker, const pool_task& task, os::time_point now) {
    constexpr std::chrono::milliseconds patience{20};
    const os::time_point due = workers_[worker].watched_since + patience;
    if (due > now) return look_by(due);
    if (!scheduler_.anybody_idle() || !take_back(worker, task.ordinal)) {
      return look_by(now + patience);
    }
    if (first_task(worker) != nullptr) return;
    if (!backend_.channel(worker).tasks().note_silence()) return;
    scheduler_.silence(worker);
    workers_[worker].silent = true;
    stalled_.push_back(worker);  // it rings when it has passed what was taken back
  }

  // The worker says when it began; the parent has seen it running, which is never earlier.
  void keep_time(std::uint32_t worker, pool_task& task, std::uint64_t item, os::time_point now) {
    const auto began =
        std::min(backend_.channel(worker).started_at(), workers_[worker].watched_since);
    const auto limit = task.owner->rules().timeout;
    if (now - began < limit) return look_by(began + limit);
    if (!stop(worker, task, killing::late, item)) look_by(now + between_items);
  }

  void look_by(os::time_point when) {
    if (!next_look_ || when < *next_look_) next_look_ = when;
  }

  // Kills a worker for the item that it runs, and for no other: frames behind are taken back, and
  // items behind in a timed frame are not begun (see result_sender::begin_timed). False when it has
  // finished the item by now. Items behind in a cancelled job do not matter.
  bool stop(std::uint32_t worker, pool_task& task, killing why, std::uint64_t target = 0) {
    parent_channel& channel = backend_.channel(worker);
    if (task.next != nullptr) take_back(worker, static_cast<pool_task*>(task.next)->ordinal);
    const auto* behind = static_cast<pool_task*>(task.next);
    if (behind != nullptr && channel.tasks().claimed(behind->ordinal)) return false;
    if (why == killing::late && channel.halt() != target) {
      channel.unhalt();
      return false;
    }
    kill(worker, why, target);
    return true;
  }

  void kill(std::uint32_t worker, killing why, std::uint64_t target) {
    workers_[worker].kill = why;
    workers_[worker].target = target;
    scheduler_.silence(worker);  // it might begin with what it gets now
    backend_.kill(worker);
  }

  // ---- sending -------------------------------------------------------------------------------

  // Sends out what can be sent. To be called after anything has changed.
  void dispatch(preference who = preference::awake) {
    if (!broken_.empty()) return;
    while (const auto what = scheduler_.next(who)) {
      if (what->task == nullptr) {
        workers_[what->worker].retire_due = true;
        send_retire(what->worker);
      } else if (!send(what->worker, static_cast<pool_task&>(*what->task))) {
        scheduler_.refused(*what);
        if (scheduler_.front(what->worker) == nullptr) stalled_.push_back(what->worker);
      }
    }
  }

  // Workers that have no task and get none: their ring is full of frames that were taken back,
  // which they have not passed yet, or of a streamed initializer; or they did not stir. They ring
  // when they have passed something.
  bool resume_stalled() {
    if (stalled_.empty()) return false;
    for (const std::uint32_t worker : std::exchange(stalled_, {})) {
      if (scheduler_.vacant(worker) || workers_[worker].kill != killing::no) continue;
      if (workers_[worker].silent && !backend_.channel(worker).anything_passed()) {
        stalled_.push_back(worker);
        continue;
      }
      workers_[worker].silent = false;
      if (workers_[worker].retire_due) send_retire(worker);
      scheduler_.resume(worker);
    }
    const std::size_t before = scheduler_.pending();
    dispatch();
    return scheduler_.pending() != before;
  }

  bool send(std::uint32_t worker, pool_task& task) {
    parent_channel& channel = backend_.channel(worker);
    task.head.first_item = task.done;
    task.head.attempt = task.attempt;
    task.ordinal = channel.tasks().next_ordinal();
    if (!channel.send(task.head, {task.body.place, task.body.bytes})) return false;
    if (task.body.place == body_place::in_line) {  // the ring has it now
      task.body.owned.clear();
      task.body.bytes = {};
    }
    return true;
  }

  void send_retire(std::uint32_t worker) {
    frame_head head{};
    head.kind = frame_kind::retire;
    if (backend_.channel(worker).send(head, {})) {
      workers_[worker].retire_due = false;
    } else {
      stalled_.push_back(worker);
    }
  }

  // A new task has to wait; when there is no memory for its body it was never submitted.
  void keep_or_drop(pool_task& task) {
    try {
      keep(task);
    } catch (...) {
      scheduler_.withdraw(task);
      discard(task);
      throw;
    }
  }

  // The task waits: its body must be ours.
  void keep(pool_task& task) {
    if (task.body.place != body_place::in_line || !task.body.owned.empty()) return;
    task.body.owned.append(task.body.bytes.data(), task.body.bytes.size());
    task.body.bytes = task.body.owned.view();
  }

  // The frame will be sent again: its in-line body is in the ring of the worker that had it.
  void recover_body(std::uint32_t worker, pool_task& task) {
    if (task.body.place != body_place::in_line) return;
    task.body.bytes = backend_.channel(worker).tasks().body(task.ordinal);
    keep(task);
  }

  bool relocate() {
    const auto what = scheduler_.rebalance();
    if (!what) return false;
    return take_back(what->from, static_cast<pool_task&>(*what->first).ordinal);
  }

  // Takes frames back from the youngest to this one, as far as the worker has not begun with them.
  bool take_back(std::uint32_t worker, std::uint64_t from) {
    const std::uint64_t first = backend_.channel(worker).take_back(from);
    bool any = false;
    while (auto* task = static_cast<pool_task*>(scheduler_.back(worker))) {
      if (task->ordinal < first) break;
      recover_body(worker, *task);
      scheduler_.taken_back(*task);
      any = true;
    }
    return any;
  }

  void take_back_all(std::uint32_t worker, const job& what) {
    for (auto* task = first_task(worker); task != nullptr; task = task->next) {
      if (static_cast<pool_task*>(task)->owner.get() != &what) continue;
      take_back(worker, static_cast<pool_task*>(task)->ordinal);
      return;
    }
  }

  [[nodiscard]] bool any_assigned(const job& what) {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      for (auto* task = first_task(worker); task != nullptr; task = task->next) {
        if (static_cast<pool_task*>(task)->owner.get() == &what) return true;
      }
    }
    return false;
  }

  [[nodiscard]] scheduled_task* first_task(std::uint32_t worker) const {
    return scheduler_.vacant(worker) ? nullptr : scheduler_.front(worker);
  }

  // ---- receiving -----------------------------------------------------------------------------

  [[nodiscard]] bool busy(std::uint32_t worker) const {
    return backend_.present(worker) && !scheduler_.vacant(worker) &&
           workers_[worker].kill == killing::no &&
           (workers_[worker].initializing || first_task(worker) != nullptr);
  }

  bool drain(std::uint32_t worker) {
    try {
      worker_state& state = workers_[worker];
      const std::uint64_t before = state.finished;
      const bool news = backend_.channel(worker).drain(record_sink{*this, worker});
      if (!news) return false;
      if (state.retire_due) send_retire(worker);
      if (state.finished != before) measure(worker, state.finished - before);
      return true;
    } catch (const protocol_violation& what) {
      condemn(worker, what.what());
      return true;
    }
  }

  // Whether the worker should have more tasks at a time, judged by how many it has done since the
  // last time.
  void measure(std::uint32_t worker, std::uint64_t frames) {
    constexpr std::chrono::microseconds short_task{5};
    const auto now = std::chrono::steady_clock::now();
    const auto elapsed = now - std::exchange(workers_[worker].measured, now);
    const bool ran_dry = first_task(worker) == nullptr && scheduler_.pending() > 0;
    if (ran_dry || elapsed < short_task * frames) scheduler_.keep_fuller(worker);
  }

  void drain_last(std::uint32_t worker) {
    try {
      backend_.channel(worker).drain_last(record_sink{*this, worker});
    } catch (const protocol_violation& what) {
      workers_[worker].kill = killing::violation;
      workers_[worker].violation = what.what();
    }
  }

  // It has done what no worker does: nothing from it counts any more.
  void condemn(std::uint32_t worker, const char* why) {
    workers_[worker].violation = why;
    kill(worker, killing::violation, 0);
  }

  // Receives the records of one worker; see result_receiver.
  struct record_sink {
    engine& pool;
    std::uint32_t worker;

    void check(const record_head& head) { pool.check_record(worker, head); }
    void record(const record_head& head, std::span<const std::byte> bytes) {
      pool.take_record(worker, head, bytes);
    }
    void run(const record_head& head, std::uint64_t offset, std::span<const std::byte> bytes) {
      pool.take_run(worker, head, offset, bytes);
    }
  };

  void check_record(std::uint32_t worker, const record_head& head) {
    task_sender& frames = backend_.channel(worker).tasks();
    if (head.kind != record_kind::run && head.length > lives_.max_result_bytes()) {
      throw protocol_violation("a worker announced a result of " + std::to_string(head.length) +
                               " bytes, more than a result may have");
    }
    if (workers_[worker].initializing) {
      if (head.ordinal != 0 || head.item != 0) throw protocol_violation(out_of_turn);
      return;
    }
    const auto* task = static_cast<pool_task*>(scheduler_.front(worker));
    if (task == nullptr || head.ordinal != static_cast<std::uint32_t>(frames.front_ordinal()) ||
        !outcomes::fits(*task, head)) {
      throw protocol_violation(out_of_turn);
    }
  }

  void take_record(std::uint32_t worker, const record_head& head,
                   std::span<const std::byte> bytes) {
    if (workers_[worker].initializing) return initialized(worker, head, bytes);
    auto& task = static_cast<pool_task&>(*scheduler_.front(worker));
    if (head.kind == record_kind::error) {
      outcomes_.fail(task, outcomes_.received(bytes));
    } else {
      outcomes_.pass(task, bytes);
    }
    if (task.finished()) finish_front(worker);
  }

  void take_run(std::uint32_t worker, const record_head& head, std::uint64_t offset,
                std::span<const std::byte> bytes) {
    if (workers_[worker].initializing) return initialized(worker, head, bytes);
    auto& task = static_cast<pool_task&>(*scheduler_.front(worker));
    if (!outcomes::run_fits(task, head)) throw protocol_violation(out_of_turn);  // was open before
    outcomes_.pass_run(task, head, offset, bytes);
    if (task.finished()) finish_front(worker);
  }

  void initialized(std::uint32_t worker, const record_head& head,
                   std::span<const std::byte> bytes) {
    if (head.kind == record_kind::error) {
      workers_[worker].init_error =
          outcomes_.received(bytes);  // it leaves now; its exit is reported
      return;
    }
    workers_[worker].initializing = false;
    backend_.channel(worker).tasks().pop_front();
    starts_.succeeded();
  }

  void finish_front(std::uint32_t worker) {
    auto& task = static_cast<pool_task&>(*scheduler_.front(worker));
    backend_.channel(worker).tasks().pop_front();
    scheduler_.finished(worker);
    ++workers_[worker].finished;
    starts_.succeeded();
    discard(task);
  }

  void end(pool_task& task, const std::exception_ptr& why) {
    abort(*task.owner, why);
    discard(task);
  }

  void discard(pool_task& task) {
    timed_ -= task.head.timed;
    if (!task.body.block.empty()) backend_.blocks().release(task.body.block);
    if (task.owner->use_count() == 1) dead_.push_back(std::move(task.owner));
    store_.give_back(task);
  }

  static constexpr std::chrono::milliseconds between_items{1};  // or between item and news of it
  static constexpr const char* out_of_turn = "a worker sent a result that it was not asked for";

  std::shared_ptr<const initializer_frame> initializer_;
  std::uint32_t spinners_;
  Backend backend_;
  scheduler scheduler_;
  worker_lives lives_;
  start_policy starts_;
  task_store store_;
  std::vector<worker_state> workers_;
  std::vector<std::uint32_t> stalled_;
  outcomes outcomes_;
  std::vector<boost::intrusive_ptr<job>> dead_;
  std::string broken_;
  std::optional<os::time_point> next_look_;
  std::size_t timed_ = 0;  ///< tasks with a time limit
  bool replacing_ = true;
};

}  // namespace procpool::detail
