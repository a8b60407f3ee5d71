// SPDX-License-Identifier: MIT
/// @file
/// The worker's end of a channel: both rings, and how the worker waits and wakes its parent.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/parking.hpp>
#include <procpool/detail/ring/result_producer.hpp>
#include <procpool/detail/ring/task_consumer.hpp>
#include <procpool/detail/task/task.hpp>

namespace procpool::detail {

/// The memory that a worker works on. Knows nothing of how it was mapped.
struct worker_memory {
  const outbound_header* header;
  const task_control* tasks;
  std::span<const std::byte> task_ring;
  std::span<const std::byte> arena;
  result_control* results;
  std::span<std::byte> result_ring;
};

/// Thrown through the task's code by a worker that is a thread and is to leave.
struct worker_stopped {};

/// Thrown by worker_channel::next() when there was no task for too long.
struct worker_idle {};

/// One thread: the worker's main thread.
class worker_channel {
 public:
  /// @param before_sleep called each time the worker is about to sleep for want of work
  /// @param stop         set when a worker that nobody can kill, a thread, is to leave
  /// @param otherwise    wakes the parent when a task has closed what @p parent is
  worker_channel(const worker_memory& memory, os::event parent, void (*before_sleep)(),
                 const std::atomic<bool>* stop = nullptr, os::signal_waker otherwise = {})
      : memory_(memory),
        parking_(*memory.tasks, *memory.results),
        waker_(*memory.header, std::move(parent), otherwise),
        tasks_(*memory.tasks, memory.task_ring, *memory.results),
        results_(*memory.results, memory.result_ring, *memory.tasks, wait_for_parent{this}),
        before_sleep_(before_sleep),
        stop_(stop) {}
  worker_channel(const worker_channel&) = delete;
  worker_channel& operator=(const worker_channel&) = delete;

  /// From now on next() waits for so long at the most; 0: any time.
  void limit_idleness(std::chrono::nanoseconds longest) noexcept { most_idle_ = longest; }

  /// Waits for the next frame and claims it. @throws worker_idle
  [[nodiscard]] frame_head next() {
    const frame_head head = tasks_.next([this](auto ready) { wait_until(ready, most_idle_); },
                                        [this](auto ready) { wait_until(ready); });
    check_stop();  // a frame that lies there ready would not wait
    backlog_ = head.backlog != 0;
    results_.begin_frame(head.ordinal, head.first_item, head.timed != 0);
    return head;
  }

  /// The bytes of the frame that next() returned, valid until done(). A streamed body is received
  /// into memory of our own: @throws std::bad_alloc when there is none, the body is then dropped.
  [[nodiscard]] frame_bytes bytes(const frame_head& head) {
    frame_bytes found;
    if (head.callable_size != 0) {
      found.callable = memory_.arena.subspan(head.callable_at, head.callable_size);
    }
    switch (head.place) {
      case body_place::in_line:
        found.body = tasks_.in_line_body(head);
        break;
      case body_place::arena:
        found.body = memory_.arena.subspan(head.body_at, head.body_size);
        break;
      case body_place::stream:
        found.body = receive_stream(head);
        break;
    }
    return found;
  }

  /// All items of the frame have their outcome.
  void done(const frame_head& head) {
    tasks_.pass(head);
    if (streamed_.capacity() > keep_bytes) streamed_ = byte_buffer();
    results_.end_frame();
    if (!tasks_.anything() || waker_.armed() || !may_hold_back()) flush();
  }

  /// Where outcomes go. flush() makes them visible to the parent.
  [[nodiscard]] auto& results() noexcept { return results_; }
  void flush() {
    held_back_ = 0;
    results_.commit();
    waker_.wake_if_armed();
  }

  /// Whether check_stop() may ever throw.
  [[nodiscard]] bool may_be_stopped() const noexcept { return stop_ != nullptr; }
  /// @throws worker_stopped when the worker is to leave; so does every wait of it
  void check_stop() const {
    if (stopped()) throw worker_stopped{};
  }

  /// The worker leaves though nobody has told it to: what it has not claimed is no victim of it.
  void say_leaving() noexcept {
    memory_.results->leaves.store(1, std::memory_order_release);  // read when the worker is gone
  }

  /// In a process forked from this worker: let go of what is the worker's.
  void abandon() noexcept { waker_.reset(); }

 private:
  struct wait_for_parent {
    worker_channel* channel;
    template <class Ready>
    void operator()(Ready ready) const {
      channel->held_back_ = 0;  // all is committed by now
      channel->waker_.wake_if_armed();
      channel->wait_until(ready);
    }
    void progress() const { channel->waker_.wake_if_armed(); }
  };

  template <class Ready>
  void wait_until(Ready ready, std::chrono::nanoseconds longest = {}) {
    if (ready()) return;
    // There seemed to be another task, but it was taken back: the results and the room in the ring
    // are worth knowing.
    if (held_back_ > 0) flush();
    waker_.wake_if_armed();
    if (backlog_) pause_polling();
    const bool came =
        parking_.wait_until([&] { return ready() || stopped(); }, before_sleep_, longest);
    check_stop();
    if (!came) throw worker_idle{};
  }
  // In a stream of short tasks each look at the parent's cursor takes the line away from the
  // parent, who waits for it in the next task. So it gets a moment in which it does not; before a
  // wait for room or bytes that is hardly any delay. Measured: 5 % of a stream of empty tasks.
  void pause_polling() noexcept {
    constexpr int looks = 30;
    for (int i = 0; i < looks; ++i) cpu_relax();
  }
  [[nodiscard]] bool stopped() const noexcept {
    return stop_ != nullptr && stop_->load(std::memory_order_relaxed);  // the doorbell follows
  }

  // There is another frame. While short tasks follow each other, results are committed in batches:
  // the two sides would otherwise pass cache lines to and fro for each. Not while the parent
  // sleeps, and it looks for what is held back before it does; so a long task that follows delays
  // nothing for long.
  bool may_hold_back() {
    constexpr std::uint32_t most = 64;
    constexpr std::chrono::microseconds longest{10};
    const auto now = std::chrono::steady_clock::now();
    if (held_back_ == 0) held_since_ = std::exchange(last_done_, now);
    last_done_ = now;
    return ++held_back_ < most && now - held_since_ < longest;
  }

  std::span<const std::byte> receive_stream(const frame_head& head) {
    const auto wait = [this](auto ready) { wait_until(ready); };
    const auto progress = [this] { waker_.wake_if_armed(); };
    try {
      streamed_.resize_uninitialized(head.body_size);
    } catch (const std::bad_alloc&) {
      tasks_.read_stream(nullptr, head.body_size, wait, progress);
      throw;
    }
    tasks_.read_stream(streamed_.data(), head.body_size, wait, progress);
    return {streamed_.data(), streamed_.size()};
  }

  static constexpr std::size_t keep_bytes = std::size_t{64} << 20;

  worker_memory memory_;
  worker_parking parking_;
  parent_waker waker_;
  task_consumer tasks_;
  result_producer<wait_for_parent> results_;
  byte_buffer streamed_;
  std::chrono::nanoseconds most_idle_{0};
  bool backlog_ = false;         ///< the last frame was one of many
  std::uint32_t held_back_ = 0;  ///< frames whose results are not committed
  std::chrono::steady_clock::time_point held_since_;
  std::chrono::steady_clock::time_point last_done_;
  void (*before_sleep_)();
  const std::atomic<bool>* stop_;
};

}  // namespace procpool::detail
