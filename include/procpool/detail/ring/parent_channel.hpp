// SPDX-License-Identifier: MIT
/// @file
/// The parent's end of a channel: both rings of one worker, and waking that worker.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

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
      : tasks(control, task_ring, worker),
        results(worker, result_ring, control),
        control_(&control),
        worker_(&worker),
        waker_(control, worker) {}

  /// The two rings. To send, to take frames back and to drain, call the members below: they also
  /// wake the worker.
  task_producer tasks;
  result_consumer results;

  /// Sends a frame and wakes the worker. @returns false when there is no room now.
  /// @param body in-line or streamed, as the head says; empty for a body in the arena
  bool send(const frame_head& head, std::span<const std::byte> body) {
    bool sent = try_send(head, body);
    if (!sent) {
      tasks.note_refusal();
      sent = try_send(head, body);  // the worker may have passed frames before the note
    }
    if (sent) waker_.wake_if_parked();
    return sent;
  }

  /// Reads results and sends more of a streamed body. @returns whether result bytes were read.
  template <class Sink>
  bool drain(Sink&& sink, drain_mode mode = drain_mode::full) {
    const bool received = results.drain(sink, mode);
    if (tasks.pump() || received) waker_.wake_if_parked();  // it may wait for bytes or for room
    return received;
  }

  /// Wakes the worker even if its `parked` says that it is awake.
  void wake() noexcept { waker_.wake(); }

  /// Whether drain() would find something new, also in results that the worker holds back. Ask it
  /// before sleeping. Any thread.
  [[nodiscard]] bool anything_at_all() const noexcept {
    return results.anything_finished() || tasks.anything_taken();
  }

  /// Whether drain() would do anything. Reads a word or two, where drain() takes a hundred steps.
  [[nodiscard]] bool ready_to_drain(drain_mode mode) const noexcept {
    return (mode == drain_mode::partial ? results.anything() : anything_at_all()) ||
           tasks.streaming();
  }

  /// Takes back frames that the worker has not claimed; see task_producer::take_back().
  template <class MayTake>
  std::uint64_t take_back(std::uint64_t from, MayTake may_take) {
    const std::uint64_t taken = tasks.take_back(from, may_take);
    waker_.wake_if_parked();  // it may have met the limit meanwhile
    return taken;
  }
  [[nodiscard]] bool take_away(std::uint64_t ordinal) noexcept {
    const bool taken = tasks.take_away(ordinal);
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

  [[nodiscard]] std::uint64_t started() const noexcept {
    return worker_->started.load(std::memory_order_acquire);  // of a dead worker: final
  }
  /// Whether the worker has got as far as waiting for its first frame, if it is honest.
  [[nodiscard]] bool anybody_there() noexcept {
    return tasks.anything_claimed() ||
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
    return head.place == body_place::stream ? tasks.try_send_stream(head, body)
                                            : tasks.try_send(head, body);
  }

  task_control* control_;
  const result_control* worker_;
  worker_waker waker_;
};

/// What the thread that drives a pool polls without the lock. It collects the channels under the
/// lock, before each wait.
class channel_poll {
 public:
  /// @param workers the largest number that the pool can have
  explicit channel_poll(std::size_t workers) {
    busy_.reserve(workers);  // so that a wait needs no memory
    blocked_.reserve(workers);
  }

  void clear() noexcept {
    busy_.clear();
    blocked_.clear();
    ended_.store(false, std::memory_order_relaxed);  // for the next wait
  }
  /// A channel whose results are expected.
  void add_busy(const parent_channel& channel) { busy_.push_back(&channel); }
  /// A channel that may get room for a frame.
  void add_blocked(const parent_channel& channel) { blocked_.push_back(&channel); }
  /// How many channels are busy.
  [[nodiscard]] std::size_t busy() const noexcept { return busy_.size(); }

  /// Ends the polling: operator() is true from now on. Any thread.
  void end() noexcept { ended_.store(true, std::memory_order_relaxed); }  // a hint

  /// Whether to stop polling: results have been committed, or end() was called.
  [[nodiscard]] bool operator()() const noexcept {
    return any_committed() || ended_.load(std::memory_order_relaxed);  // a hint
  }
  [[nodiscard]] bool any_committed() const noexcept {
    for (const parent_channel* each : busy_) {
      if (each->results.anything()) return true;
    }
    return false;
  }
  /// Whether anything else has changed that the parent has to act on. Ask it before sleeping.
  [[nodiscard]] bool any_uncommitted() const noexcept {
    return std::ranges::any_of(busy_, &parent_channel::anything_at_all) ||
           std::ranges::any_of(blocked_,
                               [](const auto* each) { return each->tasks.passed_more(); });
  }

 private:
  std::vector<const parent_channel*> busy_;
  std::vector<const parent_channel*> blocked_;
  std::atomic<bool> ended_{false};
};

}  // namespace procpool::detail
