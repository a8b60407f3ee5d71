// SPDX-License-Identifier: MIT
/// @file
/// The pool's service thread: it drives the pool while no other thread waits, and runs callbacks.
///
/// The first asynchronous submission starts it. It sleeps when nothing is outstanding. It does not
/// compete with active threads: it leads only after a whole tick in which no other thread led, and
/// steps down when another thread wants to lead. Callbacks run on it, one after the other, without
/// the lock. It is stopped while the library forks this process (fork_process()).
///
///     absent --ensure()--> leads | runs callbacks | backs off (another thread leads)
///        ^                      | sleeps (nothing outstanding)
///        +--- stop(), a fork ---+      failed: it could not be started; waiting threads run the
///                                      callbacks
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/pool/leader.hpp>
#include <procpool/detail/result/callbacks.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Public members with a `lock` parameter need the pool's lock, and release it while callbacks run.
/// The others are called without it, unless they say otherwise. Any thread.
class service_thread final : private fork_handler {
 public:
  /// @param owner the pool that has these parts; the thread keeps it alive
  service_thread(driver& owner, guarded_engine& pool, leader& lead)
      : owner_(owner), pool_(pool), leader_(lead) {}
  service_thread(const service_thread&) = delete;
  service_thread& operator=(const service_thread&) = delete;

  /// The registration for forks of this process; the pool activates it when all its members exist.
  [[nodiscard]] fork_registration& registration() noexcept { return registration_; }
  /// Whether the thread exists: a hint, which saves taking the lock.
  [[nodiscard]] bool present() const noexcept {
    return present_.load(std::memory_order_relaxed);  // only a hint
  }
  /// Whether a callback runs. With the lock.
  [[nodiscard]] bool in_callback() const noexcept { return in_callback_; }

  // ---- life ----------------------------------------------------------------------------------

  /// Starts the thread if there is none. Does nothing in a pool that has been terminated: the
  /// thread that terminated it runs the remaining callbacks. @throws ProcessError, std::bad_alloc
  void ensure() {
    {
      std::lock_guard lock(pool_.mutex);
      if (pool_.state == phase::terminated) return;
      wanted_ = true;
      if (serving_) return;
    }
    const fork_pause pause;  // no thread may start while another one forks
    start();
  }

  /// Waits until the thread has ended, after the pool has. If a callback has ended the pool, this
  /// is the service thread: it is detached instead.
  void stop() {
    ask_to_stop();
    if (fork_registry::on_library_thread() && is_this_thread()) {
      const fork_pause pause;
      thread_.detach();  // it ends when the callback returns
      return;
    }
    static_cast<void>(registration_.wait_for_end());
    const fork_pause pause;
    if (thread_.joinable()) thread_.join();
  }

  /// Waits until the thread has run all callbacks and has ended; returns at once inside a callback.
  /// @returns false if @p until is reached or a stop is requested before
  [[nodiscard]] bool await_end(std::optional<time_point> until, const stop_token& stop) {
    if (!until && !stop.stop_possible()) return registration_.wait_for_end();
    constexpr std::chrono::milliseconds poll_interval{10};  // a stop request wakes no thread here
    while (!registration_.wait_for_end(poll_interval)) {
      const bool over = until && std::chrono::steady_clock::now() >= *until;
      if (over || stop.stop_requested()) return false;
    }
    return true;
  }

  // ---- callbacks -----------------------------------------------------------------------------

  /// For a callback that waits for @p target, which has all outcomes and callbacks of its own. Runs
  /// those here, because only this thread could make the target ready.
  /// @param no_time_limit of the wait
  /// @returns whether it did, or the target is ready by now; false on any other thread
  /// @throws std::logic_error if the wait could never end: the callback is one of the target's
  bool run_callbacks_inside(std::unique_lock<std::mutex>& lock, const waitable& target,
                            bool no_time_limit) {
    if (pool_.service.callback_thread != std::this_thread::get_id()) return false;
    if (auto awaited = pool_.results.with_callbacks.remove(target.awaited())) {
      run_callbacks_before(lock, std::move(awaited));  // no others: they would run nested in this
    } else if (target.ready()) {
      return true;  // a stop has just been requested
    } else if (no_time_limit) {
      throw std::logic_error("a callback waits for its own result, which is ready after it");
    } else {
      return false;
    }
    return true;
  }

  /// Runs all due callbacks and continuations on the calling thread, which waits, because there is
  /// no service thread. @returns false if none is due, or another thread runs them
  bool run_unserved_callbacks(std::unique_lock<std::mutex>& lock) {
    std::thread::id& callback_thread = pool_.service.callback_thread;
    if (!pool_.callbacks_due() || callback_thread != std::thread::id()) return false;
    callback_thread = std::this_thread::get_id();
    while (pool_.callbacks_due()) {
      run_callbacks(lock);
      run_due(lock);
    }
    // If not, a service thread has started meanwhile.
    if (callback_thread == std::this_thread::get_id()) callback_thread = {};
    return true;
  }

 private:
  using phase = guarded_engine::phase;
  using role = leader::role;

  // Starts the thread if it is wanted and does not exist. Under a fork_pause.
  void start() {
    registration_.expect_thread();  // first: once serving_ is set, others may wait for its end
    if (!begin_serving()) return registration_.unexpect_thread();
    if (thread_.joinable()) thread_.join();  // one that outlasted stop_timeout has ended since
    try {
      const os::signals_blocked guard;  // signals are for the program's own threads
      // The thread keeps the pool alive: a callback may destroy the Pool. std::thread gets a
      // function pointer, not a lambda: its instance for a lambda type is exported even from a
      // module with hidden symbols, and that of another module, with another version of the
      // library, might run instead.
      void (*const begin)(intrusive_ptr<driver>, service_thread*) =
          [](auto /*keeps_alive*/, service_thread* self) { self->serve(); };
      thread_ = std::thread(begin, intrusive_ptr<driver>(&owner_), this);
    } catch (const std::system_error& error) {
      note_failure();
      throw ProcessError("cannot start the service thread of the pool", error.code());
    } catch (...) {  // no memory
      note_failure();
      throw;
    }
  }
  void note_failure() noexcept {
    registration_.unexpect_thread();
    const std::lock_guard lock(pool_.mutex);
    set_serving(false);
    pool_.service.failed = true;
  }

  // Whether to start a thread. From then on it counts as present.
  bool begin_serving() {
    std::lock_guard lock(pool_.mutex);
    stopping_ = pool_.state == phase::terminated;
    if (serving_ || stopping_ || !wanted_) return false;
    set_serving(true);
    return true;
  }
  // With the lock.
  void set_serving(bool serving) noexcept {
    serving_ = serving;
    present_.store(serving, std::memory_order_relaxed);  // as in present()
  }

  void serve() {
    const fork_thread mark(registration_);
    std::unique_lock lock(pool_.mutex);
    pool_.service.callback_thread = std::this_thread::get_id();
    pool_.service.failed = false;
    while (!stopping_ || pool_.callbacks_due()) {
      if (pool_.callbacks_due()) {
        run_callbacks(lock);
        run_due(lock);
      } else if (pool_.schedule.outstanding() == 0 || pool_.state == phase::terminated) {
        idle_wait(lock);
      } else if (leader_.present() || activity_since_last_look()) {
        quiet_ticks_ = 0;
        back_off(lock);
      } else {
        leader_.lead(lock, role::service, other_work(*this), std::nullopt);
      }
    }
    pool_.service.callback_thread = {};
    set_serving(false);
  }

  bool activity_since_last_look() noexcept {
    return std::exchange(seen_activity_, pool_.activity) != pool_.activity;
  }

  // Another thread leads, or did so within the last tick. While the same wait goes on, the ticks
  // get longer; the leader wakes this thread when it steps down.
  void back_off(std::unique_lock<std::mutex>& lock) {
    constexpr int max_doublings = 8;  // of the tick: 256 ms
    const std::uint64_t before = pool_.activity;
    const auto wait = tick * (1 << doublings_);
    pool_.service.backs_off = doublings_ > 0;
    pool_.service.wakes.wait_for(lock, wait);
    pool_.service.backs_off = false;
    const bool same_wait = leader_.owner() == role::caller && pool_.activity == before;
    doublings_ = same_wait ? std::min(doublings_ + 1, max_doublings) : 0;
  }

  // Waits a few more ticks, during which a submission need not wake it; then sleeps.
  void idle_wait(std::unique_lock<std::mutex>& lock) {
    if (stopping_) return;
    if (++quiet_ticks_ < ticks_before_sleep) {
      pool_.service.wakes.wait_for(lock, tick);
      return;
    }
    pool_.service.asleep = true;
    pool_.service.wakes.wait(lock);
    pool_.service.asleep = false;
    quiet_ticks_ = 0;
  }

  // Ends the lead of the service thread when it has something else to do, or nothing at all.
  struct other_work final : waitable {
    explicit other_work(service_thread& of) : service(&of) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return service->stopping_ || service->pool_.schedule.outstanding() == 0 ||
             service->pool_.callbacks_due();
    }
    service_thread* service;
  };

  // Runs the callbacks of all jobs that have their outcomes. Jobs that are added meanwhile are left
  // for the next call.
  void run_callbacks(std::unique_lock<std::mutex>& lock) {
    auto& waiting = pool_.results.with_callbacks;
    for (std::size_t left = waiting.size(); left > 0 && !waiting.empty(); --left) {
      run_callbacks_before(lock, waiting.pop_front());
    }
  }

  // Runs the callbacks of one job, then makes the job ready.
  void run_callbacks_before(std::unique_lock<std::mutex>& lock, intrusive_ptr<job> target) {
    const bool nested = std::exchange(in_callback_, true);  // in another callback
    auto callbacks = target->take_callbacks();  // under the lock: fail_submission() takes them, too
    lock.unlock();
    run_callbacks_of(*target, std::move(callbacks));
    lock.lock();
    pool_.results.set_ready(*target);
    pool_.signal_ready_event();
    in_callback_ = nested;
    pool_.changed.notify_all();
    if (leader_.owner() == role::caller) leader_.interrupt();  // it may wait for this job
    lock.unlock();
    target = nullptr;  // without the lock: may destroy a user's result
    lock.lock();
  }

  // Runs continuations of jobs that are ready.
  void run_due(std::unique_lock<std::mutex>& lock) {
    constexpr int batch = 1024;  // then callbacks have a turn
    const bool nested = std::exchange(in_callback_, true);
    lock.unlock();
    intrusive_ptr<job> done;
    for (int i = 0; i < batch; ++i) {
      continuation* next = pool_.results.due.take(done);
      if (next == nullptr) break;
      driver::run_now(*next, *done);
      done = nullptr;  // without the lock: may destroy a user's result
    }
    lock.lock();
    in_callback_ = nested;
    pool_.changed.notify_all();
  }

  void ask_to_stop() {
    std::lock_guard lock(pool_.mutex);
    stopping_ = true;
    pool_.service.wakes.notify_one();
    if (leader_.owner() == role::service) leader_.preempt_service();
  }

  [[nodiscard]] bool is_this_thread() {
    const fork_pause pause;
    return thread_.get_id() == std::this_thread::get_id();
  }

  // ---- forks of this process: see fork_handler -----------------------------------------------

  void stop_threads() override {
    ask_to_stop();
    if (registration_.wait_for_threads(stop_timeout) && thread_.joinable()) thread_.join();
  }

  void restart_threads() override {
    try {
      start();
    } catch (const std::exception&) {  // the next asynchronous submission tries again, and throws
    }
  }

  void abandon() noexcept override {
    pool_.backend.abandon();
    pool_.ready_event.reset();
    std::construct_at(&thread_);  // not destroyed: the thread does not exist in this process
  }

  static constexpr std::chrono::milliseconds tick{1};
  static constexpr int ticks_before_sleep = 20;
  static constexpr std::chrono::milliseconds stop_timeout{100};  ///< a fork waits for a callback

  driver& owner_;
  guarded_engine& pool_;
  leader& leader_;
  fork_registration registration_{*this, fork_registration::later()};
  std::thread thread_;  ///< changed only under a fork_pause
  // The members below are guarded by the pool's lock, except present_.
  bool wanted_ = false;               ///< there has been an asynchronous submission
  bool serving_ = false;              ///< the thread exists, or is being started
  std::atomic<bool> present_{false};  ///< a copy of serving_ that is read without the lock
  std::uint64_t seen_activity_ = 0;
  int quiet_ticks_ = 0;
  int doublings_ = 0;  ///< of its tick, while another thread leads for a long time
  bool stopping_ = false;
  bool in_callback_ = false;
};

}  // namespace procpool::detail
