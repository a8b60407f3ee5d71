// SPDX-License-Identifier: MIT
/// @file
/// How the two sides of a channel wait for each other. A worker spins, then sleeps on a futex word
/// that the parent changes. The parent sleeps on event descriptors that workers signal.
///
/// Both use the same argument. The sleeper announces its sleep, fences, and checks its condition
/// once more. The other side publishes, fences, and checks for an announced sleep. The fences are
/// sequentially consistent, so one of the two sees the other's store. Each announcement carries a
/// new number, so that a side is woken once for a sleep and not for every event during the sleep.
/// If the parent dies, the fork server kills the worker. If a worker dies, the fork server reports
/// it to the parent on the control socket.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

#include <procpool/detail/base/cpu_relax.hpp>
#include <procpool/detail/child/child.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/futex.hpp>
#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// How long a side that may spin does so before it sleeps. A sleep and a wake-up cost about the
/// same, so spinning this long at most doubles the cost of a wait.
inline constexpr std::chrono::microseconds spin_time{50};

/// Calls @p ready until it returns true or @p time is over. @returns whether it was true.
/// Yields the CPU between polls: with more runnable threads than CPUs, the other side may need it.
template <class Ready>
bool spin_until(const Ready& ready, std::chrono::microseconds time = spin_time) {
  const auto poll = [&] {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      cpu_relax();
    }
    return false;
  };
  if (poll()) return true;  // reading the clock costs as much as many polls
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    PROCPOOL_SYSTEM(sched_yield());
    if (poll()) return true;
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

/// How a worker waits for the parent. Used on the worker's own thread.
class worker_parking {
 public:
  worker_parking(const task_control& parent, result_control& own) : parent_(&parent), own_(&own) {}

  /// Returns when @p ready() is true. Calls @p before_sleep() once if it has to sleep.
  /// @param timeout of the sleep; 0: none. @returns whether ready() is true
  template <class Ready, class BeforeSleep>
  bool wait_until(Ready ready, BeforeSleep before_sleep, std::chrono::nanoseconds timeout = {}) {
    if (ready()) return true;
    if (parent_->spin.load(std::memory_order_relaxed) != 0 && spin_until(ready))
      return true;  // relaxed: a hint
    before_sleep();
    os::deadline until;
    if (timeout.count() != 0) until = std::chrono::steady_clock::now() + timeout;
    bool is_ready = ready();
    while (!is_ready && !(until && std::chrono::steady_clock::now() >= *until)) {
      sleep_unless(ready, until);
      is_ready = ready();
    }
    own_->parked.store(0, std::memory_order_relaxed);  // a late wake-up is harmless
    return is_ready;
  }

 private:
  template <class Ready>
  void sleep_unless(Ready ready, os::deadline until) {
    const std::uint32_t seen = parent_->doorbell.load(std::memory_order_acquire);  // before ready()
    if (++sleeps_ == 0) ++sleeps_;                                                 // 0 means awake
    own_->parked.store(sleeps_, std::memory_order_relaxed);  // ordered by the fence
    std::atomic_thread_fence(std::memory_order_seq_cst);     // announce, then check: see above
    if (!ready()) os::futex_wait(parent_->doorbell, seen, until);
  }

  const task_control* parent_;
  result_control* own_;
  std::uint32_t sleeps_ = 0;
};

/// How the parent wakes one worker. Used under the lock of its pool.
class worker_waker {
 public:
  worker_waker(task_control& own, const result_control& worker) : own_(&own), worker_(&worker) {
    own.doorbell.store(0, std::memory_order_relaxed);  // before the worker exists
  }

  /// Call it after publishing anything that the worker may wait for.
  void wake_if_parked() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish, then check: see above
    const std::uint32_t sleep = worker_->parked.load(std::memory_order_relaxed);  // after the fence
    if (sleep == 0 || sleep == last_woken_) return;
    last_woken_ = sleep;
    wake();
  }

  /// Wakes the worker if it sleeps, whatever `parked` says: a task may have overwritten it.
  void wake() noexcept {
    own_->doorbell.fetch_add(1, std::memory_order_release);  // a sleep about to begin sees it
    os::futex_wake(own_->doorbell);
  }

 private:
  task_control* own_;
  const result_control* worker_;
  std::uint32_t last_woken_ = 0;  ///< number of the sleep
};

/// How a worker wakes the parent. Used on the worker's own thread.
class parent_waker {
 public:
  /// @param fallback wakes the parent after a task has closed @p event
  parent_waker(const outbound_header& parent, os::event event, os::signal_waker fallback = {})
      : parent_(&parent),
        event_(std::move(event)),
        file_(os::file_identity::of(event_.get())),
        fallback_(fallback) {}

  /// Whether the parent sleeps. Call it after publishing anything that the parent may wait for.
  [[nodiscard]] bool armed() const noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish, then check: see above
    return parent_->armed.load(std::memory_order_relaxed) % 2 != 0;  // after the fence
  }
  /// Call it after publishing anything that the parent may wait for.
  void wake_if_armed() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);                         // as in armed()
    const std::uint32_t sleep = parent_->armed.load(std::memory_order_relaxed);  // after the fence
    if (sleep % 2 == 0 || sleep == last_woken_) return;
    last_woken_ = sleep;
    if (intact() && event_.signal()) return;
    event_.forget();  // a task closed it: another file may have its number now
    // If the fallback fails, too, this process ends, and its death wakes the parent.
    if (!fallback_.signal()) os::leave_saying("a worker cannot wake its pool (write)");
  }

  /// For a process forked from the worker.
  void reset() noexcept { intact() ? event_.reset() : event_.forget(); }

 private:
  [[nodiscard]] bool intact() const noexcept {
    return event_ && os::file_identity::of(event_.get()) == file_;
  }

  const outbound_header* parent_;
  os::event event_;
  os::file_identity file_;
  os::signal_waker fallback_;
  std::uint32_t last_woken_ = 0;  ///< number of the sleep
};

}  // namespace procpool::detail
