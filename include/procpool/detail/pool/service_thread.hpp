// SPDX-License-Identifier: MIT
/// @file
/// The pool's service thread: progress while nobody waits, and callbacks.
///
/// The first asynchronous submission starts it. It sleeps when nothing is outstanding. It stays out
/// of the way of threads that are active: it leads only after a whole tick in which nobody led, and
/// steps down when another thread wants to. Callbacks run on it, one after the other, without the
/// lock. It is stopped while this process forks on the library's account.
///
///     absent --ensure()--> leads | runs callbacks | backs off (another thread leads)
///        ^                      | sleeps (nothing outstanding)
///        +--- stop(), a fork ---+      failed: it could not be started; threads that wait run
///                                      the callbacks
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

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
#include <procpool/error.hpp>

namespace procpool::detail {

/// Those members that get the lock need it; the others take it themselves.
class service_thread final : private fork_handler {
 public:
  /// @param owner of all this: the thread keeps it alive
  service_thread(driver& owner, guarded_engine& pool, leader& lead)
      : owner_(owner), pool_(pool), leader_(lead) {}
  service_thread(const service_thread&) = delete;
  service_thread& operator=(const service_thread&) = delete;

  /// For forks of this process; the pool makes it known when it is complete.
  [[nodiscard]] fork_registration& registration() noexcept { return registration_; }
  /// A hint, to go without the lock.
  [[nodiscard]] bool there() const noexcept {
    return there_.load(std::memory_order_relaxed);  // only a hint
  }
  /// With the lock: a callback runs.
  [[nodiscard]] bool in_callback() const noexcept { return in_callback_; }

  // ---- life ----------------------------------------------------------------------------------

  /// Starts the thread if there is none. Not for a pool that has been terminated: the thread that
  /// ends it runs what there is to run. @throws ProcessError, std::bad_alloc
  void ensure() {
    {
      std::lock_guard lock(pool_.mutex);
      if (pool_.state == phase::terminated) return;
      wanted_ = true;
      if (serving_) return;
    }
    const fork_pause none;  // no thread may come into being while another one forks
    start();
  }

  /// The pool has ended: waits for the thread, unless this is a callback that has ended the pool.
  void stop() {
    ask_to_stop();
    if (fork_registry::on_library_thread() && is_this_thread()) {
      const fork_pause none;
      thread_.detach();  // it ends when the callback returns
      return;
    }
    static_cast<void>(registration_.wait_for_end());
    const fork_pause none;
    if (thread_.joinable()) thread_.join();
  }

  /// Waits until it has run all callbacks, unless this is one of them. False: not by @p until, or a
  /// stop was requested.
  [[nodiscard]] bool await_end(std::optional<time_point> until, const stop_token& stop) {
    if (!until && !stop.stop_possible()) return registration_.wait_for_end();
    constexpr std::chrono::milliseconds a_while{10};  // nobody tells of a stop here
    while (!registration_.wait_for_end(a_while)) {
      const bool over = until && std::chrono::steady_clock::now() >= *until;
      if (over || stop.stop_requested()) return false;
    }
    return true;
  }

  // ---- callbacks -----------------------------------------------------------------------------

  /// A callback waits for a result that has callbacks, too: its own thread runs those, because
  /// nothing else could make the result ready. Whether it did, or the result is ready by now.
  bool run_callbacks_inside(std::unique_lock<std::mutex>& lock, const waitable& what,
                            bool for_ever) {
    if (pool_.service.callback_thread != std::this_thread::get_id()) return false;
    if (auto its = pool_.engine.with_callbacks().remove(what.awaited())) {
      run_callbacks_before(lock, std::move(its));  // no others: they would run inside of this one
    } else if (what.ready()) {
      return true;  // a stop was requested at this moment
    } else if (for_ever) {
      throw std::logic_error("a callback waits for its own result, which is ready after it");
    } else {
      return false;
    }
    return true;
  }

  /// Runs the callbacks on the calling thread, which waits, because there is no service thread.
  /// Whether there were any and nobody else runs them.
  bool run_unserved_callbacks(std::unique_lock<std::mutex>& lock) {
    std::thread::id& callback_thread = pool_.service.callback_thread;
    if (!pool_.callbacks_due() || callback_thread != std::thread::id()) return false;
    callback_thread = std::this_thread::get_id();
    while (pool_.callbacks_due()) {
      run_callbacks(lock);
      run_due(lock);
    }
    // Otherwise there is a service thread by now.
    if (callback_thread == std::this_thread::get_id()) callback_thread = {};
    return true;
  }

 private:
  using phase = guarded_engine::phase;
  using role = leader::role;

  // Starts the thread if it is wanted and not there. Under a fork_pause or after a fork.
  void start() {
    registration_.expect_thread();  // not when it begins: from here on it may be waited for
    if (!begin_serving()) return registration_.unexpect_thread();
    if (thread_.joinable()) thread_.join();  // it ended after the wait for it was over
    try {
      const os::signals_blocked guard;  // signals are for the program's own threads
      // The thread keeps the pool alive: a callback may destroy it. No lambda: what std::thread
      // makes of one is exported even from a module with hidden symbols, and the one of another
      // module, with another version of the library, might run instead.
      void (*const begin)(boost::intrusive_ptr<driver>, service_thread*) =
          [](auto /*kept*/, service_thread* self) { self->serve(); };
      thread_ = std::thread(begin, boost::intrusive_ptr<driver>(&owner_), this);
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

  // Whether there is to be a thread, which then counts as there.
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
    there_.store(serving, std::memory_order_relaxed);  // as in there()
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
      } else if (pool_.engine.outstanding() == 0 || pool_.state == phase::terminated) {
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

  // Another thread leads, or did so a moment ago. While one and the same thread leads there is less
  // and less reason to look; it wakes this one when it steps down.
  void back_off(std::unique_lock<std::mutex>& lock) {
    constexpr int most_doublings = 8;
    const std::uint64_t before = pool_.activity;
    const auto wait = tick * (1 << doublings_);
    pool_.service.backs_off = doublings_ > 0;
    pool_.service.wakes.wait_for(lock, wait);
    pool_.service.backs_off = false;
    const bool same = leader_.owner() == role::caller && pool_.activity == before;
    doublings_ = same ? std::min(doublings_ + 1, most_doublings) : 0;
  }

  // Ticks on for a while, so that the next submission need not wake it; then sleeps.
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

  // What the service thread waits for while it leads: something else to do.
  struct other_work final : waitable {
    explicit other_work(service_thread& of) : service(&of) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return service->stopping_ || service->pool_.engine.outstanding() == 0 ||
             service->pool_.callbacks_due();
    }
    service_thread* service;
  };

  // Those that run before a result is ready.
  void run_callbacks(std::unique_lock<std::mutex>& lock) {
    auto& waiting = pool_.engine.with_callbacks();
    for (std::size_t left = waiting.size(); left > 0 && !waiting.empty(); --left) {
      run_callbacks_before(lock, waiting.pop_front());
    }
  }

  // Those of one job, which is ready then.
  void run_callbacks_before(std::unique_lock<std::mutex>& lock, boost::intrusive_ptr<job> first) {
    const bool inside = std::exchange(in_callback_, true);  // of another callback
    auto callbacks = first->take_callbacks();               // abandon() may want them, too
    lock.unlock();
    run_callbacks_of(*first, std::move(callbacks));
    lock.lock();
    pool_.engine.set_ready(*first);
    pool_.signal_ready_event();
    in_callback_ = inside;
    pool_.changed.notify_all();
    if (leader_.owner() == role::caller) leader_.interrupt();  // it may wait for just this one
    lock.unlock();
    first = nullptr;  // may destroy results of the user's: not under the lock
    lock.lock();
  }

  // Those that run when it is.
  void run_due(std::unique_lock<std::mutex>& lock) {
    constexpr int at_once = 1024;  // then the others have a turn
    const bool inside = std::exchange(in_callback_, true);
    lock.unlock();
    boost::intrusive_ptr<job> of;
    for (int i = 0; i < at_once; ++i) {
      continuation* next = pool_.engine.due().take(of);
      if (next == nullptr) break;
      driver::run_now(*next, *of);
      of = nullptr;  // may destroy a result of the user's
    }
    lock.lock();
    in_callback_ = inside;
    pool_.changed.notify_all();
  }

  void ask_to_stop() {
    std::lock_guard lock(pool_.mutex);
    stopping_ = true;
    pool_.service.wakes.notify_one();
    if (leader_.owner() == role::service) leader_.request();
  }

  [[nodiscard]] bool is_this_thread() {
    const fork_pause none;
    return thread_.get_id() == std::this_thread::get_id();
  }

  // ---- forks of this process -----------------------------------------------------------------

  void stop_threads() override {
    ask_to_stop();
    if (registration_.wait_for_threads(patience) && thread_.joinable()) thread_.join();
  }

  void restart_threads() override {
    try {
      start();
    } catch (const std::exception&) {  // the next asynchronous submission tries again and tells
    }
  }

  void abandon() noexcept override {
    pool_.engine.backend().abandon();
    pool_.ready_event.reset();
    std::construct_at(&thread_);  // there is no such thread in this process
  }

  static constexpr std::chrono::milliseconds tick{1};
  static constexpr int ticks_before_sleep = 20;
  static constexpr std::chrono::milliseconds patience{100};  ///< of a fork, with a callback

  driver& owner_;
  guarded_engine& pool_;
  leader& leader_;
  fork_registration registration_{*this, fork_registration::later()};
  std::thread thread_;              ///< changed under a fork_pause only
  bool wanted_ = false;             ///< there has been an asynchronous submission
  bool serving_ = false;            ///< the thread is there
  std::atomic<bool> there_{false};  ///< a copy of serving_ that is read without the lock
  std::uint64_t seen_activity_ = 0;
  int quiet_ticks_ = 0;
  int doublings_ = 0;  ///< of its tick, while another thread leads for long
  bool stopping_ = false;
  bool in_callback_ = false;
};

}  // namespace procpool::detail
