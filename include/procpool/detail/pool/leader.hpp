// SPDX-License-Identifier: MIT
/// @file
/// Which thread drives a pool: the Leader/Followers pattern (Schmidt et al., POSA 2).
///
/// A thread that waits for a result leads: it reads results and sends tasks until its own result is
/// ready. At most one thread leads. Other waiting threads follow, and one of them takes over. While
/// no thread waits, the service thread leads (service_thread.hpp).
///
/// Only the leader reads shared memory without the lock, and only the leader sleeps in the backend.
/// The leader handles worker events, and so replaces workers. While there is no leader, a thread
/// that submits does so (run_maintenance()).
///
///     owner()   unlocked()   the leader
///     nobody    false        there is none
///     caller    false        has the lock, in step()
///     caller    true         polls, or sleeps in the backend; interrupt() ends that
///     service   either       the same for the service thread; preempt_service() makes it step down
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

#include <procpool/detail/os/time.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/parent_channel.hpp>
#include <procpool/detail/ring/parking.hpp>

namespace procpool::detail {

/// Public members are called with the pool's lock. Those with a `lock` parameter release it while
/// they wait.
class leader {
 public:
  /// The kind of thread that leads: a waiting thread of the user's, or the service thread.
  enum class role { nobody, caller, service };
  /// Whether to wake the service thread at once when callbacks are due.
  enum class urgency { later, now };

  /// @param workers the largest number that the pool can have
  /// @param cpus    the number that this process may use
  leader(guarded_engine& pool, std::size_t workers, std::uint32_t cpus)
      : pool_(pool), cpus_(cpus), polled_(workers) {}
  leader(const leader&) = delete;
  leader& operator=(const leader&) = delete;

  [[nodiscard]] role owner() const noexcept { return owner_; }
  [[nodiscard]] bool present() const noexcept { return owner_ != role::nobody; }
  /// Whether the leader polls or sleeps without the lock.
  [[nodiscard]] bool unlocked() const noexcept { return unlocked_; }
  /// Whether the leader has waited longer than a poll interval since results last arrived.
  [[nodiscard]] bool backed_off() const noexcept { return owner_ != role::nobody && backed_off_; }

  // ---- leading and following -----------------------------------------------------------------

  /// Leads until @p target is resolved, @p until is reached, the pool is terminated, callbacks are
  /// due that this thread has to run, or (the service thread) preempt_service() is called.
  /// Precondition: there is no leader.
  void lead(std::unique_lock<std::mutex>& lock, role own_role, const waitable& target,
            std::optional<time_point> until) {
    owner_ = own_role;
    backed_off_ = false;
    try {
      while (!target.resolved() && pool_.state != phase::terminated &&
             !(own_role == role::service && preempted_) && !pool_.callbacks_unserved()) {
        if (until && std::chrono::steady_clock::now() >= *until) break;
        step(lock, until);
      }
    } catch (...) {
      step_down();
      throw;
    }
    step_down();
    pool_.drop_dead(lock);  // there may be no later leader that would do it
  }

  /// Waits until something is ready, there is no leader, or @p until is reached; may return early.
  /// Preempts the service thread if that leads.
  void follow(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    if (owner_ == role::service) preempt_service();
    ++followers_;
    if (until) {
      pool_.changed.wait_until(lock, *until);
    } else {
      pool_.changed.wait(lock);
    }
    --followers_;
  }

  /// Makes the service thread, which leads, step down: another thread is to lead, or the service
  /// thread has to stop.
  void preempt_service() {
    preempted_ = true;
    interrupt();
  }

  /// Waits until there is no leader. Precondition: the pool is terminated, so none stays.
  void await_absence(std::unique_lock<std::mutex>& lock) {
    while (owner_ != role::nobody) {
      interrupt();
      pool_.changed.wait(lock);
    }
  }

  // ---- waking the leader and the followers ---------------------------------------------------

  /// Ends the polling or the sleep of the leader, so that it checks again what it waits for.
  void interrupt() {
    if (!unlocked_) return;
    polled_.end();  // a hint; the event that the next line signals is certain
    pool_.backend.interrupt();
  }
  /// Interrupts the leader for work that it would otherwise miss: a worker that became blocked
  /// after the leader collected its channels, or a worker that left when idle and has to be
  /// restarted.
  void interrupt_for_blocked() {
    if (unlocked_ && (pool_.engine.sending.more_blocked() || pool_.engine.wants_idle_workers()))
      interrupt();
  }
  /// A task with this time limit was submitted: the leader must wake up before the limit ends.
  void wake_by(std::chrono::nanoseconds limit) {
    if (!unlocked_) return;
    if (sleeps_until_ && *sleeps_until_ - std::chrono::steady_clock::now() <= limit) return;
    interrupt();
  }

  /// Wakes the threads that wait for a change that has been made. Call it after any use of the
  /// engine that can make a job ready or make room.
  void notify_waiters(urgency service = urgency::now) {
    interrupt_for_blocked();
    if (pool_.room_waiters > 0 && !pool_.no_room()) {
      pool_.changed.notify_all();
      interrupt();  // the leader may be one of them
    }
    if (!pool_.results.take_notice() && !pool_.wake_requested) return;
    pool_.wake_requested = false;
    pool_.signal_ready_event();
    if (pool_.callbacks_due() && worth_waking(service)) pool_.service.wakes.notify_one();
    if (followers_ > 0) pool_.changed.notify_all();
    // A leading service thread waits for no result, but must step down to run callbacks.
    const bool leader_concerned =
        owner_ != role::service || pool_.callbacks_due() || pool_.state != phase::open;
    if (leader_concerned) interrupt();
  }

  // ---- maintenance ---------------------------------------------------------------------------

  /// The leader's periodic work (events, deadlines, balancing), for a thread that submits while
  /// there is no leader. At most once per check interval.
  void run_maintenance() {
    if (!events_due()) return;
    pool_.engine.balance_if_stuck();
    handle_events();
    if (pool_.engine.wants_idle_workers()) pool_.engine.balance();
    resize_if_due();
    check_deadlines_if_due();
  }

  /// Starts or retires workers until there are guarded_engine::workers(). Workers can be started
  /// only while no thread is in the backend's wait(). So a leader that may be there does it itself,
  /// when it has been interrupted.
  void resize() {
    resize_due_ = true;
    if (unlocked_) return interrupt();
    resize_if_due();
  }

 private:
  using phase = guarded_engine::phase;
  /// How a wait of the leader ended.
  enum class waited {
    briefly,  ///< results were committed within the poll interval
    awake,    ///< without sleep: nothing within the poll interval, or the spin saw a change
    asleep,   ///< after arming, and after a sleep unless something had arrived by then
  };

  // Waking the service thread costs more than many callbacks. So a thread that keeps submitting
  // wakes it only for many; fewer wait for the service thread's next tick.
  [[nodiscard]] bool worth_waking(urgency service) noexcept {
    constexpr std::size_t many = 256;
    return service == urgency::now || pool_.service.asleep || pool_.service.backs_off ||
           pool_.results.due.size() >= many;
  }

  void step_down() noexcept {
    if (pool_.service.backs_off) pool_.service.wakes.notify_one();
    owner_ = role::nobody;
    preempted_ = false;
    if (followers_ > 0 || pool_.state != phase::open) pool_.changed.notify_all();
  }

  // One round: handles the results that have arrived, or waits for some.
  void step(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    // A partial drain misses results that a worker holds back. With one busy worker, the full drain
    // before a sleep reads them. With several, one that commits all the time would prevent that.
    const bool partial = !backed_off_ && pool_.schedule.working() == 1;
    if (pool_.engine.advance(partial ? drain_mode::partial : drain_mode::full)) {
      return after_progress();
    }
    sleeps_until_ = until;
    if (backed_off_) {  // the running tasks take long
      pool_.engine.balance();
      sleeps_until_ =
          earlier(until, pool_.engine.check_deadlines(std::chrono::steady_clock::now()));
      if (!pool_.broken.empty()) return notify_waiters();  // a start has failed
    }
    wait_unlocked(lock);
    resize_if_due();
    notify_waiters();
  }

  void after_progress() {
    backed_off_ = false;
    if (++rounds_ % balance_every == 0) {
      pool_.engine.balance();  // tasks may be queued after a long one
      if (events_due()) handle_events();
    }
    check_deadlines_if_due();
    notify_waiters();
  }

  void wait_unlocked(std::unique_lock<std::mutex>& lock) {
    dispatcher& workers = pool_.engine.sending;
    polled_.clear();
    workers.each_busy_channel([this](parent_channel& each) { polled_.add_busy(each); });
    workers.each_blocked_channel([this](parent_channel& each) { polled_.add_blocked(each); });
    auto dead = std::exchange(pool_.dead, {});
    const bool may_spin = polled_.busy() > 0 && polled_.busy() < cpus_;
    unlocked_ = true;
    lock.unlock();
    dead.clear();
    const waited how = wait_for_results(may_spin, sleeps_until_);
    lock.lock();
    unlocked_ = false;
    // A report on the control socket may have ended the sleep.
    if (how == waited::asleep || (backed_off_ && events_due())) handle_events();
    backed_off_ = how != waited::briefly;
  }

  // Without the lock. Any thread may call interrupt() meanwhile.
  waited wait_for_results(bool may_spin, std::optional<time_point> until) {
    const auto& ready = polled_;
    if (!backed_off_) {  // short tasks are done within this; step() balances before a long wait
      spin_until(ready, poll_interval);
      return polled_.any_committed() ? waited::briefly : waited::awake;
    }
    if (may_spin && spin_until(ready)) return waited::awake;
    pool_.backend.arm();
    if (!polled_() && !pool_.engine.sending.poll_set_grew() && !polled_.any_uncommitted()) {
      pool_.backend.wait(until);
    }
    pool_.backend.disarm();
    return waited::asleep;
  }

  static std::optional<time_point> earlier(std::optional<time_point> one,
                                           std::optional<time_point> other) {
    if (!one || !other) return one ? one : other;
    return std::min(*one, *other);
  }

  void handle_events() {
    if (pool_.state != phase::terminated) pool_.engine.handle_events();
  }
  // While results keep coming nobody sleeps, and workers may die all the same.
  [[nodiscard]] bool events_due() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now - handled_events_ < check_interval) return false;
    handled_events_ = now;
    return true;
  }
  void check_deadlines_if_due() {
    if (!pool_.engine.has_deadlines()) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - checked_deadlines_ < check_interval) return;
    checked_deadlines_ = now;
    static_cast<void>(pool_.engine.check_deadlines(now));
  }
  void resize_if_due() {
    if (!std::exchange(resize_due_, false) || pool_.state != phase::open) return;
    pool_.set_workers(pool_.engine.resize(pool_.workers()));
    notify_waiters();
  }

  static constexpr std::chrono::microseconds poll_interval{3};
  static constexpr std::chrono::milliseconds check_interval{1};  ///< for events and deadlines
  static constexpr std::uint64_t balance_every = 64;

  guarded_engine& pool_;
  const std::uint32_t cpus_;
  role owner_ = role::nobody;
  bool unlocked_ = false;
  bool backed_off_ = false;
  bool resize_due_ = false;
  bool preempted_ = false;  ///< the service thread leads and has to step down
  int followers_ = 0;
  std::uint64_t rounds_ = 0;                  ///< rounds in which the leader found results
  channel_poll polled_;                       ///< read while unlocked
  std::optional<time_point> sleeps_until_{};  ///< end of the leader's sleep; none: no limit
  time_point checked_deadlines_{};
  time_point handled_events_{};
};

}  // namespace procpool::detail
