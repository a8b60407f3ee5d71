// SPDX-License-Identifier: MIT
/// @file
/// Who makes a pool move: the Leader/Followers pattern (Schmidt et al., POSA 2).
///
/// A thread that waits for a result leads: it reads results and sends tasks until its own result is
/// there. At most one thread leads. Other threads that wait follow, and one of them takes over.
/// While nobody waits, the service thread leads (service_thread.hpp).
///
/// Only the leader looks at shared memory without the lock. Only the leader handles worker events,
/// and so replaces workers. Only the leader sleeps in the backend.
///
///     role      unlocked()   what the leader does
///     nobody    false        there is none
///     caller    false        has the lock, in step()
///     caller    true         polls, or sleeps in the backend; interrupt() brings it back
///     service   as above, for the service thread; follow() makes it step down
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <procpool/detail/os/time.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/parking.hpp>
#include <procpool/detail/ring/result_consumer.hpp>

namespace procpool::detail {

/// All members are called with the pool's lock.
class leader {
 public:
  enum class role { nobody, caller, service };
  /// Whether the service thread is to be woken at once if there are callbacks.
  enum class urgency { later, now };

  /// @param workers at most, ever
  /// @param cpus that this process may use
  leader(guarded_engine& pool, std::size_t workers, std::uint32_t cpus) : pool_(pool), cpus_(cpus) {
    polled_.reserve(workers);  // so that a step needs no memory
    blocked_.reserve(workers);
  }
  leader(const leader&) = delete;
  leader& operator=(const leader&) = delete;

  [[nodiscard]] role owner() const noexcept { return owner_; }
  [[nodiscard]] bool present() const noexcept { return owner_ != role::nobody; }
  /// The leader polls or sleeps without the lock.
  [[nodiscard]] bool unlocked() const noexcept { return unlocked_; }
  /// The leader has waited for longer than a poll interval since it last found something.
  [[nodiscard]] bool backed_off() const noexcept { return owner_ != role::nobody && backed_off_; }

  // ---- leading and following -----------------------------------------------------------------

  /// Leads until @p what is resolved, @p until has come, the pool is terminated, or another thread
  /// wants the lead that the service thread has. Precondition: nobody leads.
  void lead(std::unique_lock<std::mutex>& lock, role who, const waitable& what,
            std::optional<time_point> until) {
    owner_ = who;
    backed_off_ = false;
    try {
      while (!what.resolved() && pool_.state != phase::terminated &&
             !(who == role::service && wanted_) && !pool_.callbacks_unserved()) {
        if (until && std::chrono::steady_clock::now() >= *until) break;
        step(lock, until);
      }
    } catch (...) {
      step_down();
      throw;
    }
    step_down();
    pool_.drop_dead(lock);  // the next thread to wait would do it, but there may be none
  }

  /// Waits for the leader to find something, or for the lead; takes it from the service thread.
  void follow(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    if (owner_ == role::service) request();
    ++followers_;
    if (until) {
      pool_.changed.wait_until(lock, *until);
    } else {
      pool_.changed.wait(lock);
    }
    --followers_;
  }

  /// Another thread wants the lead, or the service thread is to stop.
  void request() {
    wanted_ = true;
    interrupt();
  }

  /// Waits until nobody leads.
  void await_absence(std::unique_lock<std::mutex>& lock) {
    while (owner_ != role::nobody) {
      interrupt();
      pool_.changed.wait(lock);
    }
  }

  // ---- news for the leader and for those who wait --------------------------------------------

  /// The leader may be asleep though what it waits for has happened.
  void interrupt() {
    if (!unlocked_) return;
    interrupted_.store(true, std::memory_order_relaxed);  // ends its polling
    pool_.engine.backend().interrupt();
  }
  /// It does not poll workers that were blocked after it left, nor start those that have left.
  void interrupt_for_blocked() {
    if (unlocked_ && (pool_.engine.more_blocked() || pool_.engine.wants_idle_workers()))
      interrupt();
  }
  /// A task with this time limit has been sent: the leader must not sleep through its end.
  void wake_by(std::chrono::nanoseconds limit) {
    if (!unlocked_) return;
    if (sleeps_until_ && *sleeps_until_ - std::chrono::steady_clock::now() <= limit) return;
    interrupt();
  }

  /// Wakes the threads that wait for what has changed.
  void notify_waiters(urgency service = urgency::now) {
    interrupt_for_blocked();
    if (pool_.await_room > 0 && !pool_.no_room()) {
      pool_.changed.notify_all();
      interrupt();  // it may be one of them
    }
    if (!pool_.engine.take_notice() && !pool_.wake_requested) return;
    pool_.wake_requested = false;
    pool_.signal_ready_event();
    if (pool_.callbacks_due() && worth_waking(service)) pool_.service.wakes.notify_one();
    if (followers_ > 0) pool_.changed.notify_all();
    const bool wanted =
        owner_ != role::service || pool_.callbacks_due() || pool_.state != phase::open;
    if (wanted) interrupt();  // the service thread runs callbacks when it does not lead
  }

  // ---- from time to time ---------------------------------------------------------------------

  /// What a leader does besides, for a thread that submits while nobody leads.
  void run_maintenance() {
    if (!events_due()) return;
    pool_.engine.balance_if_stuck();
    handle_events();
    if (pool_.engine.wants_idle_workers()) pool_.engine.balance();
    resize_if_due();
    check_deadlines_if_due();
  }

  /// The pool is to have guarded_engine::workers workers. Workers can be started only while nobody
  /// sleeps in the backend: a leader that does so is called back.
  void resize() {
    resize_due_ = true;
    if (unlocked_) return interrupt();
    resize_if_due();
  }

 private:
  using phase = guarded_engine::phase;
  enum class waited { briefly, awake, asleep };  ///< briefly: and then a worker committed results

  // Waking the service thread costs more than many callbacks. A thread that keeps submitting does
  // it for a number of them; otherwise the service thread sees them at its next tick.
  [[nodiscard]] bool worth_waking(urgency service) noexcept {
    constexpr std::size_t many = 256;
    return service == urgency::now || pool_.service.asleep || pool_.service.backs_off ||
           pool_.engine.due().size() >= many;
  }

  void step_down() noexcept {
    if (pool_.service.backs_off) pool_.service.wakes.notify_one();
    owner_ = role::nobody;
    wanted_ = false;
    if (followers_ > 0 || pool_.state != phase::open) pool_.changed.notify_all();
  }

  // One round: results that have come are handled, or the thread waits until some come.
  void step(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    // While one worker sends results without a pause, another may hold its results back.
    const bool partial = !backed_off_ && pool_.engine.working() == 1;
    if (pool_.engine.advance(partial ? drain_mode::partial : drain_mode::full)) {
      return after_progress();
    }
    sleeps_until_ = until;
    if (backed_off_) {  // the tasks under way take long
      pool_.engine.balance();
      sleeps_until_ =
          earlier(until, pool_.engine.check_deadlines(std::chrono::steady_clock::now()));
      if (!pool_.engine.broken().empty()) return notify_waiters();  // a start has failed
    }
    wait_unlocked(lock);
    resize_if_due();
    notify_waiters();
  }

  void after_progress() {
    backed_off_ = false;
    if (++rounds_ % balance_every == 0) {
      pool_.engine.balance();  // tasks may wait behind a long one
      if (events_due()) handle_events();
    }
    check_deadlines_if_due();
    notify_waiters();
  }

  void wait_unlocked(std::unique_lock<std::mutex>& lock) {
    polled_.clear();
    pool_.engine.each_busy_channel([this](parent_channel& each) { polled_.push_back(&each); });
    blocked_.clear();
    pool_.engine.each_blocked_channel([this](parent_channel& each) { blocked_.push_back(&each); });
    auto dead = pool_.engine.take_dead();
    const bool may_spin = !polled_.empty() && polled_.size() < cpus_;
    unlocked_ = true;
    interrupted_.store(false, std::memory_order_relaxed);  // for this round
    lock.unlock();
    dead.clear();
    const waited how = wait_for_results(may_spin, sleeps_until_);
    lock.lock();
    unlocked_ = false;
    if (how == waited::asleep) {
      handle_events();  // only then the fork server may have reported
    } else if (backed_off_ && events_due()) {
      handle_events();
    }
    backed_off_ = how != waited::briefly;
  }

  // Without the lock.
  waited wait_for_results(bool may_spin, std::optional<time_point> until) {
    const auto committed = [this] {
      return std::ranges::any_of(polled_, [](const auto* channel) { return channel->anything(); });
    };
    const auto ready = [this, committed] {
      // A hint; the event that interrupt() signals is certain.
      return committed() || interrupted_.load(std::memory_order_relaxed);
    };
    if (!backed_off_) {  // a moment for short tasks; then tasks are balanced before the long wait
      spin_until(ready, poll_interval);
      return committed() ? waited::briefly : waited::awake;
    }
    if (may_spin && spin_until(ready)) return waited::awake;
    pool_.engine.backend().arm();
    if (!ready() && !pool_.engine.poll_set_grew() && !anything_uncommitted()) {
      pool_.engine.backend().wait(until);
    }
    pool_.engine.backend().disarm();
    return waited::asleep;
  }

  [[nodiscard]] bool anything_uncommitted() const noexcept {
    for (const parent_channel* channel : polled_) {
      if (channel->anything_at_all()) return true;
    }
    for (const parent_channel* channel : blocked_) {
      if (channel->anything_passed()) return true;
    }
    return false;
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
  bool wanted_ = false;  ///< another thread wants the lead that the service thread has
  int followers_ = 0;
  std::uint64_t rounds_ = 0;              ///< in which the leader found results
  std::vector<parent_channel*> polled_;   ///< what the leader polls while it is unlocked
  std::vector<parent_channel*> blocked_;  ///< what it looks at besides, before it sleeps
  std::atomic<bool> interrupted_{false};
  std::optional<time_point> sleeps_until_{};  ///< the leader, while it is unlocked
  time_point checked_deadlines_{};
  time_point handled_events_{};
};

}  // namespace procpool::detail
