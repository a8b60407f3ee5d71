// SPDX-License-Identifier: MIT
/// @file
/// The worker's end of a channel: both rings, and how the worker waits and wakes its parent. Used
/// by the worker's main thread only.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/os/file_window.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/parking.hpp>
#include <procpool/detail/ring/result_producer.hpp>
#include <procpool/detail/ring/task_consumer.hpp>
#include <procpool/detail/task/task.hpp>

namespace procpool::detail {

/// The memory of a channel, mapped shared or private.
struct worker_memory {
  const outbound_header* header;
  const task_control* tasks;
  std::span<const std::byte> task_ring;
  std::span<const std::byte> arena;
  result_control* results;
  std::span<std::byte> result_ring;
  std::byte* large = nullptr;  ///< first page of the file of large blocks; null: there is none
};

/// Thrown through the task's code when a worker that is a thread is to leave.
struct worker_stopped {};

/// Thrown by worker_channel::next() when no task came within the idle limit.
struct worker_idle {};

/// One thread: the worker's main thread.
class worker_channel {
  struct wait_for_parent {
    worker_channel* channel;
    template <class Ready>
    void operator()(Ready ready) const {
      channel->held_back_ = 0;  // the producer has committed everything
      channel->waker_.wake_if_armed();
      channel->wait_until(ready);
    }
    void progress() const { channel->waker_.wake_if_armed(); }
  };

 public:
  /// @param parent       wakes the parent
  /// @param before_sleep called each time before the worker sleeps
  /// @param stop         set when a worker that cannot be killed (a thread) is to leave
  /// @param fallback     wakes the parent after a task has closed the descriptor of @p parent
  worker_channel(const worker_memory& memory, os::event parent, void (*before_sleep)(),
                 const std::atomic<bool>* stop = nullptr, os::signal_waker fallback = {})
      : results(*memory.results, memory.result_ring, *memory.tasks, wait_for_parent{this}),
        memory_(memory),
        parking_(*memory.tasks, *memory.results),
        waker_(*memory.header, std::move(parent), fallback),
        tasks_(*memory.tasks, memory.task_ring, *memory.results),
        before_sleep_(before_sleep),
        stop_(stop) {}
  worker_channel(const worker_channel&) = delete;
  worker_channel& operator=(const worker_channel&) = delete;

  /// Takes the outcomes. flush() makes them visible to the parent.
  result_producer<wait_for_parent> results;

  /// Sets the longest time that next() waits; 0: no limit.
  void limit_idleness(std::chrono::nanoseconds longest) noexcept { max_idle_ = longest; }

  /// Waits for the next frame and claims it. @throws worker_idle
  [[nodiscard]] frame_head next() {
    const frame_head head = tasks_.next([this](auto ready) { wait_until(ready, max_idle_); },
                                        [this](auto ready) { wait_until(ready); });
    check_stop();  // when a frame is ready at once, no wait has checked it
    backlog_ = head.backlog != 0;
    results.begin_frame(head.ordinal, head.first_item, head.timed != 0);
    return head;
  }

  /// The bytes of the frame that next() returned, valid until done(). A streamed body is copied
  /// into private memory. @throws std::bad_alloc when there is none; the body is then dropped
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
      case body_place::large:
        found.body = map_large(head);
        break;
    }
    return found;
  }

  /// Called when all items of the frame have their outcome.
  void done(const frame_head& head) {
    tasks_.pass(head);
    if (head.place != body_place::in_line) release_copy();
    results.end_frame();
    if (!tasks_.anything() || waker_.armed() || !may_hold_back()) flush();
  }

  void flush() {
    held_back_ = 0;
    results.commit();
    waker_.wake_if_armed();
  }

  /// Whether check_stop() may ever throw.
  [[nodiscard]] bool may_be_stopped() const noexcept { return stop_ != nullptr; }
  /// @throws worker_stopped when the worker is to leave. Every wait of the worker checks this too.
  void check_stop() const {
    if (stopped()) throw worker_stopped{};
  }

  /// Tells the parent that the worker leaves by its own decision: frames that it has not claimed
  /// are run by other workers and do not count as lost.
  void note_leaving() noexcept {
    memory_.results->leaves.store(1, std::memory_order_release);  // read when the worker has ended
  }

  /// In a process forked from this worker: closes the descriptor, which is the worker's.
  void abandon() noexcept { waker_.reset(); }

 private:
  template <class Ready>
  void wait_until(Ready ready, std::chrono::nanoseconds longest = {}) {
    if (ready()) return;
    // Results were held back because another frame was in the ring, but the parent took that frame
    // back: commit the results now.
    if (held_back_ > 0) flush();
    waker_.wake_if_armed();
    if (backlog_) pause_polling();
    const bool in_time =
        parking_.wait_until([&] { return ready() || stopped(); }, before_sleep_, longest);
    check_stop();
    if (!in_time) throw worker_idle{};
  }
  // In a stream of short tasks each poll of the parent's cursor takes the cache line away from the
  // parent, which then waits for it when it publishes the next task. A short pause avoids that.
  // Before a wait for room or bytes the pause is hardly a delay. Measured: 5 % of a stream of empty
  // tasks.
  void pause_polling() noexcept {
    constexpr int pauses = 30;
    for (int i = 0; i < pauses; ++i) cpu_relax();
  }
  [[nodiscard]] bool stopped() const noexcept {
    return stop_ != nullptr && stop_->load(std::memory_order_relaxed);  // a wake-up follows the set
  }

  // Called when another frame is in the ring. While short tasks follow each other, results are
  // committed in batches: otherwise the cache lines move between the two sides for each result. A
  // long task that follows delays no result for long: nothing is held back while the parent sleeps,
  // and before it sleeps the parent takes results that are finished but not committed.
  bool may_hold_back() {
    constexpr std::uint32_t max_frames = 64;
    constexpr std::chrono::microseconds max_delay{10};
    const auto now = std::chrono::steady_clock::now();
    if (held_back_ == 0) held_since_ = std::exchange(last_done_, now);
    last_done_ = now;
    return ++held_back_ < max_frames && now - held_since_ < max_delay;
  }

  // @throws ProcessError when this process lacks the address space
  std::span<const std::byte> map_large(const frame_head& head) {
    if (memory_.large != nullptr)
      large_ = os::file_window(memory_.large, head.body_at, head.body_size);
    if (large_.bytes().empty()) os::throw_errno("cannot map a large argument (mremap)");
    return large_.bytes();
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

  // The body of the frame is not used any more.
  void release_copy() noexcept {
    constexpr std::size_t keep_bytes = std::size_t{64} << 20;
    if (streamed_.capacity() > keep_bytes) streamed_ = byte_buffer();
    large_.reset();
  }

  worker_memory memory_;
  worker_parking parking_;
  parent_waker waker_;
  task_consumer tasks_;
  byte_buffer streamed_;
  os::file_window large_;
  std::chrono::nanoseconds max_idle_{0};  ///< 0: no limit
  bool backlog_ = false;                  ///< frame_head::backlog of the last frame
  std::uint32_t held_back_ = 0;           ///< frames whose results are not committed
  std::chrono::steady_clock::time_point held_since_;
  std::chrono::steady_clock::time_point last_done_;
  void (*before_sleep_)();
  const std::atomic<bool>* stop_;
};

}  // namespace procpool::detail
