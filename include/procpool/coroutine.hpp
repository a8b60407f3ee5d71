// SPDX-License-Identifier: MIT
/// @file
/// `co_await result` for an AsyncResult, in any coroutine type.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <coroutine>
#include <utility>

#include <procpool/async_result.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool {

namespace detail {

/// The awaiter of one result, in the coroutine's frame: nothing is allocated.
///
/// Why a coroutine may be destroyed while it waits: the awaiter's destructor first withdraws the
/// awaiter, under the locks that guard a continuation on its way from the job to the thread that
/// runs it. If the destructor is first, no thread knows the awaiter any more. If that thread is
/// first, it resumes the coroutine, and its owner destroys a running coroutine. No lock outside the
/// frame can prevent that.
template <class T, bool take>
class result_awaiter final : public continuation {
 public:
  explicit result_awaiter(const AsyncResult<T>& result) noexcept : result_(result) {}
  explicit result_awaiter(AsyncResult<T>&& result) noexcept : result_(std::move(result)) {}
  result_awaiter(const result_awaiter&) = delete;
  result_awaiter& operator=(const result_awaiter&) = delete;
  ~result_awaiter() override {
    if (!waiting_) return;
    // In a forked process the job still refers to this awaiter, so the job must never be destroyed.
    if (!result_.job().pool().withdraw(*this)) static_cast<void>(result_.job_.detach());
  }

  [[nodiscard]] bool await_ready() const { return result_.ready(); }
  // Not inlined: once when_done() has returned true the frame may be destroyed, and some compilers
  // keep this function's locals in the frame.
  [[gnu::noinline]] bool await_suspend(std::coroutine_handle<> coroutine) {
    const auto kept = result_.job_;  // keeps job and pool alive until this returns
    waiting_ = coroutine;
    try {
      return kept->pool().when_done(*kept, *this);
    } catch (...) {
      waiting_ = nullptr;
      throw;
    }
  }
  T await_resume() {
    waiting_ = nullptr;
    if constexpr (take) {
      return std::move(result_).get();
    } else {
      return result_.get();
    }
  }

  void run(job& /*done*/) override { waiting_.resume(); }
  void drop() noexcept override {}  // its owner destroys the frame

 private:
  AsyncResult<T> result_;
  std::coroutine_handle<> waiting_;  ///< null: does not wait
};

}  // namespace detail

/// `co_await result` returns or throws what get() would. The coroutine does not suspend when the
/// result is ready already. Else it is resumed on the pool's service thread, in turn with done
/// callbacks (see AsyncResult::add_done_callback), so a coroutine that computes or blocks there
/// delays the others. Switch to a thread of your own with the means of your framework, as in
/// examples/coroutine_server.cpp.
///
/// It is resumed however the result ends: cancel() and the end of the pool give CancelledError, the
/// death of a worker WorkerDied. An exception that leaves the coroutine through its promise is
/// reported on stderr.
///
/// Any thread may destroy the coroutine while it waits: it is never resumed then, nothing leaks,
/// and the task goes on. But, as for any coroutine, not while it is being resumed. To exclude that,
/// destroy it on the service thread (in a callback or another coroutine there), make sure that the
/// result cannot become ready meanwhile, or synchronize. A process that is forked meanwhile never
/// resumes it, but may destroy it.
///
/// An lvalue's result is copied, as by get(). It is moved out of an rvalue, and if it cannot be
/// copied.
/// @throws std::logic_error in a forked process, when the result is not ready; ProcessError when
/// there can be no service thread
template <class T>
[[nodiscard]] auto operator co_await(const AsyncResult<T>& result) noexcept {
  return detail::result_awaiter<T, false>(result);
}
template <class T>
[[nodiscard]] auto operator co_await(AsyncResult<T>&& result) noexcept {
  return detail::result_awaiter<T, true>(std::move(result));
}

}  // namespace procpool
