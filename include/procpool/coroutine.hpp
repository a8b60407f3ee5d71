// SPDX-License-Identifier: MIT
/// @file
/// `co_await result` for an AsyncResult, in any coroutine.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <coroutine>
#include <utility>

#include <procpool/async_result.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool {

namespace detail {

/// What a coroutine that waits for a result keeps in its frame: nothing is allocated.
///
/// Why a coroutine can be destroyed while it waits. The awaiter is in the frame and takes itself
/// back first thing, under the locks that also guard the way of a continuation from its job to the
/// thread that runs it. So either the destructor comes first, then nobody knows of it any more; or
/// that thread has taken it and resumes the coroutine, and whoever destroys a coroutine at that
/// moment destroys one that runs: there is nothing left to lock that is not in the frame.
template <class T, bool take>
class result_awaiter final : public continuation {
 public:
  explicit result_awaiter(const AsyncResult<T>& result) noexcept : result_(result) {}
  explicit result_awaiter(AsyncResult<T>&& result) noexcept : result_(std::move(result)) {}
  result_awaiter(const result_awaiter&) = delete;
  result_awaiter& operator=(const result_awaiter&) = delete;
  ~result_awaiter() override {
    if (!waiting_) return;
    // In a forked process the job still refers to this: it must not end before its memory does.
    if (!result_.job().pool().withdraw(*this)) static_cast<void>(result_.job_.detach());
  }

  [[nodiscard]] bool await_ready() const { return result_.ready(); }
  // Not inlined: once when_done() has returned true the frame may be gone, and some compilers keep
  // what is local here in the frame.
  [[gnu::noinline]] bool await_suspend(std::coroutine_handle<> waiting) {
    const auto kept = result_.job_;  // with the pool, until this returns
    waiting_ = waiting;
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
  void drop() noexcept override {}  // the frame is its owner's

 private:
  AsyncResult<T> result_;
  std::coroutine_handle<> waiting_;  ///< null: it does not wait
};

}  // namespace detail

/// `co_await result`: the coroutine goes on when the result is ready, and gets what get() returns
/// or throws. It does not suspend when the result is ready already. Else it is resumed on the
/// pool's service thread, in turn with done callbacks (see AsyncResult::add_done_callback): one
/// that computes or blocks there holds up the others. Go back to a thread of your own with the
/// means of your framework; an example is examples/coroutine_server.cpp.
///
/// It is resumed however the result ends: cancel() and the end of the pool give CancelledError. An
/// exception that leaves the coroutine through its promise is reported on stderr.
///
/// The coroutine may be destroyed while it waits, by any thread: it is never resumed then, and
/// nothing is left behind; the task goes on. But as with every coroutine, not while it is being
/// resumed: unless you know that the result cannot become ready meanwhile, or destroy it on the
/// service thread (in a callback or another coroutine there), your own synchronization has to
/// exclude that. In a process that is forked meanwhile it is never resumed; it may be destroyed.
///
/// From an lvalue the result is copied, as by get(); from an rvalue, and when it cannot be copied,
/// it is moved out.
/// @throws std::logic_error in a process forked from the pool's, when the result is not there;
/// ProcessError when there can be no service thread
template <class T>
[[nodiscard]] auto operator co_await(const AsyncResult<T>& result) noexcept {
  return detail::result_awaiter<T, false>(result);
}
template <class T>
[[nodiscard]] auto operator co_await(AsyncResult<T>&& result) noexcept {
  return detail::result_awaiter<T, true>(std::move(result));
}

}  // namespace procpool
