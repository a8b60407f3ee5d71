// SPDX-License-Identifier: MIT
/// @file
/// How a pool ends: close(), join() and terminate(). Each takes the lock itself. Any thread, except
/// that a task of a pool of threads cannot call join() or terminate().
///
///     open --close()--> closed --join(): all work done, then workers gone--> terminated
///       +------------------------------ terminate() ----------------------------^
///
/// The thread that sets `terminated` ends workers and jobs; @c ending_ is set until that is done.
/// Then it stops the service thread and runs the callbacks that are left. Other threads that end
/// the pool meanwhile wait for both.
#pragma once

#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/pool/leader.hpp>
#include <procpool/detail/pool/service_thread.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool::detail {

class pool_shutdown {
 public:
  /// @param owner the pool; its wait() leads while join() waits
  pool_shutdown(driver& owner, guarded_engine& pool, leader& lead, service_thread& service)
      : owner_(owner), pool_(pool), leader_(lead), service_(service) {}

  void close() {
    pool_.check_usable();
    std::lock_guard lock(pool_.mutex);
    if (pool_.state == phase::open) pool_.state = phase::closed;
    if (pool_.room_waiters == 0) return;
    pool_.changed.notify_all();  // threads that wait for room stop waiting
    leader_.interrupt();         // it may be one of them
  }

  bool join(std::optional<time_point> until, const stop_token& stop) {
    pool_.check_usable();
    check_not_own_worker();
    const stop_callback wake(stop, [&] { owner_.wake_waiters(); });  // for await_end()
    bool in_callback = false;
    {
      std::unique_lock lock(pool_.mutex);
      if (pool_.state == phase::open) {
        throw std::logic_error("Pool::join() was called before close() or terminate()");
      }
      if (pool_.state == phase::terminated) return await_end(lock, until, stop);
      in_callback = pool_.service.callback_thread == std::this_thread::get_id();
    }
    if (!wait_for(owner_, work_done(*this, in_callback), until, stop)) return false;
    {
      std::unique_lock lock(pool_.mutex);
      if (pool_.state == phase::terminated) return await_end(lock, until, stop);
      pool_.engine.retire_all();
    }
    if (!wait_for(owner_, workers_gone(pool_), until, stop)) return false;
    terminate();
    return true;
  }

  void terminate() {
    pool_.check_process();
    check_not_own_worker();
    if (pool_.results.decoding()) guarded_engine::refuse_decoder();
    end();
  }

  /// Ends the pool now, or waits until the thread that is doing so has done it. Does nothing in a
  /// forked child.
  void end() {
    if (!pool_.ours()) return;
    std::unique_lock lock(pool_.mutex);
    if (pool_.state == phase::terminated) return static_cast<void>(await_end(lock));
    pool_.state = phase::terminated;
    ending_ = true;
    pool_.engine.cancel_all();
    leader_.notify_waiters();
    leader_.await_absence(lock);
    let_workers_leave(lock);
    pool_.backend.shut_down();
    pool_.engine.release_all();
    auto dead = std::exchange(pool_.dead, {});
    ending_ = false;
    pool_.changed.notify_all();
    lock.unlock();
    dead.clear();
    service_.stop();
    run_remaining_callbacks();
  }

 private:
  using phase = guarded_engine::phase;

  struct work_done final : waitable {
    /// @param called_in_callback a callback calls join(): it cannot wait for the other callbacks,
    ///        which run after it
    work_done(pool_shutdown& pool, bool called_in_callback)
        : of(&pool), in_callback(called_in_callback) {}
    bool ready() const noexcept override {  // only called by wait(), with the lock
      return of->pool_.state == phase::terminated ||
             (resolved() &&
              (in_callback || (!of->pool_.callbacks_due() && !of->service_.in_callback())));
    }
    bool resolved() const noexcept override { return of->pool_.schedule.outstanding() == 0; }
    pool_shutdown* of;
    bool in_callback;
  };
  struct workers_gone final : waitable {
    explicit workers_gone(guarded_engine& pool) : of(&pool) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return of->state == phase::terminated || of->schedule.present() == 0;
    }
    guarded_engine* of;
  };

  void check_not_own_worker() {
    if (!pool_.backend.on_worker()) return;
    throw std::logic_error("a pool of threads cannot be ended by one of its own tasks");
  }

  // A thread cannot be killed, so its task runs to its end. The task may need the lock for that,
  // for example if it waits for a result of this pool. Without the lock the backend is safe here:
  // no other thread uses the workers of a terminated pool.
  void let_workers_leave(std::unique_lock<std::mutex>& lock) {
    if (pool_.backend.can_kill()) return;
    lock.unlock();
    pool_.backend.await_workers();
    lock.lock();
  }

  // Waits until another thread has ended the pool, and until the callbacks have run: if a callback
  // has ended the pool, the others run after it. @returns false: @p until or a stop came first
  bool await_end(std::unique_lock<std::mutex>& lock, std::optional<time_point> until = {},
                 const stop_token& stop = {}) {
    const auto done = [&] { return !ending_ || stop.stop_requested(); };
    if (until) {
      pool_.changed.wait_until(lock, *until, done);
    } else {
      pool_.changed.wait(lock, done);
    }
    if (ending_) return false;
    lock.unlock();
    return service_.await_end(until, stop);
  }

  // Callbacks that no service thread has run. After a callback has ended the pool the service
  // thread still exists, and runs them.
  void run_remaining_callbacks() {
    std::unique_lock lock(pool_.mutex);
    static_cast<void>(service_.run_unserved_callbacks(lock));
  }

  driver& owner_;
  guarded_engine& pool_;
  leader& leader_;
  service_thread& service_;
  bool ending_ = false;  ///< the pool is terminated, but not all workers have ended; with the lock
};

}  // namespace procpool::detail
