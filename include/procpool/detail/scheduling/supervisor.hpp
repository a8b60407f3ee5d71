// SPDX-License-Identifier: MIT
/// @file
/// Starts workers and replaces those that end. Used under the pool's lock. Which item is charged
/// for a death: death_attribution.hpp.
///
/// A death is reported once, and no caller could report an error. So nothing here fails: text about
/// a death is as complete as memory allows, an item whose WorkerDied cannot be allocated ends with
/// std::bad_alloc, and a start that fails is tried again.
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

#include <procpool/detail/backend/restart_policy.hpp>
#include <procpool/detail/backend/worker_event.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/crash/death_report.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/scheduling/death_attribution.hpp>
#include <procpool/detail/scheduling/dispatcher.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/result_processor.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class supervisor {
 public:
  /// @param wanted   the number of workers
  /// @param spinners workers below this number may spin while they wait for work
  supervisor(worker_table& pool, dispatcher& sending, result_processor& receiving,
             restart_policy& starts, std::shared_ptr<const initializer_frame> initializer,
             std::uint32_t wanted, std::uint32_t spinners)
      : pool_(pool),
        sending_(sending),
        receiving_(receiving),
        restarts_(starts),
        deaths_(pool, receiving),
        initializer_(std::move(initializer)),
        wanted_(wanted),
        spinners_(spinners) {
    restarts_.reserve(pool.workers.size());
  }

  /// Starts all workers and waits until each has been forked.
  /// @throws ProcessError if a worker cannot be forked; the backend's destructor ends the others.
  void start_all() {
    constexpr std::uint32_t window = 16;  // requests in flight; more could fill a socket buffer
    std::vector<worker_event> early_deaths;
    start_backoff backoff;
    std::uint32_t requested = 0;
    for (std::uint32_t started = 0; started < wanted_;) {
      while (requested < wanted_ && requested - started < window)
        start_with_backoff(requested++, backoff);
      const worker_event report = await_report();
      if (report.kind == worker_event::kind_type::started) {
        ++started;
      } else if (report.kind == worker_event::kind_type::exited) {
        early_deaths.push_back(report);
      } else {
        sending_.requeue_tasks_of(report.worker);
        start_again(report, backoff);
      }
    }
    for (const worker_event& report : early_deaths) handle(report);
  }

  /// Handles the end of a worker, or a failed start.
  void handle(const worker_event& report) noexcept {
    using kind = worker_event::kind_type;
    if (report.kind == kind::exited) {
      worker_exited(report);
    } else if (report.failed_to_start()) {
      if (pool_.schedule.vacant(report.worker)) return pool_.backend->free_slot(report.worker);
      sending_.requeue_tasks_of(report.worker);
      if (!replacing_ || report.worker >= wanted_) return;
      start_failed(
          report.worker, text_or_none([&] {
            return concat({report.attempt(), ": ", std::generic_category().message(report.status)});
          }),
          failure_of(report.status));
    }
  }

  /// Starts postponed workers that are due. @returns when the next one is due
  [[nodiscard]] std::optional<os::time_point> start_due(os::time_point now) noexcept {
    while (const auto worker = restarts_.due(now)) {
      if (*worker < wanted_ && pool_.schedule.vacant(*worker)) replace(*worker);
    }
    return restarts_.next();
  }

  /// Changes the number of workers. New ones start; surplus ones leave after their current task.
  /// @returns the new number; fewer than @p wanted if the system refuses more
  std::uint32_t resize(std::uint32_t wanted) noexcept {
    const std::uint32_t before = std::exchange(wanted_, wanted);
    for (std::uint32_t worker = 0; worker < wanted_ && pool_.broken.empty(); ++worker) {
      if (!pool_.schedule.vacant(worker) || restarts_.postponed(worker)) continue;
      if (worker < before) {
        if (!pool_.recycling.may_stop_idle()) replace(worker);
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

  /// Whether a slot is vacant only because its worker was idle and left.
  [[nodiscard]] bool any_idle_stopped() const noexcept {
    if (!pool_.recycling.may_stop_idle() || !replacing_ || !pool_.broken.empty()) return false;
    for (std::uint32_t worker = 0; worker < wanted_; ++worker) {
      if (stopped_idle(worker)) return true;
    }
    return false;
  }
  /// Starts as many of these again as there is work for.
  void restart_idle() noexcept {
    if (!any_idle_stopped()) return;
    for (std::uint32_t worker = 0; worker < wanted_ && pool_.broken.empty(); ++worker) {
      if (!pool_.schedule.work_for_more()) return;
      if (!stopped_idle(worker)) continue;
      replace(worker);
      sending_.balance();
    }
  }

  /// No worker is replaced after this.
  void stop_replacing() {
    replacing_ = false;
    restarts_.clear();
  }

  /// Breaks the pool: all unfinished jobs end with BrokenPool.
  void break_pool(const std::string& why) noexcept {
    if (why.empty()) return break_pool_no_memory();
    std::exception_ptr error;
    try {
      std::string text = "the pool is broken: " + why;
      error = std::make_exception_ptr(BrokenPool(text));
      pool_.broken = std::move(text);
    } catch (const std::bad_alloc&) {
      return break_pool_no_memory();
    }
    end_broken(error);
  }
  /// The same without allocating.
  void break_pool_no_memory() noexcept {
    pool_.broken.swap(pool_.prepared.no_memory_text);
    end_broken(pool_.prepared.no_memory);
  }

  /// Ends every unfinished job with this exception. Items that workers have finished by now keep
  /// their outcomes; nothing is read from workers afterwards.
  void end_all(const std::exception_ptr& why, ending kind = ending::failed) noexcept {
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.busy(worker)) receiving_.drain_last(worker);
    }
    pool_.schedule.drop_pending([&](scheduled_task& each) {
      auto& task = static_cast<pool_task&>(each);
      pool_.results.abort(*task.owner, why, kind);
      pool_.discard(task);
    });
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      for (auto* task = pool_.first_task(worker); task != nullptr;
           task = worker_table::next_task(*task)) {
        pool_.results.abort(*task->owner, why, kind);
      }
    }
  }

  /// Releases all workers, tasks and jobs when no outcome can arrive any more.
  void release_all() noexcept {
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (pool_.schedule.vacant(worker)) continue;
      pool_.schedule.died(
          worker, [this](scheduled_task& task) { pool_.discard(static_cast<pool_task&>(task)); });
      pool_.workers[worker] = {};
    }
  }

 private:
  void end_broken(const std::exception_ptr& error) noexcept {
    restarts_.clear();
    pool_.backend->region().large().keep_pages();  // workers that still run may read them
    end_all(error);
    release_all();
  }

  // The result of @p make; empty if there is no memory for it.
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
    pool_.backend->start(worker, pool_.recycling.limits());
    pool_.backend->set_spin(worker, worker < spinners_);
    pool_.workers[worker] = {};
    pool_.schedule.add(worker, pool_.recycling.most_tasks());
    if (initializer_ != nullptr) send_initializer(worker);
  }

  [[nodiscard]] bool stopped_idle(std::uint32_t worker) const noexcept {
    return pool_.schedule.vacant(worker) && !restarts_.postponed(worker);
  }

  worker_event await_report() {
    const auto report = pool_.backend->await_report();
    if (!report) throw ProcessError("the fork server of the pool ended while workers were started");
    return *report;
  }

  // While the pool is made. A start that the system refuses at once throws.
  void start_with_backoff(std::uint32_t worker, start_backoff& backoff) {
    while (true) {
      try {
        return start(worker);
      } catch (const ProcessError& refused) {
        if (!backoff.wait_after(refused.code().value())) throw;
      }
    }
  }
  // The same for a start that is refused later, by a report.
  void start_again(const worker_event& refused, start_backoff& backoff) {
    if (!backoff.wait_after(refused.status)) {
      os::throw_errno(concat({"the pool cannot be made: ", refused.attempt(), backoff.text()}),
                      refused.status);
    }
    start_with_backoff(refused.worker, backoff);
  }

  // Starts a further worker. If that fails, the others go on.
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
      const auto* refused = dynamic_cast<const ProcessError*>(&error);
      const bool no_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
      start_failed(worker, text_or_none([&] { return std::string(error.what()); }),
                   no_memory ? start_failure::refusal
                             : failure_of(refused != nullptr ? refused->code().value() : 0));
    }
  }

  void send_initializer(std::uint32_t worker) {
    parent_channel& channel = pool_.backend->channel(worker);
    frame_head head{};
    head.kind = frame_kind::run;
    head.entry_offset = initializer_->entry.offset;
    head.entry_module = initializer_->entry.module;
    head.item_count = 1;
    head.initializer = 1;
    head.first_number = unnumbered;
    head.body_size = initializer_->body.size();
    const bool small = head.body_size <= channel.tasks.in_line_limit();
    head.place = small ? body_place::in_line : body_place::stream;
    (void)channel.send(head, initializer_->body.view());  // the ring is empty, so there is room
    pool_.workers[worker].initializing = true;
    pool_.workers[worker].since = std::chrono::steady_clock::now();
  }

  // The order matters: first read its last records, then charge an item, then requeue the rest.
  void worker_exited(const worker_event& report) noexcept {
    const std::uint32_t worker = report.worker;
    if (pool_.schedule.vacant(worker)) return pool_.backend->free_slot(worker);  // broken before
    if (pool_.workers[worker].kill != killing::violation) receiving_.drain_last(worker);
    collect_dead_processes(false);  // shared objects that nobody else holds
    const bool began_nothing = pool_.workers[worker].finished == 0 &&
                               !pool_.backend->channel(worker).tasks.anything_claimed();
    worker_death death{.pid = report.pid, .exitcode = report.status};
    deaths_.complete(worker, death);
    if (report.startup.ready == 0 && began_nothing) return never_came_up(report, death);
    const bool died_at_start = death.exitcode > 0 && began_nothing;
    pool_task* task = pool_.first_task(worker);
    const bool initializing = pool_.workers[worker].initializing;
    if (!initializing && !died_at_start) restarts_.came_up(worker);
    const bool charged_item =
        task != nullptr && !initializing && deaths_.charged(worker, *task, death, died_at_start);
    if (charged_item) deaths_.charge(worker, *task, death);
    const worker_state last = std::move(pool_.workers[worker]);
    sending_.requeue_tasks_of(worker);
    pool_.shrink(wanted_);
    if (!replacing_ || !pool_.broken.empty() || worker >= wanted_) return;
    if (charged_item) restarts_.succeeded();  // the task failed, not the start
    const bool stopped_idle =
        pool_.recycling.may_stop_idle() && death.exitcode == 0 && last.kill == killing::no;
    if (last.initializing || (died_at_start && !charged_item))
      return start_failed(worker, why_not_started(last, death), start_failure::error);
    if (!stopped_idle || charged_item) replace(worker);
  }

  // The worker began no task: no item is charged, and others run its tasks.
  void never_came_up(const worker_event& report, const worker_death& death) noexcept {
    const std::uint32_t worker = report.worker;
    const worker_state last = std::move(pool_.workers[worker]);
    sending_.requeue_tasks_of(worker);
    pool_.shrink(wanted_);
    if (!replacing_ || !pool_.broken.empty() || worker >= wanted_) return;
    if (last.kill == killing::late) {
      return start_failed(worker, why_not_started(last, death), start_failure::error);
    }
    if (last.kill != killing::no) return replace(worker);
    const bool killed_by_others = death.exitcode < 0 && !is_crash(-death.exitcode);
    start_failed(
        worker, text_or_none([&] {
          const std::string what = concat({"a worker did not come up: ", describe_death(death)});
          const auto why = report.startup.why();
          return why.empty() ? what : concat({what, ": ", why});
        }),
        killed_by_others ? start_failure::refusal : failure_of(report.startup.error));
  }

  void start_failed(std::uint32_t worker, const std::string& why, start_failure kind) noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (!restarts_.failed(worker, kind, any_up(), now)) return;
    break_pool(text_or_none([&] {
      if (kind == start_failure::error) {
        return concat({why, " (", restarts_.errors(), " workers failed to start in a row)"});
      }
      return concat({why, " (no worker could be started for ",
                     in_seconds(round<std::chrono::milliseconds>(restarts_.refused_for())), ", ",
                     restarts_.refusals(), " attempts)"});
    }));
  }

  [[nodiscard]] bool any_up() const noexcept {
    for (std::uint32_t worker = 0; worker < pool_.size(); ++worker) {
      if (!pool_.schedule.vacant(worker) && pool_.backend->channel(worker).anybody_there())
        return true;
    }
    return false;
  }

  [[nodiscard]] std::string why_not_started(const worker_state& last,
                                            const worker_death& death) const noexcept {
    return text_or_none([&] {
      if (last.init_error != nullptr)
        return concat({"the initializer failed: ", describe(last.init_error)});
      if (last.kill == killing::late) {
        return concat({"the initializer did not return within its time limit of ",
                       in_seconds(pool_.recycling.initializer_timeout()), ": ",
                       describe_death(death)});
      }
      return concat(
          {last.initializing ? "the initializer did not return: " : "a worker did not come up: ",
           describe_death(death)});
    });
  }

  worker_table& pool_;
  dispatcher& sending_;
  result_processor& receiving_;
  restart_policy& restarts_;
  death_attribution deaths_;
  std::shared_ptr<const initializer_frame> initializer_;
  std::uint32_t wanted_;
  std::uint32_t spinners_;
  bool replacing_ = true;
};

}  // namespace procpool::detail
