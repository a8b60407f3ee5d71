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

#include <procpool/detail/death_report.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/outcomes.hpp>
#include <procpool/detail/pool_task.hpp>
#include <procpool/detail/regions.hpp>
#include <procpool/detail/scheduler.hpp>
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
  engine(const region_sizes& sizes, const scheduling_rules& rules,
         std::shared_ptr<const initializer_frame> initializer)
      : initializer_(std::move(initializer)),
        spinners_(rules.favourites),
        backend_(sizes),
        scheduler_(rules),
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
    task.first_index = first_index;
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
    if (!alive && broken_.empty()) break_down("the fork server of the pool has ended unexpectedly");
    dispatch();
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
  // What the pool knows of a worker besides the scheduler's part.
  struct worker_state {
    bool initializing = false;   ///< its initializer has not returned yet
    bool retire_due = false;     ///< has to be told to retire, when there is room
    std::uint64_t finished = 0;  ///< frames
    std::chrono::steady_clock::time_point measured{};  ///< when it last had finished some
    std::exception_ptr init_error;
    std::string violation;  ///< what it did that no worker does; it is being killed
  };

  // ---- workers -------------------------------------------------------------------------------

  void start(std::uint32_t worker) {
    backend_.start(worker);
    backend_.set_spin(worker, worker < spinners_);
    workers_[worker] = worker_state{};
    scheduler_.add(worker);
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
    if (workers_[worker].violation.empty()) drain_last(worker);
    const bool idle = !backend_.channel(worker).tasks().anything_claimed();
    blame(worker, death);
    const worker_state last = workers_[worker];
    abandon_tasks(worker);
    if (!replacing_ || !broken_.empty()) return;
    if (last.initializing || (death.exitcode > 0 && idle)) {
      start_failed(worker, why_not_started(last, death));
    } else {
      replace(worker);
    }
  }

  // The item that was running when the worker died gets the exception.
  void blame(std::uint32_t worker, worker_death death) {
    auto* task = static_cast<pool_task*>(scheduler_.front(worker));
    if (task == nullptr || workers_[worker].initializing) return;
    parent_channel& channel = backend_.channel(worker);
    if (!channel.tasks().claimed(task->ordinal)) return;
    const std::uint64_t started = channel.started();
    if (static_cast<std::uint32_t>(started >> 32) != static_cast<std::uint32_t>(task->ordinal))
      return;
    // Whatever a hostile worker wrote here: outcomes come in order, so the next one is missing.
    const auto running = static_cast<std::uint32_t>(started);
    if (workers_[worker].violation.empty() && running != task->done) return;
    death.item = task->first_index + task->done;
    death.cause = workers_[worker].violation;
    outcomes_.fail(*task, std::make_exception_ptr(WorkerDied(describe_death(death), {death})));
    if (task->finished()) finish_front(worker);
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
    for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) scheduler_.resubmit(**task);
  }

  void replace(std::uint32_t worker) {
    try {
      start(worker);
    } catch (const Error& error) {
      start_failed(worker, error.what());
    }
  }

  // After a few failures in a row more attempts would only burn the machine.
  void start_failed(std::uint32_t worker, const std::string& why) {
    constexpr int enough = 3;
    if (++failed_starts_ >= enough) {
      break_down(why + " (" + std::to_string(failed_starts_) +
                 " workers failed to start in a row)");
    } else {
      replace(worker);
    }
  }

  void break_down(const std::string& why) {
    broken_ = "the pool is broken: " + why;
    end_all(std::make_exception_ptr(BrokenPool(broken_)));
    forget_all();  // workers that still run are not listened to any more
  }

  [[nodiscard]] std::string why_not_started(const worker_state& last, const worker_death& death) {
    if (last.init_error != nullptr) return "the initializer failed: " + describe(last.init_error);
    return (last.initializing ? "the initializer did not return: " : "a worker did not come up: ") +
           describe_death(death);
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

  // Workers that have no task and yet no room: their ring is full of frames that were taken back,
  // which they have not passed yet, or of a streamed initializer. They ring when they have.
  bool resume_stalled() {
    if (stalled_.empty()) return false;
    for (const std::uint32_t worker : std::exchange(stalled_, {})) {
      if (scheduler_.vacant(worker)) continue;
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
           workers_[worker].violation.empty() &&
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
      workers_[worker].violation = what.what();
    }
  }

  // It has written what no worker writes: nothing from it counts any more.
  void condemn(std::uint32_t worker, const char* why) {
    workers_[worker].violation = why;
    backend_.kill(worker);
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
    failed_starts_ = 0;
  }

  void finish_front(std::uint32_t worker) {
    auto& task = static_cast<pool_task&>(*scheduler_.front(worker));
    backend_.channel(worker).tasks().pop_front();
    scheduler_.finished(worker);
    ++workers_[worker].finished;
    failed_starts_ = 0;
    discard(task);
  }

  void end(pool_task& task, const std::exception_ptr& why) {
    abort(*task.owner, why);
    discard(task);
  }

  void discard(pool_task& task) {
    if (!task.body.block.empty()) backend_.blocks().release(task.body.block);
    if (task.owner->use_count() == 1) dead_.push_back(std::move(task.owner));
    store_.give_back(task);
  }

  static constexpr const char* out_of_turn = "a worker sent a result that it was not asked for";

  std::shared_ptr<const initializer_frame> initializer_;
  std::uint32_t spinners_;
  Backend backend_;
  scheduler scheduler_;
  task_store store_;
  std::vector<worker_state> workers_;
  std::vector<std::uint32_t> stalled_;
  outcomes outcomes_;
  std::vector<boost::intrusive_ptr<job>> dead_;
  std::string broken_;
  int failed_starts_ = 0;
  bool replacing_ = true;
};

}  // namespace procpool::detail
