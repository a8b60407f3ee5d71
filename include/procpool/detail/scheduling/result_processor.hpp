// SPDX-License-Identifier: MIT
/// @file
/// Records on their way from workers: checks that each can be the next of its task, and turns it
/// into outcomes of jobs. A worker that sends anything else is condemned.
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
      : pool_(pool), sending_(sending), starts_(starts) {}

  /// Takes what this worker has sent; whether there was anything.
  bool drain(std::uint32_t worker, drain_mode how = drain_mode::full) noexcept {
    try {
      worker_state& state = pool_.workers[worker];
      const std::uint64_t before = state.finished;
      const bool news = pool_.channel(worker).drain(record_sink{*this, worker}, how);
      check_whole(worker);
      if (!news) return false;
      if (state.retire_due) sending_.send_retire(worker);
      if (state.finished != before) measure(worker);
      return true;
    } catch (const protocol_violation& what) {
      pool_.kill_for_violation(worker, what.what());
    } catch (...) {  // there are texts of violations to be made
      pool_.kill_for_violation(worker, no_memory);
    }
    return true;
  }

  /// The worker is dead: takes what it had still written.
  void drain_last(std::uint32_t worker) noexcept {
    try {
      pool_.channel(worker).drain_last(record_sink{*this, worker});
    } catch (const protocol_violation& what) {
      pool_.note_violation(worker, what.what());
    } catch (...) {  // as above
      pool_.note_violation(worker, no_memory);
    }
  }

  /// The worker's front task has all its outcomes.
  void finish_front(std::uint32_t worker) noexcept {
    pool_task& task = *pool_.first_task(worker);
    pool_.channel(worker).tasks().pop_front();
    pool_.schedule.finished(worker);
    ++pool_.workers[worker].finished;
    starts_.succeeded();
    pool_.discard(task);
  }

 private:
  // Whether the worker should have more tasks at a time, judged by how many it has done since the
  // last time. Looks at the clock once for many tasks, it costs as much as a short one.
  void measure(std::uint32_t worker) {
    constexpr std::uint64_t check_interval = 16;
    worker_state& state = pool_.workers[worker];
    const bool ran_dry = pool_.first_task(worker) == nullptr && pool_.schedule.pending() > 0;
    const std::uint64_t frames = state.finished - state.finished_before;
    if (!ran_dry && frames < check_interval) return;
    state.finished_before = state.finished;
    const auto now = std::chrono::steady_clock::now();
    const auto elapsed = now - std::exchange(state.measured, now);
    pool_.schedule.measured(worker, elapsed / frames, ran_dry);
  }

  // All outcomes of a frame are there before the worker is done with it.
  void check_whole(std::uint32_t worker) {
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
    if (head.kind != record_kind::run && head.length > pool_.lives.max_result_bytes()) {
      refuse_size(head.length, pool_.lives.max_result_bytes());
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
      throw protocol_violation(out_of_turn);
    }
    frames.note_begun();  // so it stays its front task until the rest of the record is there
    return completion::delivery_of(*task, head);
  }

  [[noreturn, gnu::noinline]] static void refuse_size(std::uint64_t bytes, std::uint64_t most) {
    throw protocol_violation(concat({"a worker announced a result of ", bytes,
                                     " bytes, more than max_result_bytes allows: ", most}));
  }

  // Nothing but the word that the initializer has returned, one byte, or its exception.
  void check_initialized(std::uint32_t worker, const record_head& head) const {
    const bool returned = head.kind == record_kind::run &&
                          (head.length == 1 || head.length == open_length);  // died in writing it
    const bool again = pool_.workers[worker].init_error != nullptr;
    if (again || head.ordinal != 0 || head.item != 0 ||
        (!returned && head.kind != record_kind::error)) {
      throw protocol_violation(out_of_turn);
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

  // There was no memory to receive it: that is what becomes of its item.
  void lose_record(std::uint32_t worker) {
    const auto why = std::make_exception_ptr(std::bad_alloc());
    if (pool_.workers[worker].initializing) {
      pool_.workers[worker].init_error = why;
      return;
    }
    pool_task* task = pool_.first_task(worker);
    if (task == nullptr) return;  // of nothing
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
        throw protocol_violation(out_of_turn);  // was open before
      pool_.results.pass_run(task, head, offset, bytes);
    }
    if (task.finished()) finish_front(worker);
  }

  void initialized(std::uint32_t worker, const record_head& head,
                   std::span<const std::byte> bytes) {
    if (head.kind == record_kind::error) {
      pool_.workers[worker].init_error = pool_.results.received(bytes);
      return;  // it leaves now; its exit is reported
    }
    if (head.length != 1) throw protocol_violation(out_of_turn);  // was open before
    pool_.workers[worker].initializing = false;
    pool_.channel(worker).tasks().pop_front();
    starts_.succeeded();
  }

  static constexpr const char* no_memory = "there is no memory for its result";
  static constexpr const char* out_of_turn = "a worker sent a result that it was not asked for";

  worker_table& pool_;
  dispatcher& sending_;
  restart_policy& starts_;
};

}  // namespace procpool::detail
