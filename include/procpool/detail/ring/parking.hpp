// SPDX-License-Identifier: MIT
/// @file
/// How the two sides of a channel wait for each other: a worker spins, then sleeps on a futex word
/// that the parent rings; the parent sleeps on descriptors that workers ring.
///
/// Both use the same argument. The sleeper announces itself, fences, and looks once more for what
/// it waits for; the other publishes, fences, and looks whether somebody sleeps. Fences are
/// sequentially consistent, so one of the two sees the other's store. Announcements carry a number,
/// another one each time, so that a bell is rung once for a sleep and not for every event in it.
/// If the parent dies, the worker's fork server kills it; if a worker dies, the parent hears of it
/// on the control socket.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

#include <procpool/detail/child/child.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/futex.hpp>
#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// How long a side that may spin does so before it sleeps. A sleep and a wake-up cost about as
/// much, so spinning longer than that can at most double the cost of waiting.
inline constexpr std::chrono::microseconds spin_time{50};

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Calls @p ready until it is true or @p time is over; whether it became true. Between looks others
/// may have the CPU: with more runnable threads than CPUs what we wait for may need just this one.
template <class Ready>
bool spin_until(Ready ready, std::chrono::microseconds time = spin_time) {
  const auto look = [&] {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      cpu_relax();
    }
    return false;
  };
  if (look()) return true;  // the clock costs as much as many looks
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    PROCPOOL_SYSTEM(sched_yield());
    if (look()) return true;
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

/// The worker's way to wait for the parent.
class worker_parking {
 public:
  worker_parking(const task_control& parent, result_control& own) : parent_(&parent), own_(&own) {}

  /// Returns when @p ready() is true. Calls @p before_sleep() once if it has to sleep for it.
  /// @param longest to sleep for it; 0: any time. @returns whether it is true
  template <class Ready, class BeforeSleep>
  bool wait_until(Ready ready, BeforeSleep before_sleep, std::chrono::nanoseconds longest = {}) {
    if (ready()) return true;
    if (parent_->spin.load(std::memory_order_relaxed) != 0 && spin_until(ready))
      return true;  // hint
    before_sleep();
    os::deadline until;
    if (longest.count() != 0) until = std::chrono::steady_clock::now() + longest;
    bool is_ready = ready();
    while (!is_ready && !(until && std::chrono::steady_clock::now() >= *until)) {
      sleep_unless(ready, until);
      is_ready = ready();
    }
    own_->parked.store(0, std::memory_order_relaxed);  // a late ring is harmless
    return is_ready;
  }

 private:
  template <class Ready>
  void sleep_unless(Ready ready, os::deadline until) {
    const std::uint32_t bell = parent_->doorbell.load(std::memory_order_acquire);  // before looking
    if (++sleeps_ == 0) ++sleeps_;                                                 // 0 means awake
    own_->parked.store(sleeps_, std::memory_order_relaxed);  // ordered by the fence
    std::atomic_thread_fence(std::memory_order_seq_cst);     // announce, then look: see above
    if (!ready()) os::futex_wait(parent_->doorbell, bell, until);
  }

  const task_control* parent_;
  result_control* own_;
  std::uint32_t sleeps_ = 0;
};

/// The parent's way to wake one worker.
class worker_waker {
 public:
  worker_waker(task_control& own, const result_control& worker) : own_(&own), worker_(&worker) {
    own.doorbell.store(0, std::memory_order_relaxed);  // before the worker exists
  }

  /// To be called after anything was published that the worker may wait for.
  void ring_if_parked() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish, then look: see above
    const std::uint32_t sleep = worker_->parked.load(std::memory_order_relaxed);  // after the fence
    if (sleep == 0 || sleep == rung_) return;
    rung_ = sleep;
    wake();
  }

  /// Wakes the worker if it sleeps, whatever it says: what it said may have been overwritten.
  void wake() noexcept {
    own_->doorbell.fetch_add(1, std::memory_order_release);  // a sleep about to begin sees it
    os::futex_wake(own_->doorbell);
  }

 private:
  task_control* own_;
  const result_control* worker_;
  std::uint32_t rung_ = 0;
};

/// A worker's way to wake the parent.
class parent_waker {
 public:
  /// @param otherwise when a task has closed the bell
  parent_waker(const outbound_header& parent, os::event bell, os::signal_waker otherwise = {})
      : parent_(&parent),
        waker_(std::move(bell)),
        file_(os::file_identity::of(waker_.get())),
        otherwise_(otherwise) {}

  /// Whether the parent sleeps. To be called after anything was published that it may wait for.
  [[nodiscard]] bool armed() const noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish, then look: see above
    return parent_->armed.load(std::memory_order_relaxed) % 2 != 0;  // after the fence
  }
  /// To be called after anything was published that the parent may wait for.
  void wake_if_armed() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);                         // as in armed()
    const std::uint32_t sleep = parent_->armed.load(std::memory_order_relaxed);  // after the fence
    if (sleep % 2 == 0 || sleep == rung_) return;
    rung_ = sleep;
    if (intact() && waker_.signal()) return;
    waker_.forget();  // a task closed it: nothing is written to what may have its number now
    // Then our death is what the parent hears of.
    if (!otherwise_.signal()) os::leave_saying("a worker cannot wake its pool (write)");
  }

  /// In a process forked from the worker.
  void reset() noexcept { intact() ? waker_.reset() : waker_.forget(); }

 private:
  [[nodiscard]] bool intact() const noexcept {
    return waker_ && os::file_identity::of(waker_.get()) == file_;
  }

  const outbound_header* parent_;
  os::event waker_;
  os::file_identity file_;
  os::signal_waker otherwise_;
  std::uint32_t rung_ = 0;
};

}  // namespace procpool::detail
