// SPDX-License-Identifier: MIT
/// @file
/// AsyncResult: the result of work that may still be going on.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <procpool/detail/base/slab.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/error.hpp>
#include <procpool/options.hpp>

namespace procpool {

namespace detail {
struct result_access;  // wait.hpp
template <class T, bool take>
class result_awaiter;  // coroutine.hpp

[[noreturn, gnu::noinline]] inline void empty_result() {
  throw std::invalid_argument("the result is empty: it was moved from, or never assigned");
}
}  // namespace detail

/// The result of Pool::apply_async, map_async or starmap_async (Python's AsyncResult). A handle:
/// copies refer to the same work. May be used from any thread of the process that made the pool,
/// and outlives the pool; work that the pool's end leaves undone ends with CancelledError. Waiting
/// threads do the pool's reading and sending themselves, so a wait costs no switch of threads.
template <class T>
class AsyncResult {
 public:
  /// Stands for no result, as one that was moved from: to be assigned to. All else, but comparing
  /// and hashing, is std::invalid_argument.
  AsyncResult() noexcept = default;

  /// Whether both stand for the same work, as Python's futures are equal to themselves only.
  friend bool operator==(const AsyncResult& one, const AsyncResult& other) noexcept {
    return one.job_ == other.job_;
  }

  /// Waits for the result and returns it, as often as it is asked for; from an rvalue
  /// (`pool.apply_async(f).get()`), and when it cannot be copied, it is moved out.
  /// @throws the task's exception with a RemoteTraceback nested inside; WorkerDied, CancelledError,
  /// BrokenPool
  T get() const& { return fetch(std::nullopt); }
  T get() && {
    require(std::nullopt);
    return take();
  }

  /// The same, but waits at most for @p timeout. @throws TimeoutError; the task goes on then.
  template <class Rep, class Period>
  T get(std::chrono::duration<Rep, Period> timeout) const& {
    return fetch(detail::os::deadline_after(timeout));
  }
  template <class Rep, class Period>
  T get(std::chrono::duration<Rep, Period> timeout) && {
    require(detail::os::deadline_after(timeout));
    return take();
  }

  /// The same, but gives up when a stop is requested. @throws CancelledError then; the task goes
  /// on.
  T get(const stop_token& stop) const {
    if (!wait(stop)) throw CancelledError("the wait for the result was stopped");
    return fetch(std::nullopt);
  }

  /// Waits until the result or an exception is there; throws neither.
  void wait() const { static_cast<void>(job().wait_until(std::nullopt)); }
  /// The same, for at most @p timeout; whether it is there.
  template <class Rep, class Period>
  bool wait(std::chrono::duration<Rep, Period> timeout) const {
    return job().wait_until(detail::os::deadline_after(timeout));
  }

  /// The same, until it is there or a stop is requested; whether it is there.
  bool wait(const stop_token& stop) const { return job().wait_until(std::nullopt, stop); }

  /// Whether the result or an exception is there. Does not wait and does not drive the pool.
  [[nodiscard]] bool ready() const { return job().ready(); }

  /// The same (Python's Future.done()).
  [[nodiscard]] bool done() const { return ready(); }
  /// Whether it is done because cancel() or the end of its pool has cancelled it.
  [[nodiscard]] bool cancelled() const { return ready() && job().cancelled(); }
  /// Whether a worker has begun with it, for a map with some of it, and it is not done: a call that
  /// runs can only be cancelled with `kill`. Not while it waits for another attempt. Does not wait
  /// and does not drive the pool. False in a process forked from the pool's.
  /// @throws std::logic_error when called while a result of its pool is decoded
  [[nodiscard]] bool running() const { return job().pool().running(job()); }

  /// Waits like get(); what get() throws then, CancelledError too, or null when it ended well
  /// (Python's Future.exception(), which throws CancelledError).
  [[nodiscard]] std::exception_ptr exception() const {
    wait();
    return job().failure();
  }
  /// The same, but waits at most for @p timeout. @throws TimeoutError; the task goes on then.
  template <class Rep, class Period>
  [[nodiscard]] std::exception_ptr exception(std::chrono::duration<Rep, Period> timeout) const {
    if (!wait(timeout)) throw TimeoutError("the result was not ready in time");
    return job().failure();
  }
  /// The same, but gives up when a stop is requested. @throws CancelledError; the task goes on.
  [[nodiscard]] std::exception_ptr exception(const stop_token& stop) const {
    if (!wait(stop)) throw CancelledError("the wait for the result was stopped");
    return job().failure();
  }

  /// Has @p function called with this result as soon as it is done (Python's
  /// Future.add_done_callback). Exactly once, however it ends: a value, an exception, cancel(), the
  /// end of the pool. get() in it does not wait. Where:
  ///  - if it is done already: now, by the calling thread;
  ///  - else on the pool's service thread, after `.callback` and `.error_callback` of its options,
  ///    in the order in which they were added, with those of all results one after the other: a
  ///    callback that waits holds up the others;
  ///  - if the system refused the service thread a new life after a fork: by a thread that waits
  ///    for a result of the pool, or ends it.
  /// Callbacks may use the pool, add callbacks, and destroy the pool. An exception in one is
  /// reported on stderr and harms nothing. A waiting thread may see the result before they have
  /// run; Pool::join() and the end of the pool wait for them. In a process that is forked meanwhile
  /// they are never called.
  /// @param function callable with an AsyncResult&; kept until it has been called
  /// @throws std::invalid_argument for a null function; std::logic_error in a process forked from
  /// the pool's, when the result is not there; ProcessError when there can be no service thread.
  /// It is not called then.
  template <class F>
    requires(std::is_invocable_v<std::decay_t<F>&, AsyncResult&>)
  void add_done_callback(F&& function) const {
    std::decay_t<F> kept(std::forward<F>(function));
    if constexpr (!std::is_empty_v<std::decay_t<F>> && requires { kept == nullptr; }) {
      if (kept == nullptr) throw std::invalid_argument("add_done_callback: a null function");
    }
    auto call = std::make_unique<done_call<std::decay_t<F>>>(std::move(kept));
    const boost::intrusive_ptr<job_type> held(&job());  // the callback may destroy this object
    if (held->pool().when_done(*held, *call)) {
      static_cast<void>(call.release());  // its job has it now
    } else {
      detail::driver::run_now(*call.release(), *held);
    }
  }

  /// Whether it ended without an exception. @throws std::logic_error unless ready() (Python:
  /// ValueError).
  [[nodiscard]] bool successful() const {
    if (!ready()) throw std::logic_error("AsyncResult::successful(): the result is not ready");
    return job().failure() == nullptr;
  }

  /// Drops work that no worker has begun with. For a single task: true when it will not run, false
  /// when it runs already or is done. For a map: chunks that run are left alone, their results
  /// dropped, and the result is CancelledError. Python's Future.cancel(). With
  /// `cancel({.kill = true})` what runs ends as well: its workers are killed and replaced.
  /// @throws std::bad_alloc when there is no memory to save what other work such a worker has: it
  /// is not killed then. Of a map, what had not begun is dropped all the same, and it is cancelled.
  bool cancel(cancel_options options = {}) { return job().pool().cancel(job(), options.kill); }

  /// Runs the item that failed once more, the first by index, in the calling thread: the same code
  /// with the same arguments, task number and random numbers, so that a debugger can step through
  /// it. Its result is dropped (one that could not be decoded is not decoded again). Any process
  /// that has a copy, any number of times.
  /// @throws what the item throws; std::logic_error when it is not ready, when nothing failed, or
  /// when the arguments were larger than pool_options::replay_bytes
  void replay() const {
    if (!ready()) throw std::logic_error("AsyncResult::replay(): the result is not ready");
    detail::replay(job().replay_of());
  }

 private:
  template <class Backend>
  friend class Pool;
  friend struct detail::result_access;
  friend struct std::hash<AsyncResult>;
  template <class Result, bool take>
  friend class detail::result_awaiter;

  using job_type = detail::typed_job<T>;
  static constexpr bool copies = std::is_void_v<T> || std::is_copy_constructible_v<T>;

  explicit AsyncResult(boost::intrusive_ptr<job_type> job) : job_(std::move(job)) {}

  template <class F>
  class done_call final : public detail::continuation {
   public:
    explicit done_call(F&& function) : function_(std::move(function)) {}

    void run(detail::job& done) override {
      const std::unique_ptr<done_call> self(this);
      AsyncResult result(boost::intrusive_ptr<job_type>(static_cast<job_type*>(&done)));
      function_(result);
    }
    void drop() noexcept override { delete this; }
    // One thread makes them and another one ends them, which malloc does not like.
    static void* operator new(std::size_t size) { return detail::slab_memory::allocate(size); }
    static void operator delete(void* memory) noexcept { detail::slab_memory::deallocate(memory); }
    static void* operator new(std::size_t size, std::align_val_t alignment) {
      return ::operator new(size, alignment);
    }
    static void operator delete(void* memory, std::align_val_t alignment) noexcept {
      ::operator delete(memory, alignment);
    }

   private:
    F function_;
  };

  T fetch(std::optional<detail::time_point> until) const {
    require(until);
    if constexpr (std::is_void_v<T>) {
      return;
    } else if constexpr (copies) {
      return job_->result();
    } else {
      return take();
    }
  }

  T take() const {
    if constexpr (!std::is_void_v<T>) return std::move(job_->result());
  }

  void require(std::optional<detail::time_point> until) const {
    job_type& what = job();
    if (!what.wait_until(until)) throw TimeoutError("the result was not ready in time");
    if (what.failure() != nullptr) std::rethrow_exception(what.failure());
  }

  [[nodiscard]] job_type& job() const {
    if (job_ == nullptr) [[unlikely]]
      detail::empty_result();
    return *job_;
  }

  boost::intrusive_ptr<job_type> job_;
};

}  // namespace procpool

/// By what it stands for: `std::unordered_map<AsyncResult<long>, std::string>`.
template <class T>
struct std::hash<procpool::AsyncResult<T>> {
  std::size_t operator()(const procpool::AsyncResult<T>& result) const noexcept {
    return std::hash<const void*>()(result.job_.get());
  }
};
