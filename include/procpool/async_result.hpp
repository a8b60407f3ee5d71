// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// AsyncResult: the result of work that may still be going on.
#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <type_traits>
#include <utility>

#include <procpool/detail/job.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/error.hpp>
#include <procpool/options.hpp>

namespace procpool {

namespace detail {
struct result_access;  // wait.hpp
}

/// The result of Pool::apply_async, map_async or starmap_async (Python's AsyncResult). A handle:
/// copies refer to the same work. May be used from any thread of the process that made the pool,
/// and outlives the pool; work that the pool's end leaves undone ends with CancelledError. Waiting
/// threads do the pool's reading and sending themselves, so a wait costs no switch of threads.
template <class T>
class AsyncResult {
 public:
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
  T get(const std::stop_token& stop) const {
    if (!wait(stop)) throw CancelledError("the wait for the result was stopped");
    return fetch(std::nullopt);
  }

  /// Waits until the result or an exception is there; throws neither.
  void wait() const { static_cast<void>(job_->wait_until(std::nullopt)); }
  /// The same, for at most @p timeout; whether it is there.
  template <class Rep, class Period>
  bool wait(std::chrono::duration<Rep, Period> timeout) const {
    return job_->wait_until(detail::os::deadline_after(timeout));
  }

  /// The same, until it is there or a stop is requested; whether it is there.
  bool wait(const std::stop_token& stop) const { return job_->wait_until(std::nullopt, stop); }

  /// Whether the result or an exception is there. Does not wait and does not drive the pool.
  [[nodiscard]] bool ready() const noexcept { return job_->ready(); }

  /// Whether it ended without an exception. @throws std::logic_error unless ready() (Python:
  /// ValueError).
  [[nodiscard]] bool successful() const {
    if (!ready()) throw std::logic_error("AsyncResult::successful(): the result is not ready");
    return job_->failure() == nullptr;
  }

  /// Drops work that no worker has begun with. For a single task: true when it will not run, false
  /// when it runs already or is done. For a map: chunks that run are left alone, their results
  /// dropped, and the result is CancelledError. Python's Future.cancel(). With
  /// `cancel({.kill = true})` what runs ends as well: its workers are killed and replaced.
  bool cancel(cancel_options options = {}) { return job_->pool().cancel(*job_, options.kill); }

 private:
  template <class Backend>
  friend class Pool;
  friend struct detail::result_access;

  using job_type = detail::typed_job<T>;
  static constexpr bool copies = std::is_void_v<T> || std::is_copy_constructible_v<T>;

  explicit AsyncResult(boost::intrusive_ptr<job_type> job) : job_(std::move(job)) {}

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
    if (!job_->wait_until(until)) throw TimeoutError("the result was not ready in time");
    if (job_->failure() != nullptr) std::rethrow_exception(job_->failure());
  }

  boost::intrusive_ptr<job_type> job_;
};

}  // namespace procpool
