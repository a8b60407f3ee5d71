// SPDX-License-Identifier: MIT
/// @file
/// A pool without workers (Pool<Serial>): tasks run on the calling thread, while they are
/// submitted. For debugging, and to find out whether a fault depends on processes. Any thread; each
/// member takes the lock itself, and no user code runs under it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/crash/death_report.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool/inline_frame.hpp>
#include <procpool/detail/result/callbacks.hpp>
#include <procpool/detail/result/continuation_queue.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/submit/submission.hpp>
#include <procpool/detail/submit/submission_terms.hpp>
#include <procpool/error.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

class inline_pool final : public pool_interface, private fork_handler {
 public:
  /// Runs the initializer. If it fails the pool is broken.
  /// @param seed seed of the tasks' random numbers
  inline_pool(const initializer_frame* initializer, std::uint64_t seed)
      : pool_interface(every_module, std::numeric_limits<std::size_t>::max(), worker_kind::caller),
        generation_(process_generation()),
        seed_(seed) {
    if (initializer != nullptr) initialize(*initializer);
  }

  void check_open() override {
    check_process();
    const std::lock_guard lock(mutex_);
    check_open_locked();
  }

  // No body leaves the submission, so none needs a block.
  [[nodiscard]] std::span<std::byte> allocate(std::size_t /*size*/) override { return {}; }
  [[nodiscard]] std::span<std::byte> allocate_large(std::size_t /*size*/) override { return {}; }
  void release(std::span<std::byte> /*block*/) noexcept override {}
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> /*block*/) override { return 0; }

  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) override {
    const std::lock_guard lock(mutex_);
    return std::exchange(next_number_, next_number_ + items);
  }

  void submit(intrusive_ptr<job> owner, const frame_head& head, std::size_t first_index,
              task_body&& body) override {
    const running_task now(*this);
    if (owner->resolved()) return;  // a chunk of a map that has ended as a whole
    scratch_buffer scratch;
    frame_head numbered = head;
    numbered.attempt = 1;
    if (head.first_number == unnumbered) numbered.first_number = take_numbers(head.item_count);
    inline_frame(numbered, {{}, body.bytes}, now.worker(), scratch.get(),
                 {owner.get(), first_index})
        .run();
    if (owner->resolved()) settle(*owner);
  }
  void complete(job& empty_job) override {
    const running_task now(*this);
    settle(empty_job);
  }
  [[nodiscard]] bool full() override { return false; }
  [[nodiscard]] bool await_room(std::optional<time_point> /*until*/,
                                const stop_token& /*stop*/) override {
    return true;
  }
  void resize(std::uint32_t wanted) override {
    check_open();
    workers_.store(wanted, std::memory_order_relaxed);  // as in workers()
  }
  [[nodiscard]] std::uint32_t workers() const noexcept override {
    return workers_.load(std::memory_order_relaxed);  // one number
  }
  void ensure_service(job& target) override {
    check_open();
    target.leave_unattended();
  }
  void fail_submission(job& target, const std::exception_ptr& why) override {
    if (target.resolved()) return;
    const auto never_called = target.take_callbacks();  // the submission throws
    target.abort(why);
    settle(target);
  }

  /// Too late: a submission returns after its items have run.
  bool cancel(job& /*target*/, bool /*kill*/) override { return false; }

  /// Waits for results that other threads submit. A thread's own are ready when submit() returns.
  bool wait(const waitable& target, std::optional<time_point> until) override {
    check_process();
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return target.ready(); };
    if (until) return changed_.wait_until(lock, *until, ready);
    changed_.wait(lock, ready);
    return true;
  }
  /// A job that is not ready runs: on another thread, or further up this thread's call stack.
  [[nodiscard]] bool running(const job& target) override { return !target.ready(); }

  bool when_done(job& target, continuation& then) override {
    check_process();
    const std::lock_guard lock(mutex_);
    if (target.ready()) return false;
    target.continuations().push(then);
    return true;
  }
  bool withdraw(continuation& then) noexcept override {
    if (!ours()) return false;
    intrusive_ptr<job> held;  // released without the lock
    const std::lock_guard lock(mutex_);
    held = due_.withdraw(then);
    return true;
  }

  int fileno() override {
    check_process();
    const std::lock_guard lock(mutex_);
    if (!ready_event_) ready_event_ = os::event::make();
    return ready_event_.get();
  }
  void close_fileno() noexcept override {
    if (!ours()) return;  // abandon() has closed it
    const std::lock_guard lock(mutex_);
    ready_event_.reset();
  }

  bool watch(job& target, observer_entry& by) override {
    check_process();
    const std::lock_guard lock(mutex_);
    if (target.ready()) return false;
    target.watch(by);
    return true;
  }
  void unwatch(observer_entry& by) noexcept override {
    if (!ours()) return;
    const std::lock_guard lock(mutex_);
    observer_list::remove(by);
  }
  void wake_waiters() override {
    if (!ours()) return;
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  [[nodiscard]] bool drives_itself() override {
    check_process();
    return true;
  }

  void close() override {
    check_process();
    shut();
  }
  bool join(std::optional<time_point> until, const stop_token& stop) override {
    check_process();
    {
      const std::lock_guard lock(mutex_);
      if (!closed_) {
        throw std::logic_error("Pool::join() was called before close() or terminate()");
      }
    }
    const joining_caller now(*this);
    if (!wait_for(*this, others_done(*this), until, stop)) return false;
    std::map<std::thread::id, caller> leaving;  // destroyed without the lock: runs users' code
    const std::lock_guard lock(mutex_);
    if (running_ == 0) leaving.swap(callers_);
    joined_ = true;
    return true;
  }
  void terminate() override {
    check_process();  // another thread may have had the lock when this process was forked
    const std::lock_guard lock(mutex_);
    closed_ = joined_ = true;
  }
  [[nodiscard]] pool_state state() override {
    check_process();
    const std::lock_guard lock(mutex_);
    if (joined_) return pool_state::terminated;
    if (!broken_.empty()) return pool_state::broken;
    return closed_ ? pool_state::closed : pool_state::active;
  }
  [[nodiscard]] bool ours() const noexcept override { return generation_ == process_generation(); }

 private:
  void abandon() noexcept override { ready_event_.reset(); }

  static constexpr std::uint32_t every_module = std::numeric_limits<std::uint32_t>::max();

  void check_process() const {
    if (ours()) return;
    throw std::logic_error("the pool belongs to another process: it cannot be used after fork");
  }

  void check_open_locked() const {
    if (closed_) throw PoolClosed("the pool is closed: it takes no more work");
    if (!broken_.empty()) throw BrokenPool(broken_);
  }

  void shut() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  // A thread that submits, which takes the part of a worker.
  struct caller {
    std::unique_ptr<inline_worker> worker;
    std::size_t running = 0;  ///< frames on its stack
  };
  [[nodiscard]] caller& own_caller() {  // with the lock
    caller& own = callers_[std::this_thread::get_id()];
    if (own.worker == nullptr) own.worker = std::make_unique<inline_worker>("SerialWorker", seed_);
    return own;
  }

  // A frame and its callbacks, while they run: join() waits for them.
  class running_task {
   public:
    explicit running_task(inline_pool& pool) : pool_(&pool) {
      pool.check_process();
      const std::lock_guard lock(pool.mutex_);
      pool.check_open_locked();
      own_ = &pool.own_caller();
      ++own_->running;
      ++pool.running_;
    }
    running_task(const running_task&) = delete;
    running_task& operator=(const running_task&) = delete;
    ~running_task() {
      const std::lock_guard lock(pool_->mutex_);
      --own_->running;
      --pool_->running_;
      pool_->changed_.notify_all();
    }
    [[nodiscard]] inline_worker& worker() const noexcept { return *own_->worker; }

   private:
    inline_pool* pool_;
    caller* own_;
    const terms_scope default_terms_;  // for submissions of the task
  };

  // A thread in join(). Its own frames, from which it was called, are not waited for.
  class joining_caller {
   public:
    explicit joining_caller(inline_pool& pool) : pool_(&pool) {
      const std::lock_guard lock(pool.mutex_);
      const auto own = pool.callers_.find(std::this_thread::get_id());
      frames_ = own == pool.callers_.end() ? 0 : own->second.running;
      pool.joining_ += frames_;
      pool.changed_.notify_all();
    }
    joining_caller(const joining_caller&) = delete;
    joining_caller& operator=(const joining_caller&) = delete;
    ~joining_caller() {
      const std::lock_guard lock(pool_->mutex_);
      pool_->joining_ -= frames_;
    }

   private:
    inline_pool* pool_;
    std::size_t frames_;
  };

  // Ready when only frames run whose threads are in join() themselves.
  struct others_done final : waitable {
    explicit others_done(inline_pool& pool) : pool_(&pool) {}
    bool ready() const noexcept override { return pool_->running_ == pool_->joining_; }  // locked
    bool resolved() const noexcept override { return ready(); }
    inline_pool* pool_;
  };

  void initialize(const initializer_frame& initializer) {
    frame_head head{};
    head.kind = frame_kind::run;
    head.entry_offset = initializer.entry.offset;
    head.entry_module = initializer.entry.module;
    head.item_count = 1;
    head.initializer = 1;
    head.first_number = unnumbered;
    head.body_size = initializer.body.size();
    const intrusive_ptr<call_job<void>> outcome(new call_job<void>(nullptr), false);
    scratch_buffer scratch;
    inline_frame(head, {{}, initializer.body.view()}, *own_caller().worker, scratch.get(),
                 {outcome.get(), 0})
        .run();
    if (outcome->failure() == nullptr) return;
    broken_ = "the pool is broken: the initializer failed: " + describe(outcome->failure());
  }

  // Ends a job that has all its outcomes: runs its callbacks, makes it ready, runs continuations.
  void settle(job& target) {
    try {
      if (target.form().sealed) target.seal();
    } catch (...) {  // a result that cannot be moved
      target.abort(std::current_exception());
    }
    run_callbacks_of(target, target.take_callbacks());
    publish(target);
    intrusive_ptr<job> done;
    while (continuation* next = due_.take(done)) run_now(*next, *done);
  }

  void publish(job& target) {
    const std::lock_guard lock(mutex_);
    target.set_ready();
    if (target.form().announced) target.announce();
    if (!target.continuations().empty()) due_.put(target);
    if (ready_event_ && target.unattended()) ready_event_.signal();
    changed_.notify_all();
  }

  const std::uint32_t generation_;
  const std::uint64_t seed_;
  std::atomic<std::uint32_t> workers_{1};  ///< as resize() set it; there are none
  std::mutex mutex_;
  std::condition_variable changed_;  ///< a result is ready, a frame has ended, or a stop was asked
  std::map<std::thread::id, caller> callers_;
  std::size_t running_ = 0;  ///< frames of all callers
  std::size_t joining_ = 0;  ///< of these: frames of callers that are in join()
  continuation_queue due_;
  std::uint64_t next_number_ = 0;  ///< number of the next item
  os::event ready_event_;          ///< for event loops; empty until the first fileno()
  std::string broken_;             ///< why the pool is broken; empty if it is not
  bool closed_ = false;
  bool joined_ = false;  ///< or terminated

  fork_registration registration_{*this};  // last: forks see a complete pool
};

}  // namespace procpool::detail
