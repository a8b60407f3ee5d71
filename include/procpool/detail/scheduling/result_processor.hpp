// SPDX-License-Identifier: MIT
/// @file
/// Reads records of workers, checks that each can be the next of its task, and turns it into
/// outcomes of jobs. A worker that sends anything else is killed. Used under the pool's lock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <utility>

#include <procpool/detail/backend/restart_policy.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/result_consumer.hpp>
#include <procpool/detail/scheduling/completion.hpp>
#include <procpool/detail/scheduling/dispatcher.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/worker_table.hpp>

namespace procpool::detail {

class result_processor {
 public:
  result_processor(worker_table& pool, dispatcher& sending, restart_policy& starts)
      : pool_(pool), sending_(sending), restarts_(starts) {}

  /// Reads what this worker has sent; whether there was anything.
  bool drain(std::uint32_t worker, drain_mode how = drain_mode::full) noexcept {
    try {
      worker_state& state = pool_.workers[worker];
      parent_channel& channel = pool_.backend->channel(worker);
      const std::uint64_t before = state.finished;
      record_sink sink(*this, worker);
      const bool anything_read = channel.drain(sink, how);
      if (channel.results.between_frames()) check_complete(sink.task());
      if (!anything_read) return false;
      if (state.retire_due) sending_.send_retire(worker);
      if (state.finished != before) measure(worker, sink.task() == nullptr);
      return true;
    } catch (const protocol_violation& violation) {
      pool_.kill_for_violation(worker, violation.what());
    } catch (...) {  // no memory, for example for the text of a violation
      pool_.kill_for_violation(worker, no_memory);
    }
    return true;
  }

  /// Reads what a dead worker had written.
  void drain_last(std::uint32_t worker) noexcept {
    try {
      pool_.backend->channel(worker).results.drain_last(record_sink(*this, worker));
    } catch (const protocol_violation& violation) {
      pool_.note_violation(worker, violation.what());
    } catch (...) {  // no memory, as above
      pool_.note_violation(worker, no_memory);
    }
  }

  /// The worker's front task, @p task, has all its outcomes.
  void finish_front(std::uint32_t worker, pool_task& task) noexcept {
    pool_.backend->channel(worker).tasks.pop_front();
    pool_.schedule.finished(worker);
    ++pool_.workers[worker].finished;
    restarts_.succeeded();
    pool_.discard(task);
  }

 private:
  // Measures whether the worker should have more tasks in flight, by how many it has done since the
  // last time. Reads the clock once for many tasks, because that costs as much as a short task.
  void measure(std::uint32_t worker, bool idle) {
    constexpr std::uint64_t check_interval = 16;
    worker_state& state = pool_.workers[worker];
    const bool ran_dry = idle && pool_.schedule.pending() > 0;
    const std::uint64_t frames = state.finished - state.finished_measured;
    if (!ran_dry && frames < check_interval) return;
    state.finished_measured = state.finished;
    const auto now = std::chrono::steady_clock::now();
    const auto elapsed = now - std::exchange(state.measured, now);
    pool_.schedule.measured(worker, elapsed / frames, ran_dry);
  }

  // A worker must write all outcomes of a frame before it finishes the frame.
  static void check_complete(const pool_task* next) {
    if (next != nullptr && next->done != next->head.first_item) {
      throw protocol_violation("a worker finished a task without all of its results");
    }
  }

  // Receives the records of one worker, see result_consumer. A record goes through check(), then
  // through one of the others.
  class record_sink {
   public:
    record_sink(result_processor& owner, std::uint32_t number)
        : owner_(owner),
          pool_(owner.pool_),
          worker_(number),
          state_(pool_.workers[number]),
          frames_(pool_.backend->channel(number).tasks),
          task_(pool_.first_task(number)) {}

    /// The task that the next record belongs to.
    [[nodiscard]] const pool_task* task() const noexcept { return task_; }

    delivery check(const record_head& head) {
      if (head.kind != record_kind::run && head.length > pool_.recycling.max_result_bytes()) {
        refuse_size(head.length, pool_.recycling.max_result_bytes());
      }
      if (frames_.streaming_front()) {
        throw protocol_violation("a worker answered a task before it had read it");
      }
      if (state_.initializing) {
        check_initialized(head);
        return completion::delivery_of(head);
      }
      if (task_ == nullptr || head.ordinal != static_cast<std::uint32_t>(frames_.front_ordinal()) ||
          !completion::fits(*task_, head)) {
        throw protocol_violation(unexpected_result);
      }
      frames_.note_begun();  // keeps it the front task until the whole record is there
      return completion::delivery_of(*task_, head);
    }

    void record(const record_head& head, std::span<const std::byte> bytes) {
      if (state_.initializing) return initialized(head, bytes);
      if (head.kind == record_kind::error) {
        keep_for_replay();
        pool_.results.fail(*task_, pool_.results.received(bytes));
      } else {
        pool_.results.pass(*task_, bytes, [this] { keep_for_replay(); });
      }
      finish_if_done();
    }

    void piece(const record_head& head, std::uint64_t offset, std::span<const std::byte> bytes) {
      if (state_.initializing) return initialized(head, bytes);
      if (head.kind == record_kind::value) {
        pool_.results.pass_piece(*task_, head, offset, bytes, [this] { keep_for_replay(); });
      } else {
        const std::uint32_t items = completion::items_of_run(*task_, head);
        if (items == 0) throw protocol_violation(unexpected_result);  // its length was open
        pool_.results.pass_run(*task_, head, items, offset, bytes);
      }
      finish_if_done();
    }

    // There was no memory to receive the record: its item ends with that.
    void lost(const record_head& /*head*/) {
      const auto why = std::make_exception_ptr(std::bad_alloc());
      if (state_.initializing) {
        state_.init_error = why;
        return;
      }
      if (task_ == nullptr) return;  // it belongs to no task
      keep_for_replay();
      pool_.results.fail(*task_, why);
      finish_if_done();
    }

   private:
    [[noreturn, gnu::noinline]] static void refuse_size(std::uint64_t bytes,
                                                        std::uint64_t max_bytes) {
      throw protocol_violation(concat({"a worker announced a result of ", bytes,
                                       " bytes, more than max_result_bytes allows: ", max_bytes}));
    }

    // Allows only the byte that says that the initializer has returned, or its exception.
    [[gnu::noinline]] void check_initialized(const record_head& head) const {  // rare
      const bool returned = head.kind == record_kind::run &&
                            (head.length == 1 || head.length == open_length);  // died writing it
      const bool repeated = state_.init_error != nullptr;
      if (repeated || head.ordinal != 0 || head.item != 0 ||
          (!returned && head.kind != record_kind::error)) {
        throw protocol_violation(unexpected_result);
      }
    }

    [[gnu::noinline]] void initialized(const record_head& head, std::span<const std::byte> bytes) {
      if (head.kind == record_kind::error) {
        state_.init_error = pool_.results.received(bytes);
        return;  // the worker exits now, which is reported
      }
      if (head.length != 1) throw protocol_violation(unexpected_result);  // was open
      state_.initializing = false;
      frames_.pop_front();
      owner_.restarts_.succeeded();
    }

    void keep_for_replay() noexcept {
      const std::size_t index = task_->next_index();
      if (!task_->owner->wants_replay(index)) return;
      task_->owner->keep_replay(index, pool_.copy_for_replay(worker_, *task_));
    }

    void finish_if_done() {
      if (!task_->finished()) return;
      owner_.finish_front(worker_, *task_);
      task_ = pool_.first_task(worker_);
    }

    result_processor& owner_;
    worker_table& pool_;
    const std::uint32_t worker_;
    worker_state& state_;
    task_producer& frames_;
    pool_task* task_;  ///< the worker's front task
  };

  static constexpr const char* no_memory = "there is no memory for its result";
  static constexpr const char* unexpected_result =
      "a worker sent a result that it was not asked for";

  worker_table& pool_;
  dispatcher& sending_;
  restart_policy& restarts_;
};

}  // namespace procpool::detail
