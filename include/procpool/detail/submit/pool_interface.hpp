// SPDX-License-Identifier: MIT
/// @file
/// A pool as those see it who submit work to it. What is behind (pool_core.hpp: the engine, the
/// fork server, shared memory) need not be compiled to call a function in a worker.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/task_body.hpp>

namespace procpool {

/// What can be done with a pool; see Pool::state().
enum class pool_state {
  active,      ///< it takes work
  closed,      ///< it takes no more; what was submitted goes on, or is done
  broken,      ///< it can run nothing any more: BrokenPool, which says why
  terminated,  ///< by terminate(), or joined: its workers are gone
};

}  // namespace procpool

namespace procpool::detail {

/// What runs the tasks of a pool.
enum class worker_kind { forked, spawned, threads, caller };

class pool_interface : public driver {
 public:
  // ---- submitting ----------------------------------------------------------------------------

  /// Throws PoolClosed, BrokenPool or std::logic_error when no work can be submitted now.
  virtual void check_open() = 0;
  /// Throws std::invalid_argument for code that the workers do not have.
  void check_code(code_ref code) const {
    if (code.module >= sure_modules_) check_rare_code(code);
  }

  /// Throws std::invalid_argument for a time limit that the workers cannot be held to.
  /// @param timeout 0: none
  void check_timeout(std::chrono::nanoseconds timeout) const {
    if (timeout.count() != 0 && kind_ == worker_kind::threads) cannot_limit_time();
  }

  /// The largest body that travels inside a frame; larger ones are best encoded in a block.
  [[nodiscard]] std::size_t in_line_limit() const noexcept { return in_line_limit_; }

  /// A block of the arena, or an empty span when there is none of that size.
  [[nodiscard]] virtual std::span<std::byte> allocate(std::size_t size) = 0;
  /// Gives a block back; with or without the lock.
  virtual void release(std::span<std::byte> block) noexcept = 0;
  /// Where a block lies, counted from the begin of the arena.
  [[nodiscard]] virtual std::uint64_t offset(std::span<const std::byte> block) = 0;

  /// The first of the numbers of so many items of a map. The pool numbers other frames itself, when
  /// they are submitted.
  [[nodiscard]] virtual std::uint64_t take_numbers(std::size_t items) = 0;

  /// Hands a frame of work over; see engine::submit. Waits for room by the calling thread's
  /// submission_terms. @throws PoolClosed, BrokenPool; CancelledError, pool_full by the terms
  virtual void submit(boost::intrusive_ptr<job> owner, const frame_head& head,
                      std::size_t first_index, task_body&& body) = 0;
  /// Has the callbacks of a submission of no items run, after which it is ready.
  virtual void complete(job& nothing) = 0;
  /// Whether submit() would wait now.
  [[nodiscard]] virtual bool full() = 0;
  /// Waits until it would not, @p until has come or a stop is requested; whether it would not.
  [[nodiscard]] virtual bool await_room(std::optional<time_point> until,
                                        const stop_token& stop) = 0;
  /// To be called before the frames of an asynchronous submission.
  /// @throws ProcessError when there can be no service thread
  virtual void ensure_service(job& what) = 0;
  /// Ends a job that cannot be submitted in full: what has not begun is dropped.
  virtual void fail_submission(job& what, const std::exception_ptr& why) = 0;

  /// A descriptor that counts asynchronous submissions that have become ready.
  /// @throws ProcessError when there is none to be had
  virtual int fileno() = 0;
  /// Nobody uses it any more.
  virtual void close_fileno() noexcept = 0;

  // ---- the end -------------------------------------------------------------------------------

  /// No more work can be submitted.
  virtual void close() = 0;
  /// Waits for all work and then for all processes. @throws std::logic_error unless closed.
  /// Without a result if @p until comes or @p stop is requested: false.
  virtual bool join(std::optional<time_point> until, const stop_token& stop) = 0;
  /// Ends everything now: what is outstanding gets CancelledError. Idempotent; any thread.
  virtual void terminate() = 0;

  /// Says why a Pool has nothing behind it: this is one of its workers, or it is still being made.
  [[noreturn]] static void not_there();

  /// What can be done with it.
  [[nodiscard]] virtual pool_state state() = 0;
  /// Whether this is the process that made the pool.
  [[nodiscard]] virtual bool ours() const noexcept = 0;
  /// How many there are to be.
  [[nodiscard]] std::uint32_t workers() const noexcept {
    return workers_.load(std::memory_order_relaxed);  // one number
  }
  /// There are to be so many from now on, at least 1. @throws std::invalid_argument for more than
  /// there is room for; as check_open()
  virtual void resize(std::uint32_t wanted) = 0;

 protected:
  /// @param modules       how many the workers know, see code_ref
  /// @param in_line_limit see in_line_limit()
  pool_interface(std::uint32_t workers, std::uint32_t modules, std::size_t in_line_limit,
                 worker_kind kind) noexcept
      : workers_(workers),
        modules_(modules),
        sure_modules_(modules),
        in_line_limit_(in_line_limit),
        kind_(kind) {}

  void set_workers(std::uint32_t wanted) noexcept {
    workers_.store(wanted, std::memory_order_relaxed);  // as in workers()
  }
  /// Before anybody else knows the pool.
  /// @param missing those modules that the workers do not have, in order
  void lack_modules(std::vector<std::uint32_t> missing) {
    missing_ = std::move(missing);
    if (!missing_.empty() && missing_.front() < sure_modules_) sure_modules_ = missing_.front();
  }

 private:
  void check_rare_code(code_ref code) const;
  [[noreturn]] static void cannot_limit_time();

  std::atomic<std::uint32_t> workers_;
  const std::uint32_t modules_;
  std::uint32_t sure_modules_;          ///< those before this one the workers have
  std::vector<std::uint32_t> missing_;  ///< of those behind
  const std::size_t in_line_limit_;
  const worker_kind kind_;
};

}  // namespace procpool::detail
