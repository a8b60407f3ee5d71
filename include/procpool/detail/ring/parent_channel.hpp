// SPDX-License-Identifier: MIT
/// @file
/// The parent's end of a channel: both rings of one worker, and the bell that wakes it.
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

/// Not thread-safe: used under the lock of its pool.
class parent_channel {
 public:
  parent_channel(task_control& control, std::span<std::byte> task_ring,
                 const result_control& worker, std::span<const std::byte> result_ring)
      : control_(&control),
        waker_(control, worker),
        sender_(control, task_ring, worker),
        receiver_(worker, result_ring, control),
        worker_(&worker) {}

  /// Sends a frame and wakes the worker; false when there is no room now. Where the head says its
  /// body is, that is in @p body, but for one in the arena.
  bool send(const frame_head& head, std::span<const std::byte> body) {
    bool sent = try_send(head, body);
    if (!sent) {
      sender_.note_refusal();
      sent = try_send(head, body);  // it may have passed frames between that look and the note
    }
    if (sent) waker_.ring_if_parked();
    return sent;
  }

  /// Moves streamed bodies and results on; true when a sink was told anything new.
  template <class Sink>
  bool drain(Sink&& sink, drain_mode how = drain_mode::full) {
    const bool news = receiver_.drain(sink, how);
    if (sender_.pump() || news) waker_.ring_if_parked();  // it may wait for bytes or for room
    return news;
  }
  [[nodiscard]] bool between_frames() const noexcept { return receiver_.between_frames(); }
  template <class Sink>
  void drain_last(Sink&& sink) {
    receiver_.drain_last(sink);
  }

  /// Wakes the worker, in case it sleeps against all rules.
  void wake() noexcept { waker_.wake(); }

  /// Whether drain() would find something new. Any thread.
  [[nodiscard]] bool anything() const noexcept { return receiver_.anything(); }

  /// The same with what the worker does not tell at once: to be asked before going to sleep.
  [[nodiscard]] bool anything_at_all() const noexcept {
    return receiver_.anything_finished() || sender_.anything_taken();
  }

  /// Whether drain() would do anything: a look at a word or two, where drain() takes a hundred
  /// steps.
  [[nodiscard]] bool ready_to_drain(drain_mode how) const noexcept {
    return (how == drain_mode::partial ? anything() : anything_at_all()) || sender_.streaming();
  }

  /// Whether there may be room for a frame that was refused. Any thread.
  [[nodiscard]] bool anything_passed() const noexcept { return sender_.passed_more(); }

  /// Takes back what the worker has not begun with; see task_producer::take_back.
  template <class May>
  std::uint64_t take_back(std::uint64_t from, May may) {
    const std::uint64_t taken = sender_.take_back(from, may);
    waker_.ring_if_parked();  // it may have met the limit meanwhile
    return taken;
  }
  [[nodiscard]] bool take_away(std::uint64_t ordinal) noexcept {
    const bool taken = sender_.take_away(ordinal);
    waker_.ring_if_parked();  // as above
    return taken;
  }

  /// Holds the worker back before the next item of a timed frame; what it had started by then.
  [[nodiscard]] std::uint64_t halt() noexcept {
    control_->halt.store(1, std::memory_order_seq_cst);  // before the start is read
    return worker_->started.load(std::memory_order_seq_cst);
  }
  void unhalt() noexcept {
    control_->halt.store(0, std::memory_order_seq_cst);  // before the bell
    waker_.ring_if_parked();
  }

  [[nodiscard]] task_producer& tasks() noexcept { return sender_; }
  [[nodiscard]] const task_producer& tasks() const noexcept { return sender_; }
  [[nodiscard]] std::uint64_t started() const noexcept {
    return worker_->started.load(std::memory_order_acquire);  // of a dead worker: final
  }
  /// Whether the worker has come as far as to wait for its first frame, if it is honest.
  [[nodiscard]] bool anybody_there() noexcept {
    return sender_.anything_claimed() ||
           worker_->parked.load(std::memory_order_relaxed) != 0;  // one word
  }
  /// Whether the worker, which is dead, has said that it leaves of its own accord.
  [[nodiscard]] bool said_it_leaves() const noexcept {
    return worker_->leaves.load(std::memory_order_acquire) != 0;  // its last word
  }
  /// When the item that started() names was begun, if its frame is timed and the worker is honest.
  [[nodiscard]] std::chrono::steady_clock::time_point started_at() const noexcept {
    const auto at = worker_->started_at.load(std::memory_order_relaxed);  // ordered by started()
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return std::chrono::steady_clock::time_point(
        std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(at, most))));
  }

 private:
  bool try_send(const frame_head& head, std::span<const std::byte> body) {
    return head.place == body_place::stream ? sender_.try_send_stream(head, body)
                                            : sender_.try_send(head, body);
  }

  task_control* control_;
  worker_waker waker_;
  task_producer sender_;
  result_consumer receiver_;
  const result_control* worker_;
};

}  // namespace procpool::detail
