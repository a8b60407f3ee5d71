// SPDX-License-Identifier: MIT
/// @file
/// Turns records into outcomes of jobs: checks that a record can be the next of its task, gives
/// values and exceptions to the job, and detects that a job has all its outcomes.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <utility>

#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/detail/result/continuation_queue.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// Used under the pool's lock. Outcomes of a job that is already resolved (cancelled, for example)
/// are counted for the task and dropped.
class completion {
 public:
  // ---- checks --------------------------------------------------------------------------------

  /// Whether this record can be the next of this task: outcomes arrive strictly in order.
  [[nodiscard]] static bool fits(const pool_task& task, const record_head& head) {
    if (head.item != task.done) return false;
    const bool plain = task.owner->plain_size() != 0;
    switch (head.kind) {
      case record_kind::error:
        return true;
      case record_kind::value:
        return !plain;
      case record_kind::run:
        return plain && (head.length == open_length || items_of_run(task, head) != 0);
    }
    return false;
  }

  /// How many values a run of plain values has; 0: not whole ones, none, or more than are missing.
  [[nodiscard]] static std::uint32_t items_of_run(const pool_task& task, const record_head& head) {
    const std::size_t size = task.owner->plain_size();
    // One value; at least one is missing. A division costs as much as all other work for it.
    if (head.length == size) return 1;
    const std::uint64_t items = head.length / size;
    const bool fits = head.length % size == 0 && items <= task.head.item_count - task.done;
    return fits ? static_cast<std::uint32_t>(items) : 0;
  }

  /// How to deliver the bytes of an initializer's record, or of a record that fits().
  [[nodiscard]] static delivery delivery_of(const record_head& head) {
    return {.head = 0, .granule = head.kind == record_kind::run ? 1U : 0U};
  }
  [[nodiscard]] static delivery delivery_of(const pool_task& task, const record_head& head) {
    if (head.kind != record_kind::value) return delivery_of(head);
    const delivery pieces = task.owner->form().pieces;
    const bool assembled = pieces.granule != 0 && head.length >= assembled_from;
    return assembled && (head.length - pieces.head) % pieces.granule == 0 ? pieces : delivery{};
  }

  // ---- outcomes ------------------------------------------------------------------------------

  /// Takes the encoded result of the next item. If it cannot be decoded, the item gets that
  /// exception.
  /// @param before_failure called before the item fails
  template <class Call>
  void pass(pool_task& task, std::span<const std::byte> bytes, Call before_failure) {
    const std::size_t index = task.next_index();
    if (!task.owner->resolved()) {
      const user_code_scope guard(*this);
      try {
        task.owner->value(index, bytes);
      } catch (...) {
        before_failure();
        task.owner->error(index, std::current_exception());
      }
    }
    count(task, 1);
  }

  /// Takes the next bytes of a run of @p items plain values; they count when all bytes are there.
  void pass_run(pool_task& task, const record_head& head, std::uint32_t items, std::uint64_t offset,
                std::span<const std::byte> bytes) {
    if (!task.owner->resolved()) {
      const user_code_scope guard(*this);
      try {
        task.owner->plain(task.next_index(), offset, bytes);
      } catch (...) {
        abort(*task.owner, std::current_exception());
      }
    }
    if (offset + bytes.size() < head.length) return;
    count(task, items);
  }

  /// Takes the next bytes of the next item's encoded result; the item counts when all are there.
  template <class Call>
  void pass_piece(pool_task& task, const record_head& head, std::uint64_t offset,
                  std::span<const std::byte> bytes, Call before_failure) {
    const std::size_t index = task.next_index();
    if (offset == 0 && task.partial_error()) task.failures->partial_error = nullptr;
    if (!task.owner->resolved() && !task.partial_error()) {
      const user_code_scope guard(*this);
      try {
        task.owner->piece(index, offset, head.length, bytes);
      } catch (...) {
        note_partial_error(task, std::current_exception());
      }
    }
    if (offset + bytes.size() < head.length) return;
    if (!task.partial_error()) return count(task, 1);
    before_failure();
    fail(task, std::exchange(task.failures->partial_error, nullptr));
  }

  /// The next item ends with an exception.
  void fail(pool_task& task, std::exception_ptr error) {
    if (!task.owner->resolved()) task.owner->error(task.next_index(), std::move(error));
    count(task, 1);
  }

  /// Ends the whole job with this exception, unless it has ended already.
  void abort(job& target, const std::exception_ptr& why, ending kind = ending::failed) noexcept {
    if (target.resolved()) return;
    target.abort(why, kind);
    settle(target);
  }

  /// Ends a job of no items.
  void complete(job& empty_job) noexcept { settle(empty_job); }

  /// The exception in a record of kind error; DecodeError if it is not a valid exception.
  [[nodiscard]] std::exception_ptr received(std::span<const std::byte> bytes) const {
    const user_code_scope guard(*this);
    try {
      return decode_exception(bytes);
    } catch (...) {
      return std::current_exception();
    }
  }

  // ---- state changes since the last call ------------------------------------------------------

  /// Jobs with all their outcomes whose callbacks have to run before they become ready.
  job_list with_callbacks;
  /// Continuations of jobs that have become ready.
  continuation_queue due;
  /// Makes a complete job ready, after its callbacks.
  void set_ready(job& target) {
    target.set_ready();
    made_ready_ += target.unattended() ? 1U : 0U;
    if (target.form().announced) target.announce();
    if (!target.continuations().empty()) due.put(target);
  }
  /// Whether the calling thread runs a user's decoder or constructor under this pool's lock. Such
  /// code must not use the pool.
  [[nodiscard]] bool decoding() const noexcept {
    return decoder_.load(std::memory_order_relaxed) == ::pthread_self();  // only itself stores that
  }
  /// Whether any job has become ready or resolved since the last call.
  [[nodiscard]] bool take_notice() noexcept { return std::exchange(changed_, false); }
  /// How many unattended jobs (see job::unattended()) have become ready since the last call.
  [[nodiscard]] std::uint64_t take_ready() noexcept { return std::exchange(made_ready_, 0); }

 private:
  // If there is no memory to keep the exception, the whole job ends with it.
  void note_partial_error(pool_task& task, const std::exception_ptr& error) noexcept {
    try {
      task.failures_of().partial_error = error;
    } catch (const std::bad_alloc&) {
      abort(*task.owner, error);
    }
  }

  void count(pool_task& task, std::uint32_t items) {
    task.pass(items);
    if (task.owner->resolved()) return;
    task.owner->count(items);
    if (task.owner->resolved()) settle(*task.owner);
  }

  class user_code_scope {
   public:
    explicit user_code_scope(const completion& pool) noexcept
        : pool_(pool), before_(pool.decoder_.load(std::memory_order_relaxed)) {  // under the lock
      pool_.decoder_.store(::pthread_self(), std::memory_order_relaxed);  // for this thread only
    }
    user_code_scope(const user_code_scope&) = delete;
    user_code_scope& operator=(const user_code_scope&) = delete;
    ~user_code_scope() { pool_.decoder_.store(before_, std::memory_order_relaxed); }  // likewise

   private:
    const completion& pool_;
    const pthread_t before_;
  };

  void settle(job& target) {
    if (target.form().sealed) seal(target);
    changed_ = true;
    if (target.has_callback()) {
      with_callbacks.push_back(&target);
    } else {
      set_ready(target);
    }
  }

  void seal(job& target) {
    const user_code_scope guard(*this);
    try {
      target.seal();
    } catch (...) {  // a result that cannot be moved
      target.abort(std::current_exception());
    }
  }

  mutable std::atomic<pthread_t> decoder_{};  ///< the thread that runs user code for this pool
  std::uint64_t made_ready_ = 0;
  bool changed_ = false;
};

}  // namespace procpool::detail
