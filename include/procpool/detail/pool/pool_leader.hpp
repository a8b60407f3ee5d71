// SPDX-License-Identifier: MIT
/// @file
/// The engine under a lock, and who makes it move.
///
/// Whoever waits for a result drives: takes the lead, reads results and sends tasks until its own
/// is there. At most one thread has the lead; others that wait follow, and one of them takes over.
/// While nobody waits, the service thread does it (pool_service.hpp).
///
/// Only the leader looks at shared memory without the lock, only the leader handles reports (and so
/// replaces workers), and only the leader sleeps in the backend.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/parking.hpp>
#include <procpool/detail/ring/task_producer.hpp>
#include <procpool/detail/scheduling/engine.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class pool_leader : public pool_interface {
 protected:
  enum class state { open, closed, terminated };
  enum class role { nobody, waiter, service };
  enum class hurry { no, yes };

  pool_leader(const core_settings& settings, backend_maker make)
      : pool_interface(settings.workers,
                       module_table::instance().refresh(),  // before the workers are forked
                       task_producer::in_line_limit(settings.sizes.ring_bytes), settings.kind),
        generation_(process_generation()),
        cpus_(settings.cpus),
        max_pending_(settings.max_pending),
        engine_(make(settings), settings.sizes.workers, settings.workers, settings.rules,
                settings.lives, settings.initializer) {
    polled_channels_.reserve(settings.sizes.workers);  // all that can ever be in them
    stalled_.reserve(settings.sizes.workers);
    lack_modules(engine_.backend().missing_modules());
    if (settings.initializer == nullptr) return;
    check_code(settings.initializer->entry);
    check_code(settings.initializer->function);
  }

  void check_process() const {
    if (generation_ != process_generation()) [[unlikely]]
      not_ours();
  }
  // Decoders and constructors of results run under the lock.
  void check_usable() const {
    check_process();
    if (engine_.decoding()) [[unlikely]]
      being_decoded();
  }
  void check_open_locked() const {
    if (state_ != state::open || !engine_.broken().empty()) [[unlikely]]
      not_open();
  }

  // ---- news ----------------------------------------------------------------------------------

  // With the lock: whether the service thread has anything to run.
  [[nodiscard]] bool callbacks_due() noexcept {
    return !engine_.with_callbacks().empty() || engine_.due().size() != 0;
  }

  // Callbacks wait for a thread that waits, because there was no service thread to be had.
  [[nodiscard]] bool callbacks_lost() noexcept {
    return service_lost_ && callbacks_due() && callback_thread_ == std::thread::id();
  }

  // A leader that is away does not look at workers that were stalled since.
  void interrupt_for_blocked() {
    if (leader_unlocked_ && (engine_.more_blocked() || engine_.wants_idle_workers()))
      interrupt_leader();
  }

  // With the lock: whether no task can be submitted for now.
  [[nodiscard]] bool no_room() const noexcept { return engine_.outstanding() >= max_pending_; }

  // Tells threads that wait what has changed.
  void notify_waiters(hurry service = hurry::yes) {
    interrupt_for_blocked();
    if (await_room_ > 0 && !no_room()) {
      changed_.notify_all();
      interrupt_leader();  // it may be one of them
    }
    if (!engine_.take_notice() && !wake_requested_) return;
    wake_requested_ = false;
    signal_ready_event();
    if (callbacks_due() && worth_waking(service)) service_wakes_.notify_one();
    if (followers_ > 0) changed_.notify_all();
    const bool wanted = leader_ != role::service || callbacks_due() || state_ != state::open;
    if (wanted) interrupt_leader();  // the service runs callbacks when it does not lead
  }

  // To wake the service thread costs more than many callbacks. A thread that submits and submits
  // does it for a number of them; else they are seen at the next tick.
  [[nodiscard]] bool worth_waking(hurry service) noexcept {
    constexpr std::size_t many = 256;
    return service == hurry::yes || service_asleep_ || service_backs_off_ ||
           engine_.due().size() >= many;
  }

  // Tells event loops. One system call, however many results.
  void signal_ready_event() noexcept {
    if (!ready_event_) return;
    if (const std::uint64_t fresh = engine_.take_ready(); fresh != 0) ready_event_.signal(fresh);
  }

  // The leader may be asleep though what it waits for has happened.
  void interrupt_leader() {
    if (!leader_unlocked_) return;
    interrupted_.store(true, std::memory_order_relaxed);  // ends its spinning
    engine_.backend().interrupt();
  }

  void resize_if_due() {
    if (!std::exchange(resize_due_, false) || state_ != state::open) return;
    set_workers(engine_.resize(workers()));
    notify_waiters();
  }

  // A task that may run for so long is under way: the leader must not sleep through its end.
  void wake_leader_by(std::chrono::nanoseconds limit) {
    if (!leader_unlocked_) return;
    if (sleeps_until_ && *sleeps_until_ - std::chrono::steady_clock::now() <= limit) return;
    interrupt_leader();
  }

  void handle_events() {
    if (state_ != state::terminated) engine_.handle_events();
  }
  // While there is always news nobody sleeps, and workers may die all the same.
  [[nodiscard]] bool events_due() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now - handled_events_ < check_interval) return false;
    handled_events_ = now;
    return true;
  }
  void handle_events_if_due() {
    if (events_due()) handle_events();
  }
  // With the lock, and while nobody leads: what a leader does from time to time besides.
  void run_maintenance() {
    if (!events_due()) return;
    engine_.balance_if_stuck();
    handle_events();
    if (engine_.wants_idle_workers()) engine_.balance();
    resize_if_due();
    check_deadlines_if_due();
  }
  // Nor does time stand still.
  void check_deadlines_if_due() {
    if (!engine_.has_deadlines()) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - checked_deadlines_ < check_interval) return;
    checked_deadlines_ = now;
    static_cast<void>(engine_.check_deadlines(now));
  }

  // ---- refusals, out of the way of those who are not refused ---------------------------------

  [[noreturn, gnu::noinline]] static void not_ours() {
    throw std::logic_error("the pool belongs to another process: it cannot be used after fork");
  }
  [[noreturn, gnu::noinline]] static void being_decoded() {
    throw std::logic_error("a pool cannot be used while one of its results is decoded");
  }
  [[noreturn, gnu::noinline]] void not_open() const {
    if (state_ != state::open) throw PoolClosed("the pool is closed: it takes no more work");
    throw BrokenPool(engine_.broken());
  }

  // ---- driving -------------------------------------------------------------------------------

  void lead(std::unique_lock<std::mutex>& lock, role who, const waitable& what,
            std::optional<time_point> until) {
    leader_ = who;
    backed_off_ = false;
    try {
      while (!what.resolved() && state_ != state::terminated &&
             !(who == role::service && lead_requested_) && !callbacks_lost()) {
        if (until && std::chrono::steady_clock::now() >= *until) break;
        step(lock, until);
      }
    } catch (...) {
      step_down();
      throw;
    }
    step_down();
    drop_dead(lock);
  }

  // Jobs whose last outcome has just come and that nobody else refers to: the next round that waits
  // would drop them, but there may be none.
  void drop_dead(std::unique_lock<std::mutex>& lock) {
    if (!engine_.any_dead()) return;
    auto dead = engine_.take_dead();
    lock.unlock();
    dead.clear();  // runs destructors of the user's
    lock.lock();
  }

  void step_down() noexcept {
    if (service_backs_off_) service_wakes_.notify_one();
    leader_ = role::nobody;
    lead_requested_ = false;
    if (followers_ > 0 || state_ != state::open) changed_.notify_all();
  }

  void follow(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    if (leader_ == role::service) {
      lead_requested_ = true;
      interrupt_leader();
    }
    ++followers_;
    if (until) {
      changed_.wait_until(lock, *until);
    } else {
      changed_.wait(lock);
    }
    --followers_;
  }

  // One round: what has come is handled, or the thread waits until something comes.
  void step(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    // While one worker brings news without a pause, another may hold results back.
    const bool partial = !backed_off_ && engine_.working() == 1;
    if (engine_.advance(partial ? drain_mode::partial : drain_mode::full)) {
      backed_off_ = false;
      if (++rounds_ % balance_every == 0) {
        engine_.balance();  // others may wait behind a long task
        handle_events_if_due();
      }
      check_deadlines_if_due();
      return notify_waiters();
    }
    sleeps_until_ = until;
    if (backed_off_) {  // what is under way takes its time
      engine_.balance();
      sleeps_until_ = earlier(until, engine_.check_deadlines(std::chrono::steady_clock::now()));
      if (!engine_.broken().empty()) return notify_waiters();  // a start that was due has failed
    }
    polled_channels_.clear();
    engine_.each_busy_channel(
        [this](parent_channel& channel) { polled_channels_.push_back(&channel); });
    stalled_.clear();
    engine_.each_blocked_channel([this](parent_channel& channel) { stalled_.push_back(&channel); });
    auto dead = engine_.take_dead();
    const bool may_spin = !polled_channels_.empty() && polled_channels_.size() < cpus_;
    leader_unlocked_ = true;
    interrupted_.store(false, std::memory_order_relaxed);  // for this round
    lock.unlock();
    dead.clear();
    const waited how = wait_for_news(may_spin, sleeps_until_);
    lock.lock();
    leader_unlocked_ = false;
    if (how == waited::asleep) {
      handle_events();  // only then the fork server may have reported
    } else if (backed_off_) {
      handle_events_if_due();
    }
    backed_off_ = how != waited::a_moment;
    resize_if_due();
    notify_waiters();
  }

  enum class waited { a_moment, awake, asleep };  ///< a_moment: and then a worker told of results

  // Without the lock.
  waited wait_for_news(bool may_spin, std::optional<time_point> until) {
    const auto told = [this] {
      return std::ranges::any_of(polled_channels_,
                                 [](const auto* channel) { return channel->anything(); });
    };
    const auto news = [this, told] {
      return told() || interrupted_.load(std::memory_order_relaxed);  // a hint; the bell is certain
    };
    if (!backed_off_) {  // a moment for short tasks; then tasks are balanced before the long wait
      spin_until(news, poll_interval);
      return told() ? waited::a_moment : waited::awake;
    }
    if (may_spin && spin_until(news)) return waited::awake;
    engine_.backend().arm();
    if (!news() && !engine_.poll_set_grew() && !anything_uncommitted())
      engine_.backend().wait(until);
    engine_.backend().disarm();
    return waited::asleep;
  }

  static std::optional<time_point> earlier(std::optional<time_point> one,
                                           std::optional<time_point> other) {
    if (!one || !other) return one ? one : other;
    return std::min(*one, *other);
  }

  [[nodiscard]] bool anything_uncommitted() const noexcept {
    for (const parent_channel* channel : polled_channels_) {
      if (channel->anything_at_all()) return true;
    }
    for (const parent_channel* channel : stalled_) {
      if (channel->anything_passed()) return true;
    }
    return false;
  }

  const std::uint32_t generation_;
  const std::uint32_t cpus_;
  const std::size_t max_pending_;  ///< tasks that are not done
  std::mutex mutex_;
  std::condition_variable changed_;        ///< followers: something is ready, or there is no leader
  std::condition_variable service_wakes_;  ///< the service thread: there is something to do
  engine engine_;
  state state_ = state::open;
  role leader_ = role::nobody;
  bool leader_unlocked_ = false;  ///< the leader spins or sleeps, without the lock
  bool backed_off_ = false;       ///< the leader has waited since there was news
  bool resize_due_ = false;
  bool lead_requested_ = false;  ///< somebody wants the lead that the service has
  int followers_ = 0;
  int await_room_ = 0;               ///< threads that wait to submit
  std::uint64_t activity_ = 0;       ///< counts waits and the like, for the service to stay away
  bool wake_requested_ = false;      ///< by a thread that held the lock
  os::event ready_event_;            ///< for event loops; empty: nobody has asked for it
  bool service_asleep_ = false;      ///< for want of anything to do
  bool service_backs_off_ = false;   ///< for longer than a tick
  bool service_lost_ = false;        ///< the thread could not be had, or not again
  std::thread::id callback_thread_;  ///< the thread that runs callbacks, while there is one

 private:
  static constexpr std::chrono::microseconds poll_interval{3};
  static constexpr std::chrono::milliseconds check_interval{
      1};  ///< to look at the rest of the world
  static constexpr std::uint64_t balance_every = 64;

  std::uint64_t rounds_ = 0;                      ///< counts what the leader found news in
  std::vector<parent_channel*> polled_channels_;  ///< what the leader looks at while it is away
  std::vector<parent_channel*> stalled_;          ///< and what it looks at before it sleeps
  std::atomic<bool> interrupted_{false};
  std::optional<time_point> sleeps_until_{};  ///< the leader, while it is away
  time_point checked_deadlines_{};
  time_point handled_events_{};
};

}  // namespace procpool::detail
