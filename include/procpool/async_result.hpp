// SPDX-License-Identifier: MIT
/// @file
/// AsyncResult: a handle to the result of work that may still be in progress.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

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
#include <procpool/detail/task/intrusive_ptr.hpp>
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

/// The result of Pool::apply_async, map_async or starmap_async (Python: AsyncResult). Copies refer
/// to the same work. Any thread of the process that made the pool may use it. It outlives the pool;
/// work that the end of the pool leaves undone ends with CancelledError. If a worker dies, its item
/// ends with WorkerDied, or is retried (call_options::retries). A waiting thread does the pool's
/// reading and sending itself, so a wait needs no thread switch.
template <class T>
class AsyncResult {
 public:
  /// Makes an empty handle, like one that was moved from. All of its members throw
  /// std::invalid_argument; only assignment, comparison and hashing work.
  AsyncResult() noexcept = default;

  /// Whether both refer to the same work (Python: the identity of futures).
  friend bool operator==(const AsyncResult& one, const AsyncResult& other) noexcept {
    return one.job_ == other.job_;
  }

  /// Waits for the result and returns a copy; can be repeated. An rvalue
  /// (`pool.apply_async(f).get()`) moves the result out, and so does a type that cannot be copied.
  /// @throws the exception of the task with a nested RemoteTraceback; WorkerDied, CancelledError,
  /// BrokenPool
  T get() const& { return fetch(std::nullopt); }
  T get() && {
    require(std::nullopt);
    return take();
  }

  /// get() that waits at most for @p timeout. @throws as get(); TimeoutError; the task goes on then
  template <class Rep, class Period>
  T get(std::chrono::duration<Rep, Period> timeout) const& {
    return fetch(detail::os::deadline_after(timeout));
  }
  template <class Rep, class Period>
  T get(std::chrono::duration<Rep, Period> timeout) && {
    require(detail::os::deadline_after(timeout));
    return take();
  }

  /// get() that waits until a stop is requested. @throws as get(); CancelledError after a stop
  /// request; the task goes on then
  T get(const stop_token& stop) const {
    if (!wait(stop)) throw CancelledError("the wait for the result was stopped");
    return fetch(std::nullopt);
  }

  /// Waits until the result or an exception is there; throws neither.
  void wait() const { static_cast<void>(job().wait_until(std::nullopt)); }
  /// wait() for at most @p timeout. @returns whether the result or an exception is there
  template <class Rep, class Period>
  bool wait(std::chrono::duration<Rep, Period> timeout) const {
    return job().wait_until(detail::os::deadline_after(timeout));
  }

  /// wait() until a stop is requested. @returns whether the result or an exception is there
  bool wait(const stop_token& stop) const { return job().wait_until(std::nullopt, stop); }

  /// Whether the result or an exception is there. Does not wait and does not drive the pool.
  [[nodiscard]] bool ready() const { return job().ready(); }

  /// The same as ready() (Python: Future.done()).
  [[nodiscard]] bool done() const { return ready(); }
  /// Whether cancel() or the end of its pool has cancelled it.
  [[nodiscard]] bool cancelled() const { return ready() && job().cancelled(); }
  /// Whether a worker has begun with the call, or with any item of the map, and it is not done. A
  /// running call can only be cancelled with `kill`. False between two attempts, and in a forked
  /// process. Does not wait and does not drive the pool.
  /// @throws std::logic_error when called while a result of its pool is decoded
  [[nodiscard]] bool running() const { return job().pool().running(job()); }

  /// Waits like get(). @returns the exception that get() would throw, or null (Python:
  /// Future.exception(), which throws CancelledError instead of returning it).
  [[nodiscard]] std::exception_ptr exception() const {
    wait();
    return job().failure();
  }
  /// exception() that waits at most for @p timeout. @throws TimeoutError; the task goes on then
  template <class Rep, class Period>
  [[nodiscard]] std::exception_ptr exception(std::chrono::duration<Rep, Period> timeout) const {
    if (!wait(timeout)) throw TimeoutError("the result was not ready in time");
    return job().failure();
  }
  /// exception() that waits until a stop is requested. @throws CancelledError; the task goes on
  /// then
  [[nodiscard]] std::exception_ptr exception(const stop_token& stop) const {
    if (!wait(stop)) throw CancelledError("the wait for the result was stopped");
    return job().failure();
  }

  /// Calls @p function with this result once it is done (Python: Future.add_done_callback). It is
  /// called exactly once, whether with a value, an exception, after cancel(), or at the end of the
  /// pool. get() does not wait in it. The thread:
  ///  - the calling thread, at once, if the result is done already;
  ///  - else the pool's service thread, after `.callback` and `.error_callback` of the options. All
  ///    callbacks of the pool run one after another, in the order in which they were added, so one
  ///    that waits delays the others;
  ///  - if the system refused to restart the service thread after a fork: a thread that waits for a
  ///    result of the pool, or ends it.
  ///
  /// Callbacks may use the pool, add callbacks, and destroy the pool. An exception of a callback is
  /// reported on stderr and otherwise ignored. A waiting thread may see the result before the
  /// callbacks have run; Pool::join() and the end of the pool wait for them. A process that is
  /// forked meanwhile never calls them.
  /// @param function callable with an AsyncResult&; kept until it has been called
  /// @throws std::invalid_argument for a null function; std::logic_error in a forked process, when
  /// the result is not there; ProcessError when there can be no service thread. It is not called
  /// then.
  template <class F>
    requires(std::is_invocable_v<std::decay_t<F>&, AsyncResult&>)
  void add_done_callback(F&& function) const {
    std::decay_t<F> kept(std::forward<F>(function));
    if constexpr (!std::is_empty_v<std::decay_t<F>> && requires { kept == nullptr; }) {
      if (kept == nullptr) throw std::invalid_argument("add_done_callback: a null function");
    }
    auto call = std::make_unique<done_call<std::decay_t<F>>>(std::move(kept));
    const detail::intrusive_ptr<job_type> held(&job());  // the callback may destroy this object
    if (held->pool().when_done(*held, *call)) {
      static_cast<void>(call.release());  // owned by its job now
    } else {
      detail::driver::run_now(*call.release(), *held);
    }
  }

  /// Whether it ended without an exception.
  /// @throws std::logic_error unless ready() (Python: ValueError)
  [[nodiscard]] bool successful() const {
    if (!ready()) throw std::logic_error("AsyncResult::successful(): the result is not ready");
    return job().failure() == nullptr;
  }

  /// Cancels work that no worker has begun with (Python: Future.cancel()). Running chunks of a map
  /// go on, their results are dropped, and the map's result is CancelledError. With `cancel({.kill
  /// = true})` running work ends too: its workers are killed and replaced.
  /// @returns whether it was cancelled; false if it is done, or, without `kill`, if it is a call
  /// that runs already
  /// @throws std::bad_alloc when there is no memory to save the other work of such a worker, which
  /// is not killed then. The part of a map that had not begun is cancelled all the same.
  bool cancel(cancel_options options = {}) { return job().pool().cancel(job(), options.kill); }

  /// Runs the failed item again in the calling thread, the first by index: the same code with the
  /// same arguments, task number and random numbers, so that a debugger can step through it. Its
  /// result is dropped; a result that could not be decoded is not decoded again. Any process that
  /// has a copy of the handle can call it, any number of times.
  /// @throws the exception of the item; std::logic_error when the result is not ready, nothing
  /// failed, or the arguments were larger than pool_options::replay_bytes
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

  explicit AsyncResult(detail::intrusive_ptr<job_type> job) : job_(std::move(job)) {}

  template <class F>
  class done_call final : public detail::continuation {
   public:
    explicit done_call(F&& function) : function_(std::move(function)) {}

    void run(detail::job& done) override {
      const std::unique_ptr<done_call> self(this);
      AsyncResult result(detail::intrusive_ptr<job_type>(static_cast<job_type*>(&done)));
      function_(result);
    }
    void drop() noexcept override { delete this; }
    // One thread allocates these and another frees them, which is slow with malloc.
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
    job_type& awaited = job();
    if (!awaited.wait_until(until)) throw TimeoutError("the result was not ready in time");
    if (awaited.failure() != nullptr) std::rethrow_exception(awaited.failure());
  }

  [[nodiscard]] job_type& job() const {
    if (job_ == nullptr) [[unlikely]]
      detail::empty_result();
    return *job_;
  }

  detail::intrusive_ptr<job_type> job_;
};

}  // namespace procpool

/// Hashes the work that a handle refers to: `std::unordered_map<AsyncResult<long>, std::string>`.
template <class T>
struct std::hash<procpool::AsyncResult<T>> {
  std::size_t operator()(const procpool::AsyncResult<T>& result) const noexcept {
    return std::hash<const void*>()(result.job_.get());
  }
};
