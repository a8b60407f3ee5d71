// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// The pool's core: the engine under a lock, and who makes it move.
///
/// Whoever waits for a result drives: takes the lead, reads results and sends tasks until its own
/// is there. At most one thread has the lead; others that wait follow, and one of them takes over.
/// While nobody waits, the service thread does it: it is started by the first asynchronous
/// submission and sleeps when nothing is outstanding. It stays out of the way of threads that are
/// active: it takes the lead only after a whole tick in which nobody drove, and gives it up when
/// somebody wants to. Callbacks run on it, one after the other, without the lock.
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
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/callbacks.hpp>
#include <procpool/detail/concat.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/fork_registry.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/module_table.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool_front.hpp>
#include <procpool/detail/process_backend.hpp>
#include <procpool/detail/task_sender.hpp>
#include <procpool/detail/thread_backend.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What a pool is made with.
struct core_settings {
  worker_kind kind;
  std::uint32_t workers;  ///< at first
  region_sizes sizes;     ///< with places for as many as there can be
  scheduling_rules rules;
  life_rules lives;
  std::shared_ptr<const initializer_frame> initializer;  ///< null: none
  std::uint32_t cpus;                                    ///< that this process may use
};

PROCPOOL_FUNCTION void pool_front::check_rare_code(code_ref code) const {
  const std::string where =
      "the function to run is in " + module_table::instance().name(code.module) + ", ";
  if (code.module >= modules_) {
    throw std::invalid_argument(where + "which was loaded after the pool was made");
  }
  if (std::ranges::find(missing_, code.module) == missing_.end()) return;
  throw std::invalid_argument(
      where +
      "which the spawned workers do not have, or in another build: it was loaded while the program "
      "ran, or its file has been replaced");
}

PROCPOOL_FUNCTION void pool_front::cannot_limit_time() {
  throw std::invalid_argument(
      "a timeout needs workers that are processes: a thread cannot be killed");
}

/// Makes what the workers are, and starts none of them. @throws ProcessError
inline std::unique_ptr<worker_backend> make_backend(worker_kind kind, const region_sizes& sizes) {
  if (kind == worker_kind::threads) return std::make_unique<thread_backend>(sizes);
  return std::make_unique<process_backend>(
      sizes, kind == worker_kind::spawned ? start_method::spawn : start_method::fork);
}

class pool_core final : public pool_front, private fork_participant {
 public:
  using backend_maker = std::unique_ptr<worker_backend> (*)(worker_kind, const region_sizes&);

  /// Starts the workers. @throws ProcessError when that cannot be done; nothing is left then.
  explicit pool_core(core_settings settings, backend_maker make = &make_backend)
      : pool_front(settings.workers,
                   module_table::instance().refresh(),  // before the workers are forked
                   task_sender::in_line_limit(settings.sizes.ring_bytes), settings.kind),
        generation_(process_generation()),
        cpus_(settings.cpus),
        places_(settings.sizes.workers),
        engine_(make(settings.kind, settings.sizes), settings.sizes.workers, settings.workers,
                settings.rules, settings.lives, std::move(settings.initializer)),
        registration_(*this) {
    lack_modules(engine_.backend().missing_modules());
    engine_.start_all();
  }
  ~pool_core() override { terminate(); }

  // ---- submitting ----------------------------------------------------------------------------

  void check_open() override {
    check_usable();
    std::lock_guard lock(mutex_);
    check_open_locked();
  }

  [[nodiscard]] std::span<std::byte> allocate(std::size_t size) override {
    check_usable();
    std::lock_guard lock(mutex_);
    check_open_locked();
    for (const auto& unused : unused_blocks_.take()) engine_.backend().blocks().release(unused);
    return engine_.backend().blocks().allocate(size).value_or(std::span<std::byte>());
  }
  void release(std::span<std::byte> block) override { unused_blocks_.put(block); }
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> block) override {
    return engine_.backend().blocks().offset(block);
  }

  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) override {
    std::lock_guard lock(mutex_);
    return engine_.take_numbers(items);
  }

  void submit(boost::intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body&& body) override {
    check_usable();
    std::lock_guard lock(mutex_);
    check_open_locked();
    if (owner->unattended() && service_asleep_) service_wakes_.notify_one();
    // A leader that has waited for some time may be asleep and balances nothing: what is under way
    // takes long, so a queue behind it is no place for new work.
    const bool long_tasks = leader_ != role::nobody && patient_;
    const auto limit = owner->rules().timeout;
    engine_.submit(std::move(owner), head, first_index, std::move(body),
                   long_tasks ? preference::idle : preference::awake);
    if (limit.count() != 0) wake_leader_by(limit);
    look_after_stalls();
    if (engine_.waiting() > 0 && ++crowded_ % advance_every == 0) {
      ++activity_;
      engine_.advance();
      spread_news();
    }
  }

  // Only when nobody sleeps in the backend can workers be started; a leader that does is called
  // back and does it.
  void resize(std::uint32_t wanted) override {
    check_usable();
    std::lock_guard lock(mutex_);
    check_open_locked();
    if (wanted > places_) {
      throw std::invalid_argument(concat({"the pool has room for ", places_,
                                          " workers; make it with more of them to begin with"}));
    }
    set_workers(wanted);
    resize_due_ = true;
    if (leader_away_) return call_leader_back();
    resize_if_due();
  }

  void care_for(job& what) override {
    check_usable();
    what.leave_unattended();
    if (!service_there_.load(std::memory_order_relaxed)) summon_service();  // submit() has the lock
  }

  void abandon(job& what, const std::exception_ptr& why) override {
    if (generation_ != process_generation()) return;
    std::unique_ptr<done_callback> never_called;  // destroyed without the lock: it is the user's
    std::lock_guard lock(mutex_);
    if (state_ != state::terminated) engine_.withdraw(what);
    never_called = what.take_callbacks();
    engine_.abort(what, why);
    spread_news();
  }

  bool cancel(job& what, bool kill) override {
    if (what.ready() || generation_ != process_generation()) return false;
    check_usable();
    std::lock_guard lock(mutex_);
    if (what.resolved() || state_ == state::terminated) return false;
    const bool nothing_runs = engine_.withdraw(what);
    if (!nothing_runs && !kill && !what.cancellable_while_running()) return false;
    if (!nothing_runs && kill) {
      engine_.advance();  // so that what it looks like is what runs
      if (what.resolved()) return spread_news(), false;
      engine_.stop_running(what);
    }
    engine_.abort(what, std::make_exception_ptr(CancelledError("the task was cancelled")),
                  ending::cancelled);
    spread_news();
    return true;
  }

  bool watch(job& what, watch_point& by) override {
    check_usable();
    std::lock_guard lock(mutex_);
    if (what.ready()) return false;
    what.watch(by);
    return true;
  }

  void unwatch(watch_point& by) noexcept override {
    if (generation_ != process_generation()) return;        // nobody is told anything here
    if (engine_.decoding()) return watch_list::remove(by);  // this thread has the lock
    std::lock_guard lock(mutex_);
    watch_list::remove(by);
  }

  bool running(const job& what) override {
    if (what.ready() || generation_ != process_generation()) return false;
    check_usable();
    std::lock_guard lock(mutex_);
    return !what.resolved() && engine_.running(what);
  }

  bool when_done(job& what, continuation& then) override {
    if (what.ready()) return false;
    check_usable();
    if (!service_there_.load(std::memory_order_relaxed)) bring_service();  // the lock comes next
    std::lock_guard lock(mutex_);
    if (what.ready()) return false;
    what.continuations().push(then);
    return true;
  }

  bool withdraw(continuation& then) noexcept override {
    if (generation_ != process_generation()) return false;
    boost::intrusive_ptr<job> held;  // let go without the lock
    std::unique_lock lock(mutex_, std::defer_lock);
    if (!engine_.decoding()) lock.lock();  // else by user's code under the lock
    held = engine_.due().withdraw(then);
    return true;
  }

  int fileno() override {
    check_usable();
    std::lock_guard lock(mutex_);
    if (!ready_bell_) {
      ready_bell_ = os::event::make();
      static_cast<void>(engine_.take_ready());  // it counts from now on
    }
    return ready_bell_.get();
  }
  void close_fileno() noexcept override {
    std::lock_guard lock(mutex_);
    ready_bell_.reset();
  }

  // ---- waiting -------------------------------------------------------------------------------

  bool wait(const waitable& what, std::optional<time_point> until) override {
    check_usable();
    std::unique_lock lock(mutex_);
    while (!what.ready()) {
      if (service_lost_ && callbacks_due() && !serving_ && !in_callback_) {
        run_all_callbacks(lock);
        continue;
      }
      if (until && std::chrono::steady_clock::now() >= *until) return false;
      ++activity_;
      if (leader_ == role::nobody && !what.resolved() && state_ != state::terminated) {
        lead(lock, role::waiter, what, until);
      } else {
        follow(lock, until);
      }
    }
    return true;
  }

  /// A stop was requested of a thread that waits.
  void nudge() override {
    if (engine_.decoding()) {  // by user's code under the lock: its thread looks when it is back
      nudged_.store(true, std::memory_order_relaxed);  // same thread
      return;
    }
    std::lock_guard lock(mutex_);
    changed_.notify_all();
    if (leader_ == role::waiter) call_leader_back();
  }

  // ---- the end -------------------------------------------------------------------------------

  void close() override {
    std::lock_guard lock(mutex_);
    if (state_ == state::open) state_ = state::closed;
  }

  bool join(const std::stop_token& stop) override {
    check_usable();
    check_not_own_worker();
    bool inside = false;  // a callback
    {
      std::unique_lock lock(mutex_);
      if (state_ == state::open) {
        throw std::logic_error("Pool::join() was called before close() or terminate()");
      }
      if (state_ == state::terminated) return await_end(lock), true;
      inside = server_ == std::this_thread::get_id();
    }
    if (!wait_for(*this, work_done(*this, inside), std::nullopt, stop)) return false;
    {
      std::unique_lock lock(mutex_);
      if (state_ == state::terminated) return await_end(lock), true;
      engine_.retire_all();
    }
    if (!wait_for(*this, workers_gone(*this), std::nullopt, stop)) return false;
    terminate();
    return true;
  }

  void terminate() override {
    if (generation_ != process_generation()) return;
    check_not_own_worker();
    std::unique_lock lock(mutex_);
    if (state_ == state::terminated) return await_end(lock);
    state_ = state::terminated;
    ending_ = true;
    engine_.cancel_all(std::make_exception_ptr(CancelledError("the pool was terminated")));
    spread_news();
    while (leader_ != role::nobody) {
      call_leader_back();
      changed_.wait(lock);
    }
    let_workers_leave(lock);
    engine_.backend().shut_down();
    engine_.forget_all();
    auto dead = engine_.take_dead();
    ending_ = false;
    changed_.notify_all();
    lock.unlock();
    dead.clear();
    stop_service();
    run_left_callbacks();
  }

  [[nodiscard]] bool ours() const noexcept override { return generation_ == process_generation(); }

 private:
  enum class state { open, closed, terminated };
  enum class role { nobody, waiter, service };

  struct work_done final : waitable {
    /// @param inside a callback waits: the others run when it has returned
    work_done(pool_core& pool, bool inside) : pool_(&pool), inside_(inside) {}
    bool ready() const noexcept override {  // only called by wait(), with the lock
      return pool_->state_ == state::terminated ||
             (resolved() && (inside_ || (!pool_->callbacks_due() && !pool_->in_callback_)));
    }
    bool resolved() const noexcept override { return pool_->engine_.outstanding() == 0; }
    pool_core* pool_;
    bool inside_;
  };
  struct workers_gone final : waitable {
    explicit workers_gone(pool_core& pool) : pool_(&pool) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return pool_->state_ == state::terminated || pool_->engine_.workers_present() == 0;
    }
    pool_core* pool_;
  };

  void check_process() const {
    if (generation_ == process_generation()) return;
    throw std::logic_error("the pool belongs to another process: it cannot be used after fork");
  }

  void check_not_own_worker() {
    if (!engine_.backend().on_worker()) return;
    throw std::logic_error("a pool of threads cannot be ended by one of its own tasks");
  }

  // Tasks that run in threads come to their end in their own time, and may need the lock for that:
  // one that waits for a result of this pool does. Nobody else looks at the workers of a pool that
  // is terminated.
  void let_workers_leave(std::unique_lock<std::mutex>& lock) {
    if (engine_.backend().can_kill()) return;
    lock.unlock();
    engine_.backend().await_workers();
    lock.lock();
  }
  // Another thread may be at it.
  void await_end(std::unique_lock<std::mutex>& lock) {
    changed_.wait(lock, [this] { return !ending_; });
  }

  // Decoders and constructors of results run under the lock.
  void check_usable() const {
    check_process();
    if (!engine_.decoding()) return;
    throw std::logic_error("a pool cannot be used while one of its results is decoded");
  }

  void check_open_locked() const {
    if (state_ != state::open) throw PoolClosed("the pool is closed: it takes no more work");
    if (!engine_.broken().empty()) throw BrokenPool(engine_.broken());
  }

  // Blocks that were given back and are not free yet: whoever drops the last reference to a shared
  // one may hold the pool's lock or not.
  class block_bin {
   public:
    void put(std::span<std::byte> block) {
      std::lock_guard lock(mutex_);
      blocks_.push_back(block);
    }
    [[nodiscard]] std::vector<std::span<std::byte>> take() {
      std::lock_guard lock(mutex_);
      return std::exchange(blocks_, {});
    }

   private:
    std::mutex mutex_;
    std::vector<std::span<std::byte>> blocks_;
  };

  // A leader that is away does not look at workers that were stalled since.
  void look_after_stalls() {
    if (engine_.more_stalled()) call_leader_back();
  }

  // Tells threads that wait what has changed.
  void spread_news() {
    look_after_stalls();
    const bool nudged = nudged_.exchange(false, std::memory_order_relaxed);  // by this thread
    if (!engine_.take_news() && !nudged) return;
    ring_ready();
    if (callbacks_due()) service_wakes_.notify_one();
    if (followers_ > 0) changed_.notify_all();
    if (leader_ == role::waiter || state_ != state::open) call_leader_back();
  }

  // Tells event loops. One system call, however many results.
  void ring_ready() noexcept {
    if (!ready_bell_) return;
    if (const std::uint64_t fresh = engine_.take_ready(); fresh != 0) ready_bell_.ring(fresh);
  }

  // The leader may be asleep though what it waits for has happened.
  void call_leader_back() {
    if (!leader_away_) return;
    called_back_.store(true, std::memory_order_relaxed);  // ends its spinning
    engine_.backend().interrupt();
  }

  void resize_if_due() {
    if (!std::exchange(resize_due_, false) || state_ != state::open) return;
    engine_.resize(workers());
    spread_news();
  }

  // A task that may run for so long is under way: the leader must not sleep through its end.
  void wake_leader_by(std::chrono::nanoseconds limit) {
    if (!leader_away_) return;
    if (sleeps_until_ && *sleeps_until_ - std::chrono::steady_clock::now() <= limit) return;
    call_leader_back();
  }

  void handle_reports() {
    if (state_ != state::terminated) engine_.handle_reports();
  }
  // While there is always news nobody sleeps, and workers may die all the same.
  void handle_reports_if_due() {
    const auto now = std::chrono::steady_clock::now();
    if (now - handled_reports_ < often_enough) return;
    handled_reports_ = now;
    handle_reports();
  }
  // Nor does time stand still.
  void look_at_clock_if_due() {
    if (!engine_.clock_matters()) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - looked_at_clock_ < often_enough) return;
    looked_at_clock_ = now;
    static_cast<void>(engine_.look_at_clock(now));
  }

  // ---- driving -------------------------------------------------------------------------------

  void lead(std::unique_lock<std::mutex>& lock, role who, const waitable& what,
            std::optional<time_point> until) {
    leader_ = who;
    patient_ = false;
    try {
      while (!what.resolved() && state_ != state::terminated && !(who == role::service && yield_)) {
        if (until && std::chrono::steady_clock::now() >= *until) break;
        step(lock, until);
      }
    } catch (...) {
      resign();
      throw;
    }
    resign();
  }

  void resign() noexcept {
    if (service_dozes_) service_wakes_.notify_one();
    leader_ = role::nobody;
    yield_ = false;
    if (followers_ > 0 || state_ != state::open) changed_.notify_all();
  }

  void follow(std::unique_lock<std::mutex>& lock, std::optional<time_point> until) {
    if (leader_ == role::service) {
      yield_ = true;
      call_leader_back();
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
    if (engine_.advance()) {
      patient_ = false;
      if (++rounds_ % balance_every == 0) {
        engine_.balance();  // others may wait behind a long task
        handle_reports_if_due();
      }
      look_at_clock_if_due();
      return spread_news();
    }
    sleeps_until_ = until;
    if (patient_) {  // what is under way takes its time
      engine_.balance();
      sleeps_until_ = earlier(until, engine_.look_at_clock(std::chrono::steady_clock::now()));
      if (!engine_.broken().empty()) return spread_news();  // a start that was due has failed
    }
    glance_.clear();
    engine_.each_busy_channel([this](parent_channel& channel) { glance_.push_back(&channel); });
    stalled_.clear();
    engine_.each_stalled_channel([this](parent_channel& channel) { stalled_.push_back(&channel); });
    auto dead = engine_.take_dead();
    const bool may_spin = !glance_.empty() && glance_.size() < cpus_;
    leader_away_ = true;
    called_back_.store(false, std::memory_order_relaxed);  // for this round
    lock.unlock();
    dead.clear();
    const bool slept = wait_for_news(may_spin, sleeps_until_);
    lock.lock();
    const bool waited_long = std::exchange(patient_, true);
    leader_away_ = false;
    if (slept) {
      handle_reports();
    } else if (waited_long) {
      handle_reports_if_due();
    }
    resize_if_due();
    spread_news();
  }

  // Without the lock. Whether it slept: only then the fork server may have reported.
  bool wait_for_news(bool may_spin, std::optional<time_point> until) {
    const auto news = [this] {
      for (const parent_channel* channel : glance_) {
        if (channel->anything()) return true;
      }
      return called_back_.load(std::memory_order_relaxed);  // a hint; the descriptor is certain
    };
    if (!patient_) {  // a moment for short tasks; then tasks are balanced before the long wait
      spin_until(news, short_wait);
      return false;
    }
    if (may_spin && spin_until(news)) return false;
    engine_.backend().arm();
    if (!news() && !engine_.widened() && !anything_untold()) engine_.backend().wait(until);
    engine_.backend().disarm();
    return true;
  }

  static std::optional<time_point> earlier(std::optional<time_point> one,
                                           std::optional<time_point> other) {
    if (!one || !other) return one ? one : other;
    return std::min(*one, *other);
  }

  [[nodiscard]] bool anything_untold() const noexcept {
    for (const parent_channel* channel : glance_) {
      if (channel->anything_at_all()) return true;
    }
    for (const parent_channel* channel : stalled_) {
      if (channel->anything_passed()) return true;
    }
    return false;
  }

  // ---- the service thread --------------------------------------------------------------------

  void summon_service() {
    check_usable();
    {
      std::lock_guard lock(mutex_);
      check_open_locked();
    }
    bring_service();
  }

  void bring_service() {
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
    {
      std::lock_guard lock(mutex_);
      stopping_ = state_ == state::terminated;
      if (serving_ || stopping_ || !service_wanted_) return;
      set_serving(true);
    }
    if (service_.joinable()) service_.join();  // it ended after the wait for it was over
    try {
      const os::signals_blocked guard;  // signals are for the program's own threads
      // The thread keeps the core alive: a callback may destroy the pool.
      service_ = std::thread([self = boost::intrusive_ptr<pool_core>(this)] { self->serve(); });
    } catch (const std::system_error& error) {
      std::lock_guard lock(mutex_);
      set_serving(false);
      service_lost_ = true;
      throw ProcessError("cannot start the service thread of the pool", error.code());
    }
  }

  void serve() {
    const fork_thread mark(registration_);
    std::unique_lock lock(mutex_);
    server_ = std::this_thread::get_id();
    service_lost_ = false;
    while (!stopping_ || callbacks_due()) {
      if (callbacks_due()) {
        run_callbacks(lock);
        run_due(lock);
      } else if (engine_.outstanding() == 0 || state_ == state::terminated) {
        rest(lock);
      } else if (leader_ != role::nobody || std::exchange(seen_activity_, activity_) != activity_) {
        quiet_ticks_ = 0;
        stand_by(lock);
      } else {
        lead(lock, role::service, service_idle(*this), std::nullopt);
      }
    }
    server_ = {};
    set_serving(false);
  }

  // With the lock.
  void set_serving(bool serving) {
    serving_ = serving;
    service_there_.store(serving, std::memory_order_relaxed);  // a hint to go without the lock
  }

  // Somebody drives, or did a moment ago. While one and the same thread has the lead, there is less
  // and less reason to look; when it resigns the service is told.
  void stand_by(std::unique_lock<std::mutex>& lock) {
    constexpr int most_doublings = 8;
    const std::uint64_t before = activity_;
    const auto doze = tick * (1 << doublings_);
    service_dozes_ = doublings_ > 0;
    service_wakes_.wait_for(lock, doze);
    service_dozes_ = false;
    const bool same = leader_ == role::waiter && activity_ == before;
    doublings_ = same ? std::min(doublings_ + 1, most_doublings) : 0;
  }

  // What the service waits for when it leads: something else to do.
  struct service_idle final : waitable {
    explicit service_idle(pool_core& pool) : pool_(&pool) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {
      return pool_->stopping_ || pool_->engine_.outstanding() == 0 || pool_->callbacks_due();
    }
    pool_core* pool_;
  };

  // Ticks on for a while, so that the next submission need not wake it; then sleeps.
  void rest(std::unique_lock<std::mutex>& lock) {
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

  // With the lock: whether the service thread has anything to run.
  [[nodiscard]] bool callbacks_due() noexcept {
    return !engine_.with_callbacks().empty() || engine_.due().any();
  }

  // Those that run before a result is ready.
  void run_callbacks(std::unique_lock<std::mutex>& lock) {
    if (engine_.with_callbacks().empty()) return;
    auto batch = std::exchange(engine_.with_callbacks(), {});
    in_callback_ = true;
    for (auto& each : batch) {
      lock.unlock();
      run_callbacks_of(*each);
      lock.lock();
      engine_.set_ready(*each);
      ring_ready();
      changed_.notify_all();
      if (leader_ == role::waiter) call_leader_back();  // it may wait for just this one
    }
    in_callback_ = false;
    changed_.notify_all();
    lock.unlock();
    batch.clear();  // may destroy results of the user's: not under the lock
    lock.lock();
  }

  // Those that run when it is.
  void run_due(std::unique_lock<std::mutex>& lock) {
    constexpr int at_once = 1024;  // then the others have a turn
    in_callback_ = true;
    lock.unlock();
    boost::intrusive_ptr<job> of;
    for (int i = 0; i < at_once; ++i) {
      continuation* next = engine_.due().take(of);
      if (next == nullptr) break;
      run_now(*next, *of);
      of = nullptr;  // may destroy a result of the user's
    }
    lock.lock();
    in_callback_ = false;
    changed_.notify_all();
  }

  // By a thread that is not the service thread, because that could not be had after a fork.
  void run_all_callbacks(std::unique_lock<std::mutex>& lock) {
    while (callbacks_due()) {
      run_callbacks(lock);
      run_due(lock);
    }
  }

  // Nobody is left to run them, unless a callback ends the pool: then its thread is still there.
  void run_left_callbacks() {
    std::unique_lock lock(mutex_);
    if (!serving_ && !in_callback_) run_all_callbacks(lock);
  }

  void ask_service_to_stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    service_wakes_.notify_one();
    if (leader_ != role::service) return;
    yield_ = true;
    call_leader_back();
  }

  void stop_service() {
    ask_service_to_stop();
    if (fork_registry::on_library_thread() && on_service_thread()) {
      const fork_pause none;
      service_.detach();  // a callback ends the pool: the thread ends when the callback returns
      return;
    }
    registration_.wait_for_end();
    const fork_pause none;
    if (service_.joinable()) service_.join();
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
    } catch (const Error&) {  // the next asynchronous submission tries again and tells
    }
  }

  void abandon() noexcept override {
    engine_.backend().abandon();
    ready_bell_.reset();
    std::construct_at(&service_);  // there is no such thread in this process
  }

  static constexpr std::chrono::microseconds short_wait{3};
  static constexpr std::chrono::milliseconds tick{1};
  static constexpr int ticks_before_sleep = 20;
  static constexpr std::chrono::milliseconds patience{100};    ///< of a fork, with a callback
  static constexpr std::chrono::milliseconds often_enough{1};  ///< to look at the rest of the world
  static constexpr std::uint64_t advance_every = 16;
  static constexpr std::uint64_t balance_every = 64;

  const std::uint32_t generation_;
  const std::uint32_t cpus_;
  const std::uint64_t places_;

  block_bin unused_blocks_;
  std::mutex mutex_;
  std::condition_variable changed_;        ///< followers: something is ready, or there is no leader
  std::condition_variable service_wakes_;  ///< the service thread: there is something to do
  engine engine_;
  state state_ = state::open;
  role leader_ = role::nobody;
  bool leader_away_ = false;  ///< the leader spins or sleeps, without the lock
  bool patient_ = false;      ///< the leader has waited for a moment in vain
  bool resize_due_ = false;
  bool ending_ = false;  ///< terminate() is on its way
  bool yield_ = false;   ///< somebody wants the lead that the service has
  int followers_ = 0;
  std::uint64_t activity_ = 0;  ///< counts waits and the like, for the service to stay away
  std::uint64_t crowded_ = 0;   ///< counts submissions that found all workers busy
  std::uint64_t rounds_ = 0;    ///< counts what the leader found news in
  std::vector<parent_channel*> glance_;   ///< what the leader looks at while it is away
  std::vector<parent_channel*> stalled_;  ///< and what it looks at before it sleeps
  std::atomic<bool> called_back_{false};
  std::atomic<bool> nudged_{false};           ///< by a thread that held the lock
  os::event ready_bell_;                      ///< for event loops; empty: nobody has asked for it
  std::optional<time_point> sleeps_until_{};  ///< the leader, while it is away
  time_point looked_at_clock_{};
  time_point handled_reports_{};

  std::thread service_;                     ///< changed under a fork_pause only
  std::thread::id server_;                  ///< that thread, while it runs
  bool service_wanted_ = false;             ///< there has been an asynchronous submission
  bool service_lost_ = false;               ///< and it could not be had, or not again
  bool serving_ = false;                    ///< the thread is there
  std::atomic<bool> service_there_{false};  ///< the same, for who has not the lock
  std::uint64_t seen_activity_ = 0;
  int quiet_ticks_ = 0;
  int doublings_ = 0;            ///< of its tick, while another thread drives for long
  bool service_asleep_ = false;  ///< for want of anything to do
  bool service_dozes_ = false;   ///< for longer than a tick
  bool stopping_ = false;
  bool in_callback_ = false;

  fork_registration registration_;  // last: known to others only when all else is there
};

}  // namespace procpool::detail
