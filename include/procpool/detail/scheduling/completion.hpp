// SPDX-License-Identifier: MIT
/// @file
/// From records to outcomes of jobs: checks that a record can be the next of its task, hands values
/// and exceptions to the job, and notices when a job has all it was waiting for.
#pragma once

#include <pthread.h>

#include <boost/smart_ptr/intrusive_ptr.hpp>

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

namespace procpool::detail {

/// Used under the lock of its pool. Outcomes of a job that is resolved already (cancelled, say) are
/// counted for the task and dropped.
class completion {
 public:
  // ---- checks --------------------------------------------------------------------------------

  /// Whether this record can be the next of this task: outcomes come strictly in order.
  [[nodiscard]] static bool fits(const pool_task& task, const record_head& head) {
    if (head.item != task.done) return false;
    const bool plain = task.owner->plain_size() != 0;
    switch (head.kind) {
      case record_kind::error:
        return true;
      case record_kind::value:
        return !plain;
      case record_kind::run:
        return plain && (head.length == open_length || run_fits(task, head));
    }
    return false;
  }

  /// Whether a run of plain values has whole values, one at least and no more than are missing.
  [[nodiscard]] static bool run_fits(const pool_task& task, const record_head& head) {
    const std::size_t size = task.owner->plain_size();
    if (head.length == size) return true;  // one value; that one is missing is known
    return head.length != 0 && head.length % size == 0 &&
           head.length / size <= task.head.item_count - task.done;
  }

  /// How the bytes of a record of an initializer, or one that fits, are to be delivered.
  [[nodiscard]] static delivery delivery_of(const record_head& head) {
    return {.head = 0, .granule = head.kind == record_kind::run ? 1U : 0U};
  }
  [[nodiscard]] static delivery delivery_of(const pool_task& task, const record_head& head) {
    if (head.kind != record_kind::value) return delivery_of(head);
    const delivery how = task.owner->form().pieces;
    const bool assembled = how.granule != 0 && head.length >= assembled_from;
    return assembled && (head.length - how.head) % how.granule == 0 ? how : delivery{};
  }

  // ---- outcomes ------------------------------------------------------------------------------

  /// The next item has this encoded result. One that cannot be decoded has that as its exception.
  /// @param before_failure is called first then
  template <class Call>
  void pass(pool_task& task, std::span<const std::byte> bytes, Call before_failure) {
    const std::size_t index = task.next_index();
    if (!task.owner->resolved()) {
      const users_code guard(*this);
      try {
        task.owner->value(index, bytes);
      } catch (...) {
        before_failure();
        task.owner->error(index, std::current_exception());
      }
    }
    count(task, 1);
  }

  /// The next bytes of a run of plain values; its items count when all are there.
  void pass_run(pool_task& task, const record_head& head, std::uint64_t offset,
                std::span<const std::byte> bytes) {
    if (!task.owner->resolved()) {
      const users_code guard(*this);
      try {
        task.owner->plain(task.next_index(), offset, bytes);
      } catch (...) {
        abort(*task.owner, std::current_exception());
      }
    }
    if (offset + bytes.size() < head.length) return;
    count(task, items_of(task, head));
  }

  /// The next bytes of the encoded result of the next item, which counts when all are there.
  template <class Call>
  void pass_piece(pool_task& task, const record_head& head, std::uint64_t offset,
                  std::span<const std::byte> bytes, Call before_failure) {
    const std::size_t index = task.next_index();
    if (offset == 0 && task.partial_error()) task.failures->partial_error = nullptr;
    if (!task.owner->resolved() && !task.partial_error()) {
      const users_code guard(*this);
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

  /// The next item ended with an exception.
  void fail(pool_task& task, std::exception_ptr what) {
    if (!task.owner->resolved()) task.owner->error(task.next_index(), std::move(what));
    count(task, 1);
  }

  /// The whole job ends with this exception, unless it has ended already.
  void abort(job& what, const std::exception_ptr& why, ending how = ending::failed) noexcept {
    if (what.resolved()) return;
    what.abort(why, how);
    settle(what);
  }

  /// A job of no items has all its outcomes.
  void complete(job& nothing) noexcept { settle(nothing); }

  /// What a record of kind error says; DecodeError when it is no exception.
  [[nodiscard]] std::exception_ptr received(std::span<const std::byte> bytes) const {
    const users_code guard(*this);
    try {
      return decode_exception(bytes);
    } catch (...) {
      return std::current_exception();
    }
  }

  // ---- news ----------------------------------------------------------------------------------

  /// Jobs that have all their outcomes and a callback to run; they are not ready yet.
  [[nodiscard]] job_list& with_callbacks() noexcept { return with_callbacks_; }
  /// What goes on behind jobs that have become ready.
  [[nodiscard]] continuation_queue& due() noexcept { return due_; }
  /// The job is complete, and its callbacks have run.
  void set_ready(job& what) {
    what.set_ready();
    made_ready_ += what.unattended() ? 1U : 0U;
    if (what.form().announced) what.announce();
    if (!what.continuations().empty()) due_.put(what);
  }
  /// Whether the calling thread is in a decoder or constructor of the user's that runs under the
  /// lock of this pool, and so must not use it.
  [[nodiscard]] bool decoding() const noexcept {
    return decoder_.load(std::memory_order_relaxed) == ::pthread_self();  // only itself writes that
  }
  /// Whether any job has become ready or resolved since the last call.
  [[nodiscard]] bool take_notice() noexcept { return std::exchange(news_, false); }
  /// How many that nobody waited for from the beginning have become ready since the last call.
  [[nodiscard]] std::uint64_t take_ready() noexcept { return std::exchange(made_ready_, 0); }

 private:
  // One that cannot even be noted ends the whole job, which is noted already.
  void note_partial_error(pool_task& task, const std::exception_ptr& what) noexcept {
    try {
      task.failures_of().partial_error = what;
    } catch (const std::bad_alloc&) {
      abort(*task.owner, what);
    }
  }

  // How many values a run has. Divisions cost as much as all the rest for a single one.
  [[nodiscard]] static std::uint32_t items_of(const pool_task& task, const record_head& head) {
    const std::size_t size = task.owner->plain_size();
    return head.length == size ? 1 : static_cast<std::uint32_t>(head.length / size);
  }

  void count(pool_task& task, std::uint32_t items) {
    task.pass(items);
    if (task.owner->resolved()) return;
    task.owner->count(items);
    if (task.owner->resolved()) settle(*task.owner);
  }

  class users_code {
   public:
    explicit users_code(const completion& pool) noexcept
        : pool_(pool), before_(pool.decoder_.load(std::memory_order_relaxed)) {  // under the lock
      pool_.decoder_.store(::pthread_self(), std::memory_order_relaxed);  // for this thread only
    }
    users_code(const users_code&) = delete;
    users_code& operator=(const users_code&) = delete;
    ~users_code() { pool_.decoder_.store(before_, std::memory_order_relaxed); }  // likewise

   private:
    const completion& pool_;
    const pthread_t before_;
  };

  void settle(job& what) {
    if (what.form().sealed) seal(what);
    news_ = true;
    if (what.has_callback()) {
      with_callbacks_.push_back(&what);
    } else {
      set_ready(what);
    }
  }

  void seal(job& what) {
    const users_code guard(*this);
    try {
      what.seal();
    } catch (...) {  // a result that cannot be moved
      what.abort(std::current_exception());
    }
  }

  job_list with_callbacks_;
  continuation_queue due_;
  mutable std::atomic<pthread_t> decoder_{};  ///< the thread that is in user's code for us
  std::uint64_t made_ready_ = 0;
  bool news_ = false;
};

}  // namespace procpool::detail
