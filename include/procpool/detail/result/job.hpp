// SPDX-License-Identifier: MIT
/// @file
/// The parent's state of submitted work: it collects outcomes, and threads wait for it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include <procpool/detail/base/replayable.hpp>
#include <procpool/detail/base/slab.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/codec/incremental_decode.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/ready_observer.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

using os::time_point;

class job;
struct pool_task;

/// Rules for each item of a submission.
struct job_rules {
  std::chrono::nanoseconds timeout{0};  ///< time limit; 0: none
  std::uint32_t retries = 0;            ///< further attempts after its worker died
  callable_label callable = {};
};

/// Anything that a thread can wait for.
class waitable {
 public:
  /// Any thread. Once true it stays true, unless a type says otherwise.
  [[nodiscard]] virtual bool ready() const noexcept = 0;
  /// Whether all outcomes have arrived; a callback may still have to run. Pool's lock held.
  [[nodiscard]] virtual bool resolved() const noexcept = 0;
  /// The job that this is or represents, if any.
  [[nodiscard]] virtual const job* awaited() const noexcept { return nullptr; }

 protected:
  ~waitable() = default;
};

/// Makes progress: the pool's core. Results refer to it and outlive their pool.
class driver : public reference_counted<driver> {
 public:
  virtual ~driver() = default;
  /// Waits until @p target is ready or @p until is reached; whether it is ready. Any thread.
  virtual bool wait(const waitable& target, std::optional<time_point> until) = 0;
  /// Makes all waiting threads check again what they wait for. Any thread.
  virtual void wake_waiters() = 0;
  /// Whether results become ready while no thread waits. Any thread.
  [[nodiscard]] virtual bool drives_itself() = 0;
  /// Cancels items that have not begun, and running ones too if @p kill is set. @returns whether
  /// @p target ends with CancelledError
  virtual bool cancel(job& target, bool kill) = 0;
  /// Notifies @p by when @p target becomes ready; false: it is ready already. @p target must live
  /// until then, or until unwatch(). Any thread.
  virtual bool watch(job& target, observer_entry& by) = 0;
  /// Removes @p by: it is not notified after this. Any thread.
  virtual void unwatch(observer_entry& by) noexcept = 0;
  /// Whether a worker has begun with any item of @p target, and it is not done. Any thread.
  [[nodiscard]] virtual bool running(const job& target) = 0;

  /// Runs @p then on the service thread when @p target is ready; false: it is ready already, and
  /// the caller keeps @p then. Does not touch @p then after this returns, unless to run it. Any
  /// thread.
  /// @throws ProcessError when there can be no service thread
  [[nodiscard]] virtual bool when_done(job& target, continuation& then) = 0;
  /// Withdraws @p then, unless it has been taken to run. False: this is not the pool's process.
  /// Nothing can be withdrawn or run here. Any thread.
  virtual bool withdraw(continuation& then) noexcept = 0;
  /// Runs @p then; an exception is reported on stderr.
  static void run_now(continuation& then, job& done) noexcept;
};

/// Ready when something is ready or a stop is requested.
class stoppable final : public waitable {
 public:
  stoppable(const waitable& target, stop_token stop) : target_(&target), stop_(std::move(stop)) {}

  [[nodiscard]] bool ready() const noexcept override {
    was_ready_ = target_->ready();
    return was_ready_ || stop_.stop_requested();
  }
  [[nodiscard]] bool resolved() const noexcept override {
    return target_->resolved() || stop_.stop_requested();
  }
  [[nodiscard]] const job* awaited() const noexcept override { return target_->awaited(); }
  /// Whether it was ready itself, when last checked. For the waiting thread.
  [[nodiscard]] bool was_ready() const noexcept { return was_ready_; }

 private:
  const waitable* target_;
  stop_token stop_;
  mutable bool was_ready_ = false;
};

/// Waits until @p target is ready, @p until is reached or a stop is requested; whether it is ready.
inline bool wait_for(driver& pool, const waitable& target, std::optional<time_point> until,
                     const stop_token& stop) {
  if (!stop.stop_possible()) return pool.wait(target, until);
  const stoppable either(target, stop);
  const stop_callback wake(stop, [&] { pool.wake_waiters(); });
  static_cast<void>(pool.wait(either, until));
  return either.was_ready();  // not target.ready(): that may need the pool's lock
}

/// A user's callback for the end of a submission, called on the pool's service thread.
class done_callback {
 public:
  virtual ~done_callback() = default;
  virtual void call(job& done) = 0;

  std::unique_ptr<done_callback> next;  ///< called after this one
};

/// How a submission ends without all its outcomes.
enum class ending : std::uint8_t { failed, cancelled };

/// The properties of a job's type that the pool needs for each outcome, so that it needs no virtual
/// call.
struct job_form {
  std::size_t plain_size = 0;  ///< bytes of each result that is packed in runs; 0: not packed
  delivery pieces{};           ///< how pieces of a large encoded result are delivered
  bool sealed = false;         ///< whether to call seal()
  bool announced = false;      ///< whether to call announce()
};

/// One submission: an apply, or a whole map of many frames. Outcomes arrive under the pool's lock.
/// Once `ready` is set they do not change, and any thread may read them.
class job : public waitable {
 public:
  /// Starts with one reference, the maker's.
  job(intrusive_ptr<driver> pool, std::size_t items, const job_form& form,
      std::unique_ptr<done_callback> callbacks)
      : form_(form), pool_(std::move(pool)), callbacks_(std::move(callbacks)), missing_(items) {}
  virtual ~job() = default;
  job(const job&) = delete;
  job& operator=(const job&) = delete;
  static void* operator new(std::size_t size) { return slab_memory::allocate(size); }
  static void operator delete(void* memory) noexcept { slab_memory::deallocate(memory); }
  static void* operator new(std::size_t size, std::align_val_t alignment) {
    return ::operator new(size, alignment);
  }
  static void operator delete(void* memory, std::align_val_t alignment) noexcept {
    ::operator delete(memory, alignment);
  }

  // ---- for the pool, under its lock ----------------------------------------------------------

  /// Bytes of each result that is packed in runs; 0 when each is encoded by itself.
  [[nodiscard]] std::size_t plain_size() const noexcept { return form_.plain_size; }
  /// Takes the encoded result of one item. @throws DecodeError; exceptions of a user's codec
  virtual void value(std::size_t index, std::span<const std::byte> encoded) = 0;
  /// Takes the next bytes of an encoded result of @p total bytes, delivered as the form says.
  /// Further pieces arrive even after an exception.
  virtual void piece(std::size_t /*index*/, std::uint64_t /*offset*/, std::uint64_t /*total*/,
                     std::span<const std::byte> /*bytes*/) {}
  /// Takes the next bytes of the plain results, starting with item @p index, from byte @p offset
  /// on.
  virtual void plain(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) = 0;

  /// One item ended with an exception; keeps the first by index.
  virtual void error(std::size_t index, std::exception_ptr exception) {
    if (error_ != nullptr && error_index_ <= index) return;
    error_ = std::move(exception);
    error_index_ = index;
  }
  /// Keeps how to run the failed item again; the first by index.
  void keep_replay(std::size_t index, std::shared_ptr<const replayable> input) noexcept {
    replay_ = std::move(input);
    replay_index_ = index;
  }
  [[nodiscard]] bool wants_replay(std::size_t index) const noexcept {
    return missing_ != 0 && index < replay_index_;
  }
  /// Null: nothing was kept. Precondition: ready.
  [[nodiscard]] const std::shared_ptr<const replayable>& replay_of() const noexcept {
    return replay_;
  }
  /// Counts @p items more outcomes.
  void count(std::size_t items) noexcept {
    missing_ -= items;
    begun_ = true;
  }
  /// Whether any item has its outcome.
  [[nodiscard]] bool begun() const noexcept { return begun_; }
  /// Ends the whole submission with this exception; later outcomes are ignored.
  void abort(std::exception_ptr exception, ending kind = ending::failed) {
    fail_submission(std::move(exception));
    cancelled_ = kind == ending::cancelled;
    missing_ = 0;
  }

  /// Sets the rules for its items; before the first one is submitted.
  void set_rules(const job_rules& rules) noexcept { rules_ = rules; }
  [[nodiscard]] const job_rules& rules() const noexcept { return rules_; }

  /// No thread waits for it yet: the service thread has to drive it.
  void leave_unattended() noexcept { unattended_ = true; }
  [[nodiscard]] bool unattended() const noexcept { return unattended_; }

  [[nodiscard]] bool resolved() const noexcept override { return missing_ == 0; }
  [[nodiscard]] const job* awaited() const noexcept override { return this; }
  /// Whether cancel() ends it at once while parts of it run; their outcomes are dropped.
  [[nodiscard]] virtual bool cancellable_while_running() const noexcept { return false; }
  /// The properties of its type.
  [[nodiscard]] const job_form& form() const noexcept { return form_; }
  /// All outcomes are there: brings the result into its final form.
  virtual void seal() {}
  /// It has become ready: notifies the observers.
  virtual void announce() { observers_.notify_all(*this); }
  /// Notifies @p by then. Precondition: not ready.
  void watch(observer_entry& by) noexcept {
    observers_.add(by);
    form_.announced = true;
  }
  /// Whether callbacks have to run before it is ready, without the lock.
  [[nodiscard]] bool has_callback() const noexcept { return callbacks_ != nullptr; }
  /// The callbacks, once; to be called without the lock, or dropped if the result will not be read.
  [[nodiscard]] std::unique_ptr<done_callback> take_callbacks() noexcept {
    return std::move(callbacks_);
  }
  /// The continuations that run when it has become ready.
  [[nodiscard]] continuation_list& continuations() noexcept { return continuations_; }
  void set_ready() noexcept {
    ready_.store(true, std::memory_order_release);  // publishes the outcomes
  }

  // ---- for any thread ------------------------------------------------------------------------

  [[nodiscard]] bool ready() const noexcept override {
    return ready_.load(std::memory_order_acquire);  // sees the outcomes
  }
  [[nodiscard]] driver& pool() const noexcept { return *pool_; }
  [[nodiscard]] std::uint32_t use_count() const noexcept {
    return references_.load(std::memory_order_acquire);  // sees what the other owners did
  }
  /// Adds a reference to a job that only the caller knows yet: without an atomic exchange.
  [[nodiscard]] intrusive_ptr<job> share_first() noexcept {
    const std::uint32_t before = references_.load(std::memory_order_relaxed);  // this thread's
    references_.store(before + 1, std::memory_order_relaxed);                  // likewise
    return {this, false};
  }
  /// Drops a reference. True: it was the last one, and the caller keeps it.
  [[nodiscard]] bool drop_reference() const noexcept {
    if (use_count() == 1) return true;
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1)
      return false;                                   // as in use_count()
    references_.store(1, std::memory_order_relaxed);  // no other thread knows it
    return true;
  }
  friend void intrusive_ptr_add_ref(const job* target) noexcept {
    target->references_.fetch_add(1, std::memory_order_relaxed);  // the caller has one
  }
  friend void intrusive_ptr_release(const job* target) noexcept {
    // The only owner needs no atomic exchange: no other thread can add a reference.
    if (target->use_count() == 1 ||
        target->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {  // as in use_count()
      delete target;
    }
  }
  /// Its exception, or null. Precondition: ready.
  [[nodiscard]] const std::exception_ptr& failure() const noexcept { return error_; }
  /// Whether cancel() or the end of the pool ended it. Precondition: ready.
  [[nodiscard]] bool cancelled() const noexcept { return cancelled_; }
  bool wait_until(std::optional<time_point> until, const stop_token& stop = {}) const {
    return ready() || wait_for(*pool_, *this, until, stop);
  }

 protected:
  /// Ends all missing items with this exception.
  virtual void fail_submission(std::exception_ptr exception) { error_ = std::move(exception); }

 private:
  friend class job_list;
  friend class job_tasks;

  mutable std::atomic<std::uint32_t> references_{1};
  job_form form_;
  intrusive_ptr<driver> pool_;
  std::unique_ptr<done_callback> callbacks_;
  continuation_list continuations_;
  job_rules rules_;
  std::exception_ptr error_;
  std::size_t error_index_ = 0;
  std::shared_ptr<const replayable> replay_;
  std::size_t replay_index_ = ~std::size_t{0};  ///< of the first failure, even if none is kept
  std::size_t missing_;
  observer_list observers_;
  job* listed_ = nullptr;       ///< the next one in its list
  pool_task* tasks_ = nullptr;  ///< the pool's tasks of this job; see job_tasks
  bool unattended_ = false;
  bool begun_ = false;
  bool cancelled_ = false;
  std::atomic<bool> ready_{false};
};

}  // namespace procpool::detail
