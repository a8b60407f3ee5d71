// SPDX-License-Identifier: MIT
/// @file
/// The pool's service thread: progress while nobody waits, and callbacks.
///
/// It is started by the first asynchronous submission and sleeps when nothing is outstanding. It
/// stays out of the way of threads that are active: it takes the lead only after a whole tick in
/// which nobody drove, and gives it up when somebody wants to. Callbacks run on it, one after the
/// other, without the lock. It is stopped while this process forks on the library's account.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
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

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/pool/pool_leader.hpp>
#include <procpool/detail/result/callbacks.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class pool_service : public pool_leader, private fork_handler {
 protected:
  using pool_leader::pool_leader;

  fork_registration registration_{*this, fork_registration::later()};

  void ensure_open_service() {
    check_usable();
    {
      std::lock_guard lock(mutex_);
      check_open_locked();
    }
    ensure_service_thread();
  }

  void ensure_service_thread() {
    {
      std::lock_guard lock(mutex_);
      if (state_ == state::terminated) return;  // the thread that ends it runs what there is to run
      service_wanted_ = true;
      if (serving_) return;
    }
    const fork_pause none;  // no thread may come into being while another one forks
    start_service();
  }

  // Starts the thread if it is wanted and not there. Under a fork_pause or after a fork.
  void start_service() {
    registration_.expect_thread();  // not when it begins: from here on it may be waited for
    if (!begin_serving()) return registration_.unexpect_thread();
    if (service_.joinable()) service_.join();  // it ended after the wait for it was over
    try {
      const os::signals_blocked guard;  // signals are for the program's own threads
      // The thread keeps the core alive: a callback may destroy the pool. No lambda: what
      // std::thread makes of one is exported even from a module with hidden symbols, and another
      // module's with another version of the library might run instead.
      void (*const begin)(boost::intrusive_ptr<pool_service>) = [](auto self) { self->serve(); };
      service_ = std::thread(begin, boost::intrusive_ptr<pool_service>(this));
    } catch (const std::system_error& error) {
      note_service_failure();
      throw ProcessError("cannot start the service thread of the pool", error.code());
    } catch (...) {  // no memory
      note_service_failure();
      throw;
    }
  }
  void note_service_failure() noexcept {
    registration_.unexpect_thread();
    const std::lock_guard lock(mutex_);
    set_serving(false);
    service_lost_ = true;
  }

  // Whether there is to be one, which then counts as there.
  bool begin_serving() {
    std::lock_guard lock(mutex_);
    stopping_ = state_ == state::terminated;
    if (serving_ || stopping_ || !service_wanted_) return false;
    set_serving(true);
    return true;
  }

  void serve() {
    const fork_thread mark(registration_);
    std::unique_lock lock(mutex_);
    callback_thread_ = std::this_thread::get_id();
    service_lost_ = false;
    while (!stopping_ || callbacks_due()) {
      if (callbacks_due()) {
        run_callbacks(lock);
        run_due(lock);
      } else if (engine_.outstanding() == 0 || state_ == state::terminated) {
        idle_wait(lock);
      } else if (leader_ != role::nobody || std::exchange(seen_activity_, activity_) != activity_) {
        quiet_ticks_ = 0;
        back_off(lock);
      } else {
        lead(lock, role::service, service_idle(*this), std::nullopt);
      }
    }
    callback_thread_ = {};
    set_serving(false);
  }

  // With the lock.
  void set_serving(bool serving) noexcept {
    serving_ = serving;
    service_there_.store(serving, std::memory_order_relaxed);  // a hint to go without the lock
  }

  // Somebody drives, or did a moment ago. While one and the same thread has the lead, there is less
  // and less reason to look; when it resigns the service is told.
  void back_off(std::unique_lock<std::mutex>& lock) {
    constexpr int most_doublings = 8;
    const std::uint64_t before = activity_;
    const auto doze = tick * (1 << doublings_);
    service_backs_off_ = doublings_ > 0;
    service_wakes_.wait_for(lock, doze);
    service_backs_off_ = false;
    const bool same = leader_ == role::waiter && activity_ == before;
    doublings_ = same ? std::min(doublings_ + 1, most_doublings) : 0;
  }

  // What the service waits for when it leads: something else to do.
  struct service_idle final : waitable {
    explicit service_idle(pool_service& pool) : pool_(&pool) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return pool_->stopping_ || pool_->engine_.outstanding() == 0 || pool_->callbacks_due();
    }
    pool_service* pool_;
  };

  // Ticks on for a while, so that the next submission need not wake it; then sleeps.
  void idle_wait(std::unique_lock<std::mutex>& lock) {
    if (stopping_) return;
    if (++quiet_ticks_ < ticks_before_sleep) {
      service_wakes_.wait_for(lock, tick);
      return;
    }
    service_asleep_ = true;
    service_wakes_.wait(lock);
    service_asleep_ = false;
    quiet_ticks_ = 0;
  }

  // Those that run before a result is ready.
  void run_callbacks(std::unique_lock<std::mutex>& lock) {
    auto& waiting = engine_.with_callbacks();
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
    engine_.set_ready(*first);
    signal_ready_event();
    in_callback_ = inside;
    changed_.notify_all();
    if (leader_ == role::waiter) interrupt_leader();  // it may wait for just this one
    lock.unlock();
    first = nullptr;  // may destroy results of the user's: not under the lock
    lock.lock();
  }

  // A callback waits for a result that has callbacks, too: it is its own thread that runs those.
  // Whether it did. Without them nothing could ever make the result ready.
  bool run_callbacks_inside(std::unique_lock<std::mutex>& lock, const waitable& what,
                            bool for_ever) {
    if (callback_thread_ != std::this_thread::get_id()) return false;
    if (auto its = engine_.with_callbacks().remove(what.awaited())) {
      run_callbacks_before(lock,
                           std::move(its));  // no others: those would run in the midst of this
    } else if (what.ready()) {
      return true;  // a stop was requested in this moment
    } else if (for_ever) {
      throw std::logic_error("a callback waits for its own result, which is ready after it");
    } else {
      return false;
    }
    return true;
  }

  // Those that run when it is.
  void run_due(std::unique_lock<std::mutex>& lock) {
    constexpr int at_once = 1024;  // then the others have a turn
    const bool inside = std::exchange(in_callback_, true);
    lock.unlock();
    boost::intrusive_ptr<job> of;
    for (int i = 0; i < at_once; ++i) {
      continuation* next = engine_.due().take(of);
      if (next == nullptr) break;
      run_now(*next, *of);
      of = nullptr;  // may destroy a result of the user's
    }
    lock.lock();
    in_callback_ = inside;
    changed_.notify_all();
  }

  // By a thread that waits, because after a fork there was no service thread to be had. Whether
  // there were any and nobody else runs them.
  bool run_lost_callbacks(std::unique_lock<std::mutex>& lock) {
    if (!callbacks_due() || callback_thread_ != std::thread::id())
      return false;  // after the end, too
    callback_thread_ = std::this_thread::get_id();
    while (callbacks_due()) {
      run_callbacks(lock);
      run_due(lock);
    }
    if (callback_thread_ == std::this_thread::get_id())
      callback_thread_ = {};  // else there is a service thread now
    return true;
  }

  // The pool has ended, and with it the service thread, unless a callback has ended the pool.
  void run_left_callbacks() {
    std::unique_lock lock(mutex_);
    static_cast<void>(run_lost_callbacks(lock));
  }

  void ask_service_to_stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    service_wakes_.notify_one();
    if (leader_ != role::service) return;
    lead_requested_ = true;
    interrupt_leader();
  }

  void stop_service() {
    ask_service_to_stop();
    if (fork_registry::on_library_thread() && on_service_thread()) {
      const fork_pause none;
      service_.detach();  // a callback ends the pool: the thread ends when the callback returns
      return;
    }
    static_cast<void>(registration_.wait_for_end());
    const fork_pause none;
    if (service_.joinable()) service_.join();
  }

  // Another thread may be at it, or a callback has done it: the others run after it. Whether that
  // has come to its end.
  bool await_end(std::unique_lock<std::mutex>& lock, std::optional<time_point> until = {},
                 const stop_token& stop = {}) {
    const auto over = [&] { return !ending_ || stop.stop_requested(); };
    if (until) {
      changed_.wait_until(lock, *until, over);
    } else {
      changed_.wait(lock, over);
    }
    if (ending_) return false;
    lock.unlock();
    return await_service(until, stop);
  }

  // Until it has run all callbacks, unless this is the one.
  bool await_service(std::optional<time_point> until, const stop_token& stop) {
    if (!until && !stop.stop_possible()) return registration_.wait_for_end();
    constexpr std::chrono::milliseconds a_while{10};  // nobody tells of a stop here
    while (!registration_.wait_for_end(a_while)) {
      const bool over = until && std::chrono::steady_clock::now() >= *until;
      if (over || stop.stop_requested()) return false;
    }
    return true;
  }

  [[nodiscard]] bool on_service_thread() {
    const fork_pause none;
    return service_.get_id() == std::this_thread::get_id();
  }

  // ---- forks of this process -----------------------------------------------------------------

  void stop_threads() override {
    ask_service_to_stop();
    if (registration_.wait_for_threads(patience) && service_.joinable()) service_.join();
  }

  void restart_threads() override {
    try {
      start_service();
    } catch (const std::exception&) {  // the next asynchronous submission tries again and tells
    }
  }

  void abandon() noexcept override {
    engine_.backend().abandon();
    ready_event_.reset();
    std::construct_at(&service_);  // there is no such thread in this process
  }

  static constexpr std::chrono::milliseconds tick{1};
  static constexpr int ticks_before_sleep = 20;
  static constexpr std::chrono::milliseconds patience{100};  ///< of a fork, with a callback

  std::thread service_;                     ///< changed under a fork_pause only
  bool service_wanted_ = false;             ///< there has been an asynchronous submission
  bool serving_ = false;                    ///< the thread is there
  std::atomic<bool> service_there_{false};  ///< the same, for who has not the lock
  std::uint64_t seen_activity_ = 0;
  int quiet_ticks_ = 0;
  int doublings_ = 0;  ///< of its tick, while another thread drives for long
  bool stopping_ = false;
  bool in_callback_ = false;
  bool ending_ = false;  ///< terminate() is on its way
};

}  // namespace procpool::detail
