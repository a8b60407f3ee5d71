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
      const std::uint64_t before = state.finished;
      const bool anything_read = pool_.channel(worker).drain(record_sink{*this, worker}, how);
      check_complete(worker);
      if (!anything_read) return false;
      if (state.retire_due) sending_.send_retire(worker);
      if (state.finished != before) measure(worker);
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
      pool_.channel(worker).drain_last(record_sink{*this, worker});
    } catch (const protocol_violation& violation) {
      pool_.note_violation(worker, violation.what());
    } catch (...) {  // no memory, as above
      pool_.note_violation(worker, no_memory);
    }
  }

  /// The worker's front task has all its outcomes.
  void finish_front(std::uint32_t worker) noexcept {
    pool_task& task = *pool_.first_task(worker);
    pool_.channel(worker).tasks().pop_front();
    pool_.schedule.finished(worker);
    ++pool_.workers[worker].finished;
    restarts_.succeeded();
    pool_.discard(task);
  }

 private:
  // Measures whether the worker should have more tasks in flight, by how many it has done since the
  // last time. Reads the clock once for many tasks, because that costs as much as a short task.
  void measure(std::uint32_t worker) {
    constexpr std::uint64_t check_interval = 16;
    worker_state& state = pool_.workers[worker];
    const bool ran_dry = pool_.first_task(worker) == nullptr && pool_.schedule.pending() > 0;
    const std::uint64_t frames = state.finished - state.finished_measured;
    if (!ran_dry && frames < check_interval) return;
    state.finished_measured = state.finished;
    const auto now = std::chrono::steady_clock::now();
    const auto elapsed = now - std::exchange(state.measured, now);
    pool_.schedule.measured(worker, elapsed / frames, ran_dry);
  }

  // A worker must write all outcomes of a frame before it finishes the frame.
  void check_complete(std::uint32_t worker) {
    const pool_task* task = pool_.first_task(worker);
    if (task == nullptr || !pool_.channel(worker).between_frames()) return;
    if (task->done != task->head.first_item) {
      throw protocol_violation("a worker finished a task without all of its results");
    }
  }

  // Receives the records of one worker; see result_consumer.
  struct record_sink {
    result_processor& pool;
    std::uint32_t worker;

    delivery check(const record_head& head) { return pool.check_record(worker, head); }
    void record(const record_head& head, std::span<const std::byte> bytes) {
      pool.take_record(worker, head, bytes);
    }
    void piece(const record_head& head, std::uint64_t offset, std::span<const std::byte> bytes) {
      pool.take_piece(worker, head, offset, bytes);
    }
    void lost(const record_head& /*head*/) { pool.lose_record(worker); }
  };

  delivery check_record(std::uint32_t worker, const record_head& head) {
    task_producer& frames = pool_.channel(worker).tasks();
    if (head.kind != record_kind::run && head.length > pool_.recycling.max_result_bytes()) {
      refuse_size(head.length, pool_.recycling.max_result_bytes());
    }
    if (frames.streaming_front()) {
      throw protocol_violation("a worker answered a task before it had read it");
    }
    if (pool_.workers[worker].initializing) {
      check_initialized(worker, head);
      return completion::delivery_of(head);
    }
    const auto* task = pool_.first_task(worker);
    if (task == nullptr || head.ordinal != static_cast<std::uint32_t>(frames.front_ordinal()) ||
        !completion::fits(*task, head)) {
      throw protocol_violation(unexpected_result);
    }
    frames.note_begun();  // keeps it the front task until the whole record is there
    return completion::delivery_of(*task, head);
  }

  [[noreturn, gnu::noinline]] static void refuse_size(std::uint64_t bytes,
                                                      std::uint64_t max_bytes) {
    throw protocol_violation(concat({"a worker announced a result of ", bytes,
                                     " bytes, more than max_result_bytes allows: ", max_bytes}));
  }

  // Allows only the byte that says that the initializer has returned, or its exception.
  void check_initialized(std::uint32_t worker, const record_head& head) const {
    const bool returned = head.kind == record_kind::run &&
                          (head.length == 1 || head.length == open_length);  // died writing it
    const bool repeated = pool_.workers[worker].init_error != nullptr;
    if (repeated || head.ordinal != 0 || head.item != 0 ||
        (!returned && head.kind != record_kind::error)) {
      throw protocol_violation(unexpected_result);
    }
  }

  void take_record(std::uint32_t worker, const record_head& head,
                   std::span<const std::byte> bytes) {
    if (pool_.workers[worker].initializing) return initialized(worker, head, bytes);
    pool_task& task = *pool_.first_task(worker);
    if (head.kind == record_kind::error) {
      keep_for_replay(worker, task);
      pool_.results.fail(task, pool_.results.received(bytes));
    } else {
      pool_.results.pass(task, bytes, [&] { keep_for_replay(worker, task); });
    }
    if (task.finished()) finish_front(worker);
  }

  // There was no memory to receive the record: its item ends with that.
  void lose_record(std::uint32_t worker) {
    const auto why = std::make_exception_ptr(std::bad_alloc());
    if (pool_.workers[worker].initializing) {
      pool_.workers[worker].init_error = why;
      return;
    }
    pool_task* task = pool_.first_task(worker);
    if (task == nullptr) return;  // it belongs to no task
    keep_for_replay(worker, *task);
    pool_.results.fail(*task, why);
    if (task->finished()) finish_front(worker);
  }

  void keep_for_replay(std::uint32_t worker, const pool_task& task) noexcept {
    const std::size_t index = task.next_index();
    if (!task.owner->wants_replay(index)) return;
    task.owner->keep_replay(index, pool_.copy_for_replay(worker, task));
  }

  void take_piece(std::uint32_t worker, const record_head& head, std::uint64_t offset,
                  std::span<const std::byte> bytes) {
    if (pool_.workers[worker].initializing) return initialized(worker, head, bytes);
    pool_task& task = *pool_.first_task(worker);
    if (head.kind == record_kind::value) {
      pool_.results.pass_piece(task, head, offset, bytes, [&] { keep_for_replay(worker, task); });
    } else {
      if (!completion::run_fits(task, head))
        throw protocol_violation(unexpected_result);  // was open
      pool_.results.pass_run(task, head, offset, bytes);
    }
    if (task.finished()) finish_front(worker);
  }

  void initialized(std::uint32_t worker, const record_head& head,
                   std::span<const std::byte> bytes) {
    if (head.kind == record_kind::error) {
      pool_.workers[worker].init_error = pool_.results.received(bytes);
      return;  // the worker exits now, which is reported
    }
    if (head.length != 1) throw protocol_violation(unexpected_result);  // was open
    pool_.workers[worker].initializing = false;
    pool_.channel(worker).tasks().pop_front();
    restarts_.succeeded();
  }

  static constexpr const char* no_memory = "there is no memory for its result";
  static constexpr const char* unexpected_result =
      "a worker sent a result that it was not asked for";

  worker_table& pool_;
  dispatcher& sending_;
  restart_policy& restarts_;
};

}  // namespace procpool::detail
