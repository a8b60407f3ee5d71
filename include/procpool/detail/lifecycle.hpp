// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// Births and deaths of workers: who starts, who is replaced, and which item is charged for a
/// death.
///
/// What is lost when a worker dies: the item that was running, nothing else. Items before it have
/// their outcomes in the ring; items behind it and frames not begun go back to the queue.
///
/// A death is told once, and nobody calls who could be told of a failure here. So nothing fails:
/// what has to be said of a death is said as far as there is memory, an item that cannot be told
/// of its worker's end ends with std::bad_alloc, and a worker that cannot be started is tried again
/// like any other.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/detail/byte_buffer.hpp>
#include <procpool/detail/code_ref.hpp>
#include <procpool/detail/collector.hpp>
#include <procpool/detail/concat.hpp>
#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/death_report.hpp>
#include <procpool/detail/dispatcher.hpp>
#include <procpool/detail/layout.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/pool_task.hpp>
#include <procpool/detail/roster.hpp>
#include <procpool/detail/start_policy.hpp>
#include <procpool/detail/task_body.hpp>
#include <procpool/detail/worker_report.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class lifecycle {
 public:
  /// @param wanted   how many workers there are to be
  /// @param spinners the first so many workers may spin while they wait for work
  lifecycle(roster& pool, dispatcher& sending, collector& receiving, start_policy& starts,
            std::shared_ptr<const initializer_frame> initializer, std::uint32_t wanted,
            std::uint32_t spinners)
      : pool_(pool),
        sending_(sending),
        receiving_(receiving),
        starts_(starts),
        initializer_(std::move(initializer)),
        wanted_(wanted),
        spinners_(spinners) {
    starts_.reserve(pool.workers.size());
  }

  /// Starts all workers and waits until each has been forked.
  /// @throws ProcessError when one cannot be; the others are ended by the backend's destructor.
  void start_all() {
    constexpr std::uint32_t window = 16;  // requests on the way, so that no socket buffer fills up
    std::vector<worker_report> early_deaths;
    std::uint32_t asked = 0;
    for (std::uint32_t started = 0; started < wanted_;) {
      while (asked < wanted_ && asked - started < window) start(asked++);
      const worker_report report = await_report();
      if (report.kind == worker_report::kind_type::started) ++started;
      if (report.kind == worker_report::kind_type::exited) early_deaths.push_back(report);
    }
    for (const worker_report& report : early_deaths) handle(report);
  }

  /// A worker has come to its end, or to no beginning.
  void handle(const worker_report& report) noexcept {
    using kind = worker_report::kind_type;
    if (report.kind == kind::exited) {
      worker_exited(report.worker, {.pid = report.pid, .exitcode = report.status});
    } else if (report.failed_to_start()) {
      if (pool_.schedule.vacant(report.worker)) return pool_.backend->vacate(report.worker);
      sending_.abandon(report.worker);
      if (!replacing_ || report.worker >= wanted_) return;
      start_failed(
          report.worker, text_or_none([&] {
            return concat({report.attempt(), ": ", std::generic_category().message(report.status)});
          }));
    }
  }

  /// Starts the workers that had to wait for it. @returns when there will be more to start
  [[nodiscard]] std::optional<os::time_point> start_due(os::time_point now) noexcept {
    while (const auto worker = starts_.due(now)) {
      if (*worker < wanted_ && pool_.schedule.vacant(*worker)) replace(*worker);
    }
    return starts_.next();
  }

  /// From now on there are to be so many workers: more are started, those beyond leave when they
  /// have done what they have begun.
  /// @returns how many there are to be: fewer when the system has no room for more
  std::uint32_t resize(std::uint32_t wanted) noexcept {
    const std::uint32_t before = std::exchange(wanted_, wanted);
    for (std::uint32_t worker = 0; worker < wanted_ && pool_.broken.empty(); ++worker) {
      if (!pool_.schedule.vacant(worker) || starts_.postponed(worker)) continue;
      if (worker < before) {
        replace(worker);
      } else if (!grow(worker)) {
        wanted_ = worker;
      }
    }
    wanted = wanted_;
    for (std::uint32_t worker = wanted; worker < pool_.size(); ++worker) {
      if (pool_.schedule.vacant(worker)) continue;
      pool_.schedule.retire(worker);
      if (const auto* task = pool_.first_task(worker))
        sending_.take_back(worker, task->head.ordinal);
    }
    sending_.dispatch();
    return wanted_;
  }

  /// From now on nobody is replaced.
  void stop_replacing() {
    replacing_ = false;
    starts_.clear();
  }

  /// Nothing can be run any more: everything outstanding ends with BrokenPool.
  void break_down(const std::string& why) noexcept {
    if (why.empty()) return break_down_for_want_of_memory();
    std::exception_ptr error;
    try {
      std::string text = "the pool is broken: " + why;
      error = std::make_exception_ptr(BrokenPool(text));
      pool_.broken = std::move(text);
    } catch (const std::bad_alloc&) {
      return break_down_for_want_of_memory();
    }
    end_broken(error);
  }
  /// The same; needs none.
  void break_down_for_want_of_memory() noexcept {
    pool_.broken.swap(pool_.prepared.no_memory_text);
    end_broken(pool_.prepared.no_memory);
  }

  /// Ends every job that is outstanding with this exception. Items that workers have finished by
  /// now keep their outcomes; nothing is read from them afterwards.
  void end_all(const std::exception_ptr& why, ending how = ending::failed) noexcept {
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) receiving_.drain_last(worker);
    }
    pool_.schedule.drop_pending([&](scheduled_task& each) {
      auto& task = static_cast<pool_task&>(each);
      pool_.results.abort(*task.owner, why, how);
      pool_.discard(task);
    });
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      for (auto* task = pool_.first_task(worker); task != nullptr;
           task = roster::next_task(*task)) {
        pool_.results.abort(*task->owner, why, how);
      }
    }
  }

  /// Lets go of all workers, tasks and jobs, when nothing will come of them any more.
  void forget_all() noexcept {
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.schedule.vacant(worker)) continue;
      pool_.schedule.died(
          worker, [this](scheduled_task& task) { pool_.discard(static_cast<pool_task&>(task)); });
      pool_.workers[worker] = {};
    }
  }

 private:
  void end_broken(const std::exception_ptr& error) noexcept {
    starts_.clear();
    end_all(error);
    forget_all();  // workers that still run are not listened to any more
  }

  // What @p make returns; nothing when there is no memory for it.
  template <class Make>
  [[nodiscard]] static std::string text_or_none(Make make) noexcept {
    try {
      return make();
    } catch (...) {
      return {};
    }
  }

  void start(std::uint32_t worker) {
    pool_.use(worker);
    pool_.backend->start(worker, pool_.lives.limits());
    pool_.backend->set_spin(worker, worker < spinners_);
    pool_.workers[worker] = {};
    pool_.schedule.add(worker, pool_.lives.most_tasks());
    if (initializer_ != nullptr) send_initializer(worker);
  }

  worker_report await_report() {
    const auto got = pool_.backend->await_report();
    if (!got) throw ProcessError("the fork server of the pool ended while workers were started");
    if (got->failed_to_start()) {
      os::throw_errno(concat({"the pool cannot be made: ", got->attempt()}), got->status);
    }
    return *got;
  }

  // One more than there were. If it cannot be had, the others go on.
  [[nodiscard]] bool grow(std::uint32_t worker) noexcept {
    try {
      start(worker);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  void replace(std::uint32_t worker) noexcept {
    try {
      start(worker);
    } catch (const std::exception& error) {
      start_failed(worker, text_or_none([&] { return std::string(error.what()); }));
    }
  }

  void send_initializer(std::uint32_t worker) {
    parent_channel& channel = pool_.channel(worker);
    frame_head head{};
    head.kind = frame_kind::run;
    head.entry_offset = initializer_->entry.offset;
    head.entry_module = initializer_->entry.module;
    head.item_count = 1;
    head.initializer = 1;
    head.first_number = unnumbered;
    head.body_size = initializer_->body.size();
    const bool small = head.body_size <= channel.tasks().in_line_limit();
    head.place = small ? body_place::in_line : body_place::stream;
    (void)channel.send(head, initializer_->body.view());  // the ring is empty: there is room
    pool_.workers[worker].initializing = true;
  }

  // The order matters: first what it still had to say, then who is to blame, then the rest.
  void worker_exited(std::uint32_t worker, worker_death death) noexcept {
    if (pool_.schedule.vacant(worker))
      return pool_.backend->vacate(worker);  // the pool broke before that
    if (pool_.workers[worker].kill != killing::violation) receiving_.drain_last(worker);
    const bool unborn = death.exitcode > 0 && pool_.workers[worker].finished == 0 &&
                        !pool_.channel(worker).tasks().anything_claimed();
    complete(worker, death);
    pool_task* task = pool_.first_task(worker);
    const bool initializing = pool_.workers[worker].initializing;
    const bool blamed = task != nullptr && !initializing && charged(worker, *task, death, unborn);
    if (blamed) charge(worker, *task, death);
    const worker_state last = std::move(pool_.workers[worker]);
    sending_.abandon(worker);
    pool_.shrink(wanted_);
    if (!replacing_ || !pool_.broken.empty() || worker >= wanted_) return;
    if (blamed) starts_.succeeded();  // it was the task, not the start
    if (last.initializing || (unborn && !blamed)) {
      start_failed(worker, why_not_started(last, death));
    } else {
      replace(worker);
    }
  }

  // What can be said of a death without looking at tasks, as far as there is memory for it.
  void complete(std::uint32_t worker, worker_death& death) noexcept {
    try {
      describe_end_of(worker, death);
    } catch (...) {  // so be it
    }
  }
  void describe_end_of(std::uint32_t worker, worker_death& death) {
    const worker_state& state = pool_.workers[worker];
    death.worker = pool_.backend->name(worker);
    if (state.kill == killing::violation) death.cause = state.violation;
    if (state.kill == killing::late) death.cause = "it ran longer than its time limit";
    if (state.kill != killing::no || death.exitcode >= 0) return;
    crash_report last_words = pool_.backend->last_words(worker, -death.exitcode);
    death.fault_address = last_words.fault_address;
    death.reason = std::move(last_words.reason);
    death.stack = without_callers(std::move(last_words.stack));
  }

  // Whether the next item of its front task was running when the worker died.
  // @param unborn the worker left as if it could not start
  bool charged(std::uint32_t worker, pool_task& task, const worker_death& death,
               bool unborn) noexcept {
    // A worker that overwrote its own word before it died cannot lead us in circles for ever, nor
    // break the pool.
    const std::uint16_t most = unborn ? pool_task::most_unborn : pool_task::most_orphaned;
    const killing kill = pool_.workers[worker].kill;
    const bool ours = kill == killing::late || kill == killing::cancelled;  // for what is done
    const bool expected = ours || left_in_order(worker, death);
    return was_running(worker, task) || (!expected && ++task.orphaned >= most);
  }

  // That item is tried again, or it gets the exception.
  void charge(std::uint32_t worker, pool_task& task, worker_death& death) noexcept {
    if (task.attempt <= task.owner->rules().retries && !task.owner->resolved()) {
      note_death(worker, task, death);
      ++task.attempt;
      return;
    }
    pool_.results.fail(task, verdict_or_shortage(worker, task, death));
    task.had = nullptr;
    if (task.finished()) receiving_.finish_front(worker);
  }

  // Among those of the item. Whether there was memory for it.
  bool note_death(std::uint32_t worker, pool_task& task, worker_death& death) noexcept {
    try {
      death.item = task.next_index() + running_part(worker, task);
      death.callable = task.owner->rules().callable.text();
      death.attempt = task.attempt;
      task.trouble_of().deaths.push_back(std::move(death));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  // What the item ends with: std::bad_alloc when there is no memory for more.
  [[nodiscard]] std::exception_ptr verdict_or_shortage(std::uint32_t worker, pool_task& task,
                                                       worker_death& death) noexcept {
    try {
      if (note_death(worker, task, death)) return verdict(worker, task);
    } catch (...) {  // as if it could not be noted
    }
    return std::make_exception_ptr(std::bad_alloc());
  }

  // Whether it may have left because it had grown too large: after a task, in front of the next.
  [[nodiscard]] bool left_in_order(std::uint32_t worker, const worker_death& death) const {
    return pool_.lives.may_leave() && death.exitcode == 0 && pool_.workers[worker].finished > 0;
  }

  // Whether a dead worker had begun with the next item of its front task: it was seen running it,
  // or says so. What may have run must not run again.
  [[nodiscard]] bool was_running(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    parent_channel& channel = pool_.channel(worker);
    const std::uint64_t next = started_mark(task.head.ordinal, task.done);
    const bool seen = state.running && state.watched >= next &&
                      state.watched < started_mark(task.head.ordinal, task.most_started());
    if (seen || !word_possible(channel, task)) return true;
    if (!task.part(channel.started()) || !channel.tasks().claimed(task.head.ordinal)) return false;
    if (task.body.parts != 1) return true;  // what ran of it is lost
    // One that came after the item it was killed for was held back, see stop().
    return state.kill == killing::no || state.kill == killing::violation || state.target == next;
  }

  // Of an item with several parts: the one for which the worker died, if that can be told.
  [[nodiscard]] std::uint32_t running_part(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    const bool late = state.kill == killing::late;
    return task.part(late ? state.target : pool_.channel(worker).started()).value_or(0);
  }

  // Whether what a worker says it has started can be true. Outcomes are in order, so it was at the
  // next item or had just finished the one before it; or it had not begun with this frame.
  [[nodiscard]] static bool word_possible(parent_channel& channel, const pool_task& task) {
    const std::uint64_t started = channel.started();
    const std::uint64_t next = started_mark(task.head.ordinal, task.done);
    if (task.part(started) || (task.done > 0 && started + 1 == next)) return true;
    const auto answered = channel.tasks().last_answered();
    if (answered) return started >> 32 == started_mark(*answered, 0) >> 32;
    return started == nothing_started || started == 0;  // 0: it did not come as far as to say so
  }

  [[nodiscard]] std::exception_ptr verdict(std::uint32_t worker, const pool_task& task) {
    const worker_state& state = pool_.workers[worker];
    auto again = pool_.copy_for_replay(worker, task);
    const std::size_t index = task.next_index();
    if (task.owner->wants_replay(index)) task.owner->keep_replay(index, again);
    const bool out_of_cpu =
        pool_.lives.cpu_ns() != 0 && task.had->deaths.back().exitcode == -SIGXCPU;
    if (state.kill == killing::late) return too_late(task.had->deaths, task.owner->rules().timeout);
    if (out_of_cpu) {
      return out_of_time(task.had->deaths, std::chrono::nanoseconds(pool_.lives.cpu_ns()));
    }
    return worker_died(task.had->deaths, std::move(again));
  }

  void start_failed(std::uint32_t worker, const std::string& why) noexcept {
    if (starts_.failed()) {
      break_down(text_or_none([&] {
        return concat({why, " (", starts_.failures(), " workers failed to start in a row)"});
      }));
    } else {
      starts_.postpone(worker, std::chrono::steady_clock::now());
    }
  }

  [[nodiscard]] static std::string why_not_started(const worker_state& last,
                                                   const worker_death& death) noexcept {
    return text_or_none([&] {
      if (last.init_error != nullptr)
        return concat({"the initializer failed: ", describe(last.init_error)});
      return concat(
          {last.initializing ? "the initializer did not return: " : "a worker did not come up: ",
           describe_death(death)});
    });
  }

  roster& pool_;
  dispatcher& sending_;
  collector& receiving_;
  start_policy& starts_;
  std::shared_ptr<const initializer_frame> initializer_;
  std::uint32_t wanted_;
  std::uint32_t spinners_;
  bool replacing_ = true;
};

}  // namespace procpool::detail
