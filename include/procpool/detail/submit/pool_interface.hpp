// SPDX-License-Identifier: MIT
/// @file
/// The interface of a pool for the code that submits work. A program need not compile what
/// implements it (worker_pool.hpp: the engine, the fork server, shared memory) to call a function
/// in a worker.
#pragma once

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
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task_body.hpp>

namespace procpool {

/// The state of a pool; see Pool::state().
enum class pool_state {
  active,      ///< accepts work
  closed,      ///< accepts no more work; submitted work goes on, or is done
  broken,      ///< cannot run anything; BrokenPool has the reason
  terminated,  ///< by terminate() or join(): the workers are gone
};

}  // namespace procpool

namespace procpool::detail {

/// The kind of worker that runs the tasks.
enum class worker_kind { forked, spawned, threads, caller };

class pool_interface : public driver {
 public:
  // ---- submitting ----------------------------------------------------------------------------

  /// @throws PoolClosed, BrokenPool or std::logic_error when no work can be submitted now
  virtual void check_open() = 0;
  /// @throws std::invalid_argument for code that the workers do not have
  void check_code(code_ref code) const {
    if (code.module >= known_modules_) check_rare_code(code);
  }

  /// @throws std::invalid_argument for a time limit that this kind of worker cannot have
  /// @param timeout 0: none
  void check_timeout(std::chrono::nanoseconds timeout) const {
    if (timeout.count() != 0 && kind_ == worker_kind::threads) cannot_limit_time();
  }

  /// The largest body that travels inside a frame, in bytes; encode a larger one in a block.
  [[nodiscard]] std::size_t in_line_limit() const noexcept { return in_line_limit_; }

  /// Allocates a block of the arena; an empty span if no block of that size is free.
  [[nodiscard]] virtual std::span<std::byte> allocate(std::size_t size) = 0;
  /// A block of its own pages for a body that does not fit in the arena; empty if there can be none
  /// or the body is not large enough for that.
  [[nodiscard]] virtual std::span<std::byte> allocate_large(std::size_t size) = 0;
  /// Frees a block; with or without the lock.
  virtual void release(std::span<std::byte> block) noexcept = 0;
  /// The offset of a block in the arena, or in the file of large blocks.
  [[nodiscard]] virtual std::uint64_t offset(std::span<const std::byte> block) = 0;

  /// Reserves numbers for @p items items of a map and returns the first. The pool numbers other
  /// frames itself when they are submitted.
  [[nodiscard]] virtual std::uint64_t take_numbers(std::size_t items) = 0;

  /// Submits a frame; see engine::submit. Waits for room by the calling thread's submission_terms.
  /// @throws PoolClosed, BrokenPool; CancelledError, pool_full by the terms
  virtual void submit(detail::intrusive_ptr<job> owner, const frame_head& head,
                      std::size_t first_index, task_body&& body) = 0;
  /// Runs the callbacks of a submission of no items, then makes it ready.
  virtual void complete(job& empty_job) = 0;
  /// Whether submit() would wait now.
  [[nodiscard]] virtual bool full() = 0;
  /// Waits until submit() would not wait, @p until is reached or a stop is requested. @returns
  /// whether submit() would not wait
  [[nodiscard]] virtual bool await_room(std::optional<time_point> until,
                                        const stop_token& stop) = 0;
  /// Call before the frames of an asynchronous submission.
  /// @throws ProcessError when there can be no service thread
  virtual void ensure_service(job& target) = 0;
  /// Ends a job that cannot be submitted in full; frames that have not begun are dropped.
  virtual void fail_submission(job& target, const std::exception_ptr& why) = 0;

  /// A descriptor that counts asynchronous submissions that become ready.
  /// @throws ProcessError when no descriptor is left
  virtual int fileno() = 0;
  /// The descriptor is not used any more.
  virtual void close_fileno() noexcept = 0;

  // ---- the end -------------------------------------------------------------------------------

  /// Refuses further work.
  virtual void close() = 0;
  /// Waits for all work, then for all processes. @throws std::logic_error unless closed
  /// @returns false if @p until is reached or a stop is requested before
  virtual bool join(std::optional<time_point> until, const stop_token& stop) = 0;
  /// Ends everything now: unfinished results get CancelledError. Idempotent; any thread.
  virtual void terminate() = 0;

  /// Throws the reason why a Pool has no core: this is one of its workers, or it is still being
  /// made.
  [[noreturn]] static void not_there();

  /// The current state.
  [[nodiscard]] virtual pool_state state() = 0;
  /// Whether this is the process that made the pool.
  [[nodiscard]] virtual bool ours() const noexcept = 0;
  /// The number of workers that the pool keeps.
  [[nodiscard]] virtual std::uint32_t workers() const noexcept = 0;
  /// Changes the number of workers, at least 1.
  /// @throws std::invalid_argument for more than there are slots; as check_open()
  virtual void resize(std::uint32_t wanted) = 0;

 protected:
  /// @param modules       number of modules that the workers know, see code_ref
  /// @param in_line_limit see in_line_limit()
  pool_interface(std::uint32_t modules, std::size_t in_line_limit, worker_kind kind) noexcept
      : modules_(modules), known_modules_(modules), in_line_limit_(in_line_limit), kind_(kind) {}

  /// Call before other threads know the pool.
  /// @param missing modules that the workers do not have, ascending
  void lack_modules(std::vector<std::uint32_t> missing) {
    missing_ = std::move(missing);
    if (!missing_.empty() && missing_.front() < known_modules_) known_modules_ = missing_.front();
  }

 private:
  void check_rare_code(code_ref code) const;
  [[noreturn]] static void cannot_limit_time();

  const std::uint32_t modules_;
  std::uint32_t known_modules_;         ///< the workers have all modules below this number
  std::vector<std::uint32_t> missing_;  ///< of the others
  const std::size_t in_line_limit_;
  const worker_kind kind_;
};

}  // namespace procpool::detail
