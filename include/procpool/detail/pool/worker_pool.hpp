// SPDX-License-Identifier: MIT
/// @file
/// A pool with workers. The members of Pool and of results call it, through pool_interface and
/// driver, to submit work, to wait and to end the pool. Any thread; each member takes the lock
/// itself. It has these parts. A part calls only parts below it, and worker_pool::wait() to wait:
///
///     pool_shutdown    close, join, terminate; stops the service thread
///     pending_limit    the bound on unfinished tasks
///     service_thread   drives while no other thread waits; callbacks
///     leader           the one thread that reads results and sends tasks
///     guarded_engine   the engine and its lock
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/pool/leader.hpp>
#include <procpool/detail/pool/pending_limit.hpp>
#include <procpool/detail/pool/pool_shutdown.hpp>
#include <procpool/detail/pool/service_thread.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/result/ready_observer.hpp>
#include <procpool/detail/ring/arena.hpp>
#include <procpool/detail/ring/block_bin.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class worker_pool final : public pool_interface {
 public:
  /// Starts the workers. @throws ProcessError if one cannot be started; the others are ended then.
  explicit worker_pool(const core_settings& settings, backend_maker make = &make_backend)
      : pool_interface(module_table::instance().refresh(),  // before the workers are forked
                       task_producer::in_line_limit(settings.sizes.ring_bytes), settings.kind),
        pool_(settings, make),
        leader_(pool_, settings.sizes.workers, settings.cpus),
        service_(*this, pool_, leader_),
        limit_(*this, pool_, leader_),
        shutdown_(*this, pool_, leader_, service_),
        slots_(settings.sizes.workers) {
    lack_modules(pool_.backend.missing_modules());
    if (settings.initializer != nullptr) {
      check_code(settings.initializer->entry);
      check_code(settings.initializer->function);
    }
    pool_.engine.start_all();
  }
  ~worker_pool() override { shutdown_.end(); }

  // ---- submitting ----------------------------------------------------------------------------

  void check_open() override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    pool_.check_open();
  }

  [[nodiscard]] std::span<std::byte> allocate(std::size_t size) override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    pool_.check_open();
    return region_with_room().blocks().allocate(size).value_or(std::span<std::byte>());
  }
  [[nodiscard]] std::span<std::byte> allocate_large(std::size_t size) override {
    pool_.check_usable();
    std::span<std::byte> block;
    {
      std::lock_guard lock(pool_.mutex);
      pool_.check_open();
      block = region_with_room().large().allocate(size);
    }
    if (block.empty() || os::populate(block)) return block;  // takes long: without the lock
    release(block);
    return {};
  }
  void release(std::span<std::byte> block) noexcept override {
    if (!ours()) return;  // in a forked child the bin's lock may be copied locked
    pool_.backend.region().discard_pages(block);
    unused_blocks_.put(block);
  }
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> block) override {
    std::lock_guard lock(pool_.mutex);
    return pool_.backend.region().offset(block);
  }

  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) override {
    std::lock_guard lock(pool_.mutex);
    return pool_.engine.table.take_numbers(items);
  }

  void submit(intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body&& body) override {
    pool_.check_usable();
    job_list dead;  // destroyed without the lock
    std::lock_guard lock(pool_.mutex);
    pool_.check_open();
    if (pool_.no_room() && !on_worker()) [[unlikely]]
      limit_.await_room_for_submission();
    if (owner->unattended() && pool_.service.asleep) pool_.service.wakes.notify_one();
    // A leader that has backed off may be asleep and does not balance. The running tasks take long,
    // so this task goes to an idle worker rather than behind one of them.
    const bool long_tasks = leader_.backed_off();
    if (pool_.schedule.spinners_busy() && (pool_.schedule.pending() > 0 || !driven())) {
      drain_before_submit(dead);
      pool_.check_open();  // the drain may have broken the pool
    }
    const auto limit = owner->rules().timeout;
    pool_.engine.submit(std::move(owner), head, first_index, std::move(body),
                        long_tasks ? preference::idle : preference::awake);
    if (limit.count() != 0) leader_.wake_by(limit);
    leader_.interrupt_for_blocked();
  }

  void complete(job& empty_job) override {
    pool_.check_usable();
    const std::lock_guard lock(pool_.mutex);
    pool_.check_open();
    pool_.results.complete(empty_job);
    leader_.notify_waiters();
  }

  void resize(std::uint32_t wanted) override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    pool_.check_open();
    if (wanted > slots_) {
      throw std::invalid_argument(concat(
          {"the pool has room for ", slots_, " workers; make it with more of them to begin with"}));
    }
    pool_.set_workers(wanted);
    leader_.resize();
  }
  [[nodiscard]] std::uint32_t workers() const noexcept override { return pool_.workers(); }

  /// False for a task of a pool of threads: if it waited for room, it could wait for its own end.
  [[nodiscard]] bool full() override {
    pool_.check_usable();
    return !on_worker() && limit_.reached();
  }
  [[nodiscard]] bool await_room(std::optional<time_point> until, const stop_token& stop) override {
    pool_.check_usable();
    return on_worker() || limit_.await_room(until, stop);
  }
  [[nodiscard]] pool_state state() override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    if (pool_.state == phase::terminated) return pool_state::terminated;
    if (!pool_.broken.empty()) return pool_state::broken;
    return pool_.state == phase::closed ? pool_state::closed : pool_state::active;
  }

  void ensure_service(job& target) override {
    target.leave_unattended();                       // submit() checks whether the pool can be used
    if (!service_.present()) ensure_open_service();  // if the hint is stale, submit() finds out
  }

  void fail_submission(job& target, const std::exception_ptr& why) override {
    if (!pool_.ours()) return;
    std::unique_ptr<done_callback> never_called;  // destroyed without the lock: it is the user's
    std::lock_guard lock(pool_.mutex);
    if (pool_.state != phase::terminated) static_cast<void>(pool_.engine.sending.withdraw(target));
    never_called = target.take_callbacks();
    pool_.results.abort(target, why);
    leader_.notify_waiters();
  }

  bool cancel(job& target, bool kill) override {
    if (target.ready() || !pool_.ours()) return false;
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    if (target.resolved() || pool_.state == phase::terminated) return false;
    const std::size_t tasks = pool_.schedule.outstanding();
    const bool nothing_runs = pool_.engine.sending.withdraw(target);
    // A job that has lost a frame cannot be completed any more: it has to end as cancelled.
    bool incomplete = pool_.schedule.outstanding() != tasks;
    if (!nothing_runs && !kill && !target.cancellable_while_running()) return false;
    bool stopped = true;
    if (!nothing_runs && kill) {
      pool_.engine.advance();  // kills no worker for an item whose outcome is there
      if (target.resolved()) return leader_.notify_waiters(), false;
      stopped = pool_.engine.stop_running(target, incomplete);
    }
    if (stopped || incomplete) pool_.engine.abort_cancelled(target);
    leader_.notify_waiters();
    if (!stopped) throw std::bad_alloc();
    return true;
  }

  bool watch(job& target, observer_entry& by) override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    if (target.ready()) return false;
    target.watch(by);
    return true;
  }

  void unwatch(observer_entry& by) noexcept override {
    if (!pool_.ours()) return;                                       // no job becomes ready here
    if (pool_.results.decoding()) return observer_list::remove(by);  // this thread has the lock
    std::lock_guard lock(pool_.mutex);
    observer_list::remove(by);
  }

  bool running(const job& target) override {
    if (target.ready() || !pool_.ours()) return false;
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    return !target.resolved() && pool_.engine.running(target);
  }

  bool when_done(job& target, continuation& then) override {
    if (target.ready()) return false;
    pool_.check_usable();
    if (!service_.present()) service_.ensure();  // a stale hint: it restarts, or the pool has ended
    std::lock_guard lock(pool_.mutex);
    if (target.ready()) return false;
    target.continuations().push(then);
    return true;
  }

  bool withdraw(continuation& then) noexcept override {
    if (!pool_.ours()) return false;
    intrusive_ptr<job> held;  // released without the lock
    std::unique_lock lock(pool_.mutex, std::defer_lock);
    if (!pool_.results.decoding()) lock.lock();  // if decoding, this thread has the lock
    held = pool_.results.due.withdraw(then);
    return true;
  }

  int fileno() override {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    if (!pool_.ready_event) {
      pool_.ready_event = os::event::make();
      static_cast<void>(pool_.results.take_ready());  // only results from now on count
    }
    return pool_.ready_event.get();
  }
  void close_fileno() noexcept override {
    if (!ours()) return;  // abandon() has closed it
    std::lock_guard lock(pool_.mutex);
    pool_.ready_event.reset();
  }

  // ---- waiting -------------------------------------------------------------------------------

  /// Leads if no thread leads, else follows. Runs callbacks on this thread if the service thread
  /// cannot: because there is none, or because this thread is the service thread.
  bool wait(const waitable& target, std::optional<time_point> until) override {
    pool_.check_usable();
    std::unique_lock lock(pool_.mutex);
    while (!target.ready()) {
      if (pool_.service.failed && service_.run_unserved_callbacks(lock)) continue;
      if (until && std::chrono::steady_clock::now() >= *until) return false;
      ++pool_.activity;
      if (target.resolved()) {  // its callbacks have not run
        if (!service_.run_callbacks_inside(lock, target, !until)) leader_.follow(lock, until);
      } else if (!leader_.present() && pool_.state != phase::terminated) {
        leader_.lead(lock, leader::role::caller, target, until);
      } else {
        leader_.follow(lock, until);
      }
    }
    return true;
  }

  /// Through the service thread, unless that could not be started.
  [[nodiscard]] bool drives_itself() override {
    pool_.check_process();
    std::lock_guard lock(pool_.mutex);
    return !pool_.service.failed;
  }

  /// Called when a stop is requested of a waiting thread.
  void wake_waiters() override {
    if (!pool_.ours()) return;  // the wait throws
    // Called by user code that runs under the lock: notify_waiters() wakes them after that.
    if (pool_.results.decoding()) {
      pool_.wake_requested = true;
      return;
    }
    std::lock_guard lock(pool_.mutex);
    pool_.changed.notify_all();
    if (leader_.owner() == leader::role::caller) leader_.interrupt();
  }

  // ---- the end -------------------------------------------------------------------------------

  void close() override { shutdown_.close(); }
  bool join(std::optional<time_point> until, const stop_token& stop) override {
    return shutdown_.join(until, stop);
  }
  void terminate() override { shutdown_.terminate(); }

  [[nodiscard]] bool ours() const noexcept override { return pool_.ours(); }

 private:
  // With the lock: whether a leader reads results, or the service thread will after the callback
  // that submits. Then a drain by the submitting thread costs more than it saves.
  [[nodiscard]] bool driven() const noexcept {
    return leader_.present() || pool_.service.callback_thread == std::this_thread::get_id();
  }

  // With the lock: frees the blocks that were given back, and reserves room in the bin so that
  // every block in use and one more can be given back without memory.
  [[nodiscard]] outbound_region& region_with_room() {
    outbound_region& region = pool_.backend.region();
    unused_blocks_.empty([&](std::span<std::byte> block) { region.release(block); });
    unused_blocks_.make_room(region.blocks().live() + region.large().count() + 1);
    return region;
  }

  // With the lock: reads the results that have arrived. Otherwise a sleeping worker would be woken,
  // or a task would wait, although an awake worker has become free. After a drain that found
  // nothing the next submissions do without. A thread that keeps submitting keeps the service
  // thread from leading, so it also does the leader's maintenance.
  void drain_before_submit(job_list& dead) {
    if (next_drain_in_ > 0) {
      --next_drain_in_;
    } else if (pool_.engine.advance()) {
      ++pool_.activity;
      if (++drains_ % maintenance_every == 0 && !leader_.present()) leader_.run_maintenance();
      if (!pool_.dead.empty()) dead = std::exchange(pool_.dead, {});
      leader_.notify_waiters(leader::urgency::later);
    } else {
      next_drain_in_ = drain_every;
    }
  }

  void ensure_open_service() {
    check_open();
    service_.ensure();
  }
  [[nodiscard]] bool on_worker() noexcept { return pool_.backend.on_worker(); }

  using phase = guarded_engine::phase;

  static constexpr int drain_every = 16;                 ///< submissions
  static constexpr std::uint64_t maintenance_every = 8;  ///< drains; it has to read the clock

  guarded_engine pool_;
  leader leader_;
  service_thread service_;
  pending_limit limit_;
  pool_shutdown shutdown_;
  const std::uint64_t slots_;  ///< for workers: the largest number that resize() accepts
  block_bin unused_blocks_;
  std::uint64_t drains_ = 0;  ///< drains before submissions that found results
  int next_drain_in_ = 0;     ///< submissions without a drain, after one that found nothing
  fork_membership membership_{service_.registration()};  // last: forks see a complete pool
};

}  // namespace procpool::detail
