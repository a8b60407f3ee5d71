// SPDX-License-Identifier: MIT
/// @file
/// The parent's end of a channel: both rings of one worker, and waking that worker.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/parking.hpp>
#include <procpool/detail/ring/result_consumer.hpp>
#include <procpool/detail/ring/task_producer.hpp>

namespace procpool::detail {

/// Not thread-safe: used under the lock of its pool, except functions marked "any thread".
class parent_channel {
 public:
  parent_channel(task_control& control, std::span<std::byte> task_ring,
                 const result_control& worker, std::span<const std::byte> result_ring)
      : control_(&control),
        waker_(control, worker),
        producer_(control, task_ring, worker),
        consumer_(worker, result_ring, control),
        worker_(&worker) {}

  /// Sends a frame and wakes the worker. @returns false when there is no room now.
  /// @param body in-line or streamed, as the head says; empty for a body in the arena
  bool send(const frame_head& head, std::span<const std::byte> body) {
    bool sent = try_send(head, body);
    if (!sent) {
      producer_.note_refusal();
      sent = try_send(head, body);  // the worker may have passed frames before the note
    }
    if (sent) waker_.wake_if_parked();
    return sent;
  }

  /// Reads results and sends more of a streamed body. @returns whether result bytes were read.
  template <class Sink>
  bool drain(Sink&& sink, drain_mode mode = drain_mode::full) {
    const bool received = consumer_.drain(sink, mode);
    if (producer_.pump() || received) waker_.wake_if_parked();  // it may wait for bytes or for room
    return received;
  }
  [[nodiscard]] bool between_frames() const noexcept { return consumer_.between_frames(); }
  template <class Sink>
  void drain_last(Sink&& sink) {
    consumer_.drain_last(sink);
  }

  /// Wakes the worker even if its `parked` says that it is awake.
  void wake() noexcept { waker_.wake(); }

  /// Whether drain() would find something new. Any thread.
  [[nodiscard]] bool anything() const noexcept { return consumer_.anything(); }

  /// The same, including results that the worker holds back. Ask it before sleeping. Any thread.
  [[nodiscard]] bool anything_at_all() const noexcept {
    return consumer_.anything_finished() || producer_.anything_taken();
  }

  /// Whether drain() would do anything. Reads a word or two, where drain() takes a hundred steps.
  [[nodiscard]] bool ready_to_drain(drain_mode mode) const noexcept {
    return (mode == drain_mode::partial ? anything() : anything_at_all()) || producer_.streaming();
  }

  /// Whether there may be room for a frame that was refused. Any thread.
  [[nodiscard]] bool anything_passed() const noexcept { return producer_.passed_more(); }

  /// Takes back frames that the worker has not claimed; see task_producer::take_back().
  template <class MayTake>
  std::uint64_t take_back(std::uint64_t from, MayTake may_take) {
    const std::uint64_t taken = producer_.take_back(from, may_take);
    waker_.wake_if_parked();  // it may have met the limit meanwhile
    return taken;
  }
  [[nodiscard]] bool take_away(std::uint64_t ordinal) noexcept {
    const bool taken = producer_.take_away(ordinal);
    waker_.wake_if_parked();  // as above
    return taken;
  }

  /// Stops the worker before the next item of a timed frame. @returns what it has started by then.
  [[nodiscard]] std::uint64_t halt() noexcept {
    control_->halt.store(1, std::memory_order_seq_cst);  // before the start is read
    return worker_->started.load(std::memory_order_seq_cst);
  }
  void unhalt() noexcept {
    control_->halt.store(0, std::memory_order_seq_cst);  // before the wake-up
    waker_.wake_if_parked();
  }

  [[nodiscard]] task_producer& tasks() noexcept { return producer_; }
  [[nodiscard]] const task_producer& tasks() const noexcept { return producer_; }
  [[nodiscard]] std::uint64_t started() const noexcept {
    return worker_->started.load(std::memory_order_acquire);  // of a dead worker: final
  }
  /// Whether the worker has got as far as waiting for its first frame, if it is honest.
  [[nodiscard]] bool anybody_there() noexcept {
    return producer_.anything_claimed() ||
           worker_->parked.load(std::memory_order_relaxed) != 0;  // no other data
  }
  /// Whether the worker, which is dead, had announced that it exits by its own decision.
  [[nodiscard]] bool said_it_leaves() const noexcept {
    return worker_->leaves.load(std::memory_order_acquire) != 0;  // of a dead worker: final
  }
  /// When the item that started() names started, if its frame is timed and the worker is honest.
  [[nodiscard]] std::chrono::steady_clock::time_point started_at() const noexcept {
    const auto at = worker_->started_at.load(std::memory_order_relaxed);  // ordered by started()
    constexpr auto max_ns = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return std::chrono::steady_clock::time_point(
        std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(at, max_ns))));
  }

 private:
  bool try_send(const frame_head& head, std::span<const std::byte> body) {
    return head.place == body_place::stream ? producer_.try_send_stream(head, body)
                                            : producer_.try_send(head, body);
  }

  task_control* control_;
  worker_waker waker_;
  task_producer producer_;
  result_consumer consumer_;
  const result_control* worker_;
};

}  // namespace procpool::detail
