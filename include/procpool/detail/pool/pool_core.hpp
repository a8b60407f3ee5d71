// SPDX-License-Identifier: MIT
/// @file
/// A pool with workers, as those see it who submit work, wait for results and end it. It is made of
/// four layers, each of which calls only those below: this one, the bound on tasks (pool_room.hpp),
/// the service thread (pool_service.hpp), and the engine under a lock with whoever makes it move
/// (pool_leader.hpp).
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/pool/pool_room.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/result/ready_observer.hpp>
#include <procpool/detail/ring/arena.hpp>
#include <procpool/detail/ring/block_bin.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class pool_core final : public pool_room {
 public:
  /// Starts the workers. @throws ProcessError when that cannot be done; nothing is left then.
  explicit pool_core(const core_settings& settings, backend_maker make = &make_backend)
      : pool_room(settings, make), places_(settings.sizes.workers) {
    engine_.start_all();
  }
  ~pool_core() override { end(); }

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
    arena& blocks = engine_.backend().blocks();
    unused_blocks_.empty([&](std::span<std::byte> block) { blocks.release(block); });
    unused_blocks_.make_room(blocks.live() + 1);
    return engine_.backend().blocks().allocate(size).value_or(std::span<std::byte>());
  }
  void release(std::span<std::byte> block) noexcept override {
    if (ours()) unused_blocks_.put(block);  // in a forked child its lock may be another thread's
  }
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
    job_list dead;  // dropped without the lock
    std::lock_guard lock(mutex_);
    check_open_locked();
    if (no_room()) [[unlikely]]
      await_room();
    if (owner->unattended() && service_asleep_) service_wakes_.notify_one();
    // A leader that has waited for some time may be asleep and balances nothing: what is under way
    // takes long, so a queue behind it is no place for new work.
    const bool long_tasks = leader_ != role::nobody && backed_off_;
    if (engine_.spinners_busy() && (engine_.waiting() > 0 || !driven())) {
      drain_before_submit(dead);
      check_open_locked();  // that the pool is broken may have come to light
    }
    const auto limit = owner->rules().timeout;
    engine_.submit(std::move(owner), head, first_index, std::move(body),
                   long_tasks ? preference::idle : preference::awake);
    if (limit.count() != 0) wake_leader_by(limit);
    interrupt_for_blocked();
  }

  void complete(job& nothing) override {
    check_usable();
    const std::lock_guard lock(mutex_);
    check_open_locked();
    engine_.complete(nothing);
    notify_waiters();
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
    if (leader_unlocked_) return interrupt_leader();
    resize_if_due();
  }

  void ensure_service(job& what) override {
    check_usable();
    what.leave_unattended();
    if (!service_there_.load(std::memory_order_relaxed))
      ensure_open_service();  // submit() has the lock
  }

  void fail_submission(job& what, const std::exception_ptr& why) override {
    if (generation_ != process_generation()) return;
    std::unique_ptr<done_callback> never_called;  // destroyed without the lock: it is the user's
    std::lock_guard lock(mutex_);
    if (state_ != state::terminated) static_cast<void>(engine_.withdraw(what));
    never_called = what.take_callbacks();
    engine_.abort(what, why);
    notify_waiters();
  }

  bool cancel(job& what, bool kill) override {
    if (what.ready() || generation_ != process_generation()) return false;
    check_usable();
    std::lock_guard lock(mutex_);
    if (what.resolved() || state_ == state::terminated) return false;
    const std::size_t tasks = engine_.outstanding();
    const bool nothing_runs = engine_.withdraw(what);
    bool torn = engine_.outstanding() != tasks;  // what is gone does not come back: it must end
    if (!nothing_runs && !kill && !what.cancellable_while_running()) return false;
    bool stopped = true;
    if (!nothing_runs && kill) {
      engine_.advance();  // so that what it looks like is what runs
      if (what.resolved()) return notify_waiters(), false;
      stopped = engine_.stop_running(what, torn);
    }
    if (stopped || torn) engine_.abort_cancelled(what);
    notify_waiters();
    if (!stopped) throw std::bad_alloc();
    return true;
  }

  bool watch(job& what, observer_entry& by) override {
    check_usable();
    std::lock_guard lock(mutex_);
    if (what.ready()) return false;
    what.watch(by);
    return true;
  }

  void unwatch(observer_entry& by) noexcept override {
    if (generation_ != process_generation()) return;           // nobody is told anything here
    if (engine_.decoding()) return observer_list::remove(by);  // this thread has the lock
    std::lock_guard lock(mutex_);
    observer_list::remove(by);
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
    if (!service_there_.load(std::memory_order_relaxed))
      ensure_service_thread();  // the lock comes next
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
    if (!ready_event_) {
      ready_event_ = os::event::make();
      static_cast<void>(engine_.take_ready());  // it counts from now on
    }
    return ready_event_.get();
  }
  void close_fileno() noexcept override {
    if (!ours()) return;  // abandon() has closed it
    std::lock_guard lock(mutex_);
    ready_event_.reset();
  }

  // ---- waiting -------------------------------------------------------------------------------

  bool wait(const waitable& what, std::optional<time_point> until) override {
    check_usable();
    std::unique_lock lock(mutex_);
    while (!what.ready()) {
      if (service_lost_ && run_lost_callbacks(lock)) continue;
      if (until && std::chrono::steady_clock::now() >= *until) return false;
      ++activity_;
      if (what.resolved()) {
        if (!run_callbacks_inside(lock, what, !until)) follow(lock, until);
      } else if (leader_ == role::nobody && state_ != state::terminated) {
        lead(lock, role::waiter, what, until);
      } else {
        follow(lock, until);
      }
    }
    return true;
  }

  /// By its service thread, unless that could not be had.
  [[nodiscard]] bool drives_itself() override {
    check_process();
    std::lock_guard lock(mutex_);
    return !service_lost_;
  }

  /// A stop was requested of a thread that waits.
  void wake_waiters() override {
    if (generation_ != process_generation()) return;  // the wait says what is wrong
    if (engine_.decoding()) {  // by user's code under the lock: its thread looks when it is back
      wake_requested_ = true;
      return;
    }
    std::lock_guard lock(mutex_);
    changed_.notify_all();
    if (leader_ == role::waiter) interrupt_leader();
  }

  // ---- the end -------------------------------------------------------------------------------

  void close() override {
    check_usable();
    std::lock_guard lock(mutex_);
    if (state_ == state::open) state_ = state::closed;
    if (await_room_ == 0) return;
    changed_.notify_all();  // they are refused
    interrupt_leader();
  }

  bool join(std::optional<time_point> until, const stop_token& stop) override {
    check_usable();
    check_not_own_worker();
    const stop_callback wake(stop, [&] { wake_waiters(); });  // await_end() looks at it
    bool inside = false;                                      // a callback
    {
      std::unique_lock lock(mutex_);
      if (state_ == state::open) {
        throw std::logic_error("Pool::join() was called before close() or terminate()");
      }
      if (state_ == state::terminated) return await_end(lock, until, stop);
      inside = callback_thread_ == std::this_thread::get_id();
    }
    if (!wait_for(*this, work_done(*this, inside), until, stop)) return false;
    {
      std::unique_lock lock(mutex_);
      if (state_ == state::terminated) return await_end(lock, until, stop);
      engine_.retire_all();
    }
    if (!wait_for(*this, workers_gone(*this), until, stop)) return false;
    terminate();
    return true;
  }

  void terminate() override {
    check_process();
    check_not_own_worker();
    if (engine_.decoding()) being_decoded();
    end();
  }

  [[nodiscard]] bool ours() const noexcept override { return generation_ == process_generation(); }

 private:
  // With the lock: whether a leader takes what comes, or the service thread will when it has run
  // the callback that submits. To disturb them costs more than it saves.
  [[nodiscard]] bool driven() const noexcept {
    return leader_ != role::nobody || callback_thread_ == std::this_thread::get_id();
  }

  // With the lock: takes what has come, so that no worker is woken, and no task waits, for want of
  // a look at what those that are awake have done. Not again at once when that was nothing. Whoever
  // submits and submits keeps the service thread away, so it does all that a leader does.
  void drain_before_submit(job_list& dead) {
    if (next_drain_in_ > 0) {
      --next_drain_in_;
    } else if (engine_.advance()) {
      ++activity_;
      if (++drains_ % maintenance_every == 0 && leader_ == role::nobody) run_maintenance();
      if (engine_.any_dead()) dead = engine_.take_dead();
      notify_waiters(hurry::no);
    } else {
      next_drain_in_ = drain_every;
    }
  }

  void end() {
    if (generation_ != process_generation()) return;
    std::unique_lock lock(mutex_);
    if (state_ == state::terminated) return static_cast<void>(await_end(lock));
    state_ = state::terminated;
    ending_ = true;
    engine_.cancel_all();
    notify_waiters();
    while (leader_ != role::nobody) {
      interrupt_leader();
      changed_.wait(lock);
    }
    let_workers_leave(lock);
    engine_.backend().shut_down();
    engine_.release_all();
    auto dead = engine_.take_dead();
    ending_ = false;
    changed_.notify_all();
    lock.unlock();
    dead.clear();
    stop_service();
    run_left_callbacks();
  }

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

  static constexpr int drain_every = 16;
  static constexpr std::uint64_t maintenance_every = 8;  ///< looks at the clock cost, too

  const std::uint64_t places_;  ///< for workers
  block_bin unused_blocks_;
  std::uint64_t drains_ = 0;
  int next_drain_in_ = 0;  ///< so many submissions, as the last look found nothing
  fork_membership known_{registration_};
};

}  // namespace procpool::detail
