// SPDX-License-Identifier: MIT
/// @file
/// The parent's memory of submitted work: where outcomes go, and how threads wait for them.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

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

namespace procpool::detail {

using os::time_point;

class job;
struct pool_task;

/// What holds for each item of a submission.
struct job_rules {
  std::chrono::nanoseconds timeout{0};  ///< it may run; 0: as long as it likes
  std::uint32_t retries = 0;            ///< further attempts after its worker died
  callable_label callable = {};
};

/// What a thread can wait for.
class waitable {
 public:
  /// Any thread. Once true it stays true, except where a type says otherwise.
  [[nodiscard]] virtual bool ready() const noexcept = 0;
  /// Whether all outcomes have arrived, though a callback may still have to run. Pool's lock held.
  [[nodiscard]] virtual bool resolved() const noexcept = 0;
  /// The job that this is, or stands for, if any.
  [[nodiscard]] virtual const job* awaited() const noexcept { return nullptr; }

 protected:
  ~waitable() = default;
};

/// What makes progress: the pool's core, behind results that outlive their pool.
class driver : public boost::intrusive_ref_counter<driver> {
 public:
  virtual ~driver() = default;
  /// Waits until @p what is ready or @p until has come; whether it is ready. Any thread.
  virtual bool wait(const waitable& what, std::optional<time_point> until) = 0;
  /// Has all that wait look again at what they wait for. Any thread.
  virtual void wake_waiters() = 0;
  /// Whether results become ready though nobody waits. Any thread.
  [[nodiscard]] virtual bool drives_itself() = 0;
  /// Cancels what has not begun, and if @p kill is set what runs; true when @p what ends with
  /// CancelledError.
  virtual bool cancel(job& what, bool kill) = 0;
  /// Has @p by told when @p what becomes ready; false: it is ready already. @p what must live until
  /// then, or until unwatch(). Any thread.
  virtual bool watch(job& what, observer_entry& by) = 0;
  /// After it @p by is not told any more. Any thread.
  virtual void unwatch(observer_entry& by) noexcept = 0;
  /// Whether a worker has begun with @p what, or some of it, and it is not done. Any thread.
  [[nodiscard]] virtual bool running(const job& what) = 0;

  /// Has @p then run on the service thread when @p what is ready; false: it is ready already, and
  /// @p then is still the caller's. Not touched any more when this returns. Any thread.
  /// @throws ProcessError when there can be no service thread
  [[nodiscard]] virtual bool when_done(job& what, continuation& then) = 0;
  /// Takes it back, unless it is being run or was. False: this is not the process of the pool, and
  /// nothing can be taken back; it is never run here. Any thread.
  virtual bool withdraw(continuation& then) noexcept = 0;
  /// Runs one; an exception is reported on stderr.
  static void run_now(continuation& then, job& done) noexcept;
};

/// Something to wait for, or a request to stop waiting.
class stoppable final : public waitable {
 public:
  stoppable(const waitable& what, stop_token stop) : what_(&what), stop_(std::move(stop)) {}

  [[nodiscard]] bool ready() const noexcept override {
    came_ = what_->ready();
    return came_ || stop_.stop_requested();
  }
  [[nodiscard]] bool resolved() const noexcept override {
    return what_->resolved() || stop_.stop_requested();
  }
  [[nodiscard]] const job* awaited() const noexcept override { return what_->awaited(); }
  /// Whether it was what was waited for, when that was last looked at. The waiting thread.
  [[nodiscard]] bool came() const noexcept { return came_; }

 private:
  const waitable* what_;
  stop_token stop_;
  mutable bool came_ = false;
};

/// Waits until @p what is ready, @p until has come or a stop is requested; whether it is ready.
inline bool wait_for(driver& pool, const waitable& what, std::optional<time_point> until,
                     const stop_token& stop) {
  if (!stop.stop_possible()) return pool.wait(what, until);
  const stoppable either(what, stop);
  const stop_callback wake(stop, [&] { pool.wake_waiters(); });
  static_cast<void>(pool.wait(either, until));
  return either.came();  // not what.ready(): that may need the pool's lock
}

/// Something to be called when a submission ends, on the pool's service thread.
class done_callback {
 public:
  virtual ~done_callback() = default;
  virtual void call(job& done) = 0;

  std::unique_ptr<done_callback> next;  ///< to be called after this one
};

/// Why a whole submission ends without its outcomes.
enum class ending : std::uint8_t { failed, cancelled };

/// What the pool has to do for a job of some type, so that it need not ask for each outcome.
struct job_form {
  std::size_t plain_size =
      0;                   ///< bytes of each result when they come packed in runs; 0: they do not
  delivery pieces{};       ///< how a large result that is encoded by itself is to come in
  bool sealed = false;     ///< seal() does something
  bool announced = false;  ///< announce() does something
};

/// One submission: an apply, or a whole map of many frames. Its outcomes come in under the lock of
/// its pool; when `ready` is set they do not change any more and any thread may read them.
class job : public waitable {
 public:
  /// Begins with one reference, the maker's.
  job(boost::intrusive_ptr<driver> pool, std::size_t items, const job_form& form,
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

  /// Bytes of each result when they come packed in runs; 0 when each is encoded by itself.
  [[nodiscard]] std::size_t plain_size() const noexcept { return form_.plain_size; }
  /// The encoded result of one item. @throws DecodeError, or what a user's codec throws.
  virtual void value(std::size_t index, std::span<const std::byte> encoded) = 0;
  /// The next bytes of such a result of @p total bytes, delivered as the form says. After an
  /// exception the other pieces still come.
  virtual void piece(std::size_t /*index*/, std::uint64_t /*offset*/, std::uint64_t /*total*/,
                     std::span<const std::byte> /*bytes*/) {}
  /// The next bytes of the plain results from item @p index on, from byte @p offset on.
  virtual void plain(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) = 0;

  /// One item ended with an exception: the first by index is kept.
  virtual void error(std::size_t index, std::exception_ptr what) {
    if (error_ != nullptr && error_index_ <= index) return;
    error_ = std::move(what);
    error_index_ = index;
  }
  /// How the item that failed can be run again: the first by index is kept.
  void keep_replay(std::size_t index, std::shared_ptr<const replayable> what) noexcept {
    replay_ = std::move(what);
    replay_index_ = index;
  }
  [[nodiscard]] bool wants_replay(std::size_t index) const noexcept {
    return missing_ != 0 && index < replay_index_;
  }
  /// Null: nothing was kept. Precondition: ready.
  [[nodiscard]] const std::shared_ptr<const replayable>& replay_of() const noexcept {
    return replay_;
  }
  /// So many items have got their outcome.
  void count(std::size_t items) noexcept {
    missing_ -= items;
    begun_ = true;
  }
  /// Whether any item has.
  [[nodiscard]] bool begun() const noexcept { return begun_; }
  /// The whole submission ends with this exception; outcomes that still come are ignored.
  void abort(std::exception_ptr what, ending how = ending::failed) {
    fail_submission(std::move(what));
    cancelled_ = how == ending::cancelled;
    missing_ = 0;
  }

  /// What holds for its items; to be set before any is submitted.
  void set_rules(const job_rules& rules) noexcept { rules_ = rules; }
  [[nodiscard]] const job_rules& rules() const noexcept { return rules_; }

  /// Nobody waits for it from the beginning: the service thread is to care for it.
  void leave_unattended() noexcept { unattended_ = true; }
  [[nodiscard]] bool unattended() const noexcept { return unattended_; }

  [[nodiscard]] bool resolved() const noexcept override { return missing_ == 0; }
  [[nodiscard]] const job* awaited() const noexcept override { return this; }
  /// Whether cancelling ends it at once though parts of it run; their outcomes are dropped then.
  [[nodiscard]] virtual bool cancellable_while_running() const noexcept { return false; }
  /// Whether seal() and announce() have to be called.
  [[nodiscard]] const job_form& form() const noexcept { return form_; }
  /// Everything has come: brings the result into its final form.
  virtual void seal() {}
  /// It has become ready.
  virtual void announce() { watches_.tell(*this); }
  /// @p by is to be told of that. Precondition: not ready.
  void watch(observer_entry& by) noexcept {
    watches_.add(by);
    form_.announced = true;
  }
  /// Whether there is something to do before it is ready, which must not run under the lock.
  [[nodiscard]] bool has_callback() const noexcept { return callbacks_ != nullptr; }
  /// What is to be called, once: without the lock. Dropped when nobody gets to see the result.
  [[nodiscard]] std::unique_ptr<done_callback> take_callbacks() noexcept {
    return std::move(callbacks_);
  }
  /// What goes on when it has become ready.
  [[nodiscard]] continuation_list& continuations() noexcept { return continuations_; }
  void set_ready() noexcept {
    ready_.store(true, std::memory_order_release);  // the outcomes before it
  }

  // ---- for everybody -------------------------------------------------------------------------

  [[nodiscard]] bool ready() const noexcept override {
    return ready_.load(std::memory_order_acquire);  // the outcomes behind it
  }
  [[nodiscard]] driver& pool() const noexcept { return *pool_; }
  [[nodiscard]] std::uint32_t use_count() const noexcept {
    return references_.load(std::memory_order_acquire);  // what the others did before they let go
  }
  /// Another reference, of one that only the caller knows yet: nothing is exchanged for it.
  [[nodiscard]] boost::intrusive_ptr<job> share_first() noexcept {
    const std::uint32_t before = references_.load(std::memory_order_relaxed);  // this thread's
    references_.store(before + 1, std::memory_order_relaxed);                  // likewise
    return {this, false};
  }
  /// Gives up a reference; true: it was the last one, which the caller has again.
  [[nodiscard]] bool drop_reference() const noexcept {
    if (use_count() == 1) return true;
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1)
      return false;                                   // as in use_count()
    references_.store(1, std::memory_order_relaxed);  // nobody else knows it
    return true;
  }
  friend void intrusive_ptr_add_ref(const job* what) noexcept {
    what->references_.fetch_add(1, std::memory_order_relaxed);  // the caller has one already
  }
  friend void intrusive_ptr_release(const job* what) noexcept {
    // Who has the only reference need not exchange anything: nobody can make another one.
    if (what->use_count() == 1 ||
        what->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {  // as in use_count()
      delete what;
    }
  }
  /// The exception it ended with, or null. Precondition: ready.
  [[nodiscard]] const std::exception_ptr& failure() const noexcept { return error_; }
  /// Whether cancel() or the end of the pool ended it. Precondition: ready.
  [[nodiscard]] bool cancelled() const noexcept { return cancelled_; }
  bool wait_until(std::optional<time_point> until, const stop_token& stop = {}) const {
    return ready() || wait_for(*pool_, *this, until, stop);
  }

 protected:
  /// What is still missing will not come: it is to end with this exception.
  virtual void fail_submission(std::exception_ptr what) { error_ = std::move(what); }

 private:
  friend class job_list;
  friend class job_tasks;

  mutable std::atomic<std::uint32_t> references_{1};
  job_form form_;
  boost::intrusive_ptr<driver> pool_;
  std::unique_ptr<done_callback> callbacks_;
  continuation_list continuations_;
  job_rules rules_;
  std::exception_ptr error_;
  std::size_t error_index_ = 0;
  std::shared_ptr<const replayable> replay_;
  std::size_t replay_index_ = ~std::size_t{0};  ///< of the first failure; no replay: too large
  std::size_t missing_;
  observer_list watches_;
  job* listed_ = nullptr;       ///< the next one in the list that it is in
  pool_task* tasks_ = nullptr;  ///< those that the pool has of it; see job_tasks
  bool unattended_ = false;
  bool begun_ = false;
  bool cancelled_ = false;
  std::atomic<bool> ready_{false};
};

}  // namespace procpool::detail
