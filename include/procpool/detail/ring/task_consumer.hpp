// SPDX-License-Identifier: MIT
/// @file
/// The worker's end of a task ring, on the worker's own thread. task_producer.hpp has the protocol.
/// The worker trusts its parent: it could not defend itself against the parent anyway.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/ring_memory.hpp>

namespace procpool::detail {

/// Reads frames in order. Wait is called as wait(ready) and returns when ready() is true. Progress
/// is called when the parent may send more of a stream.
class task_consumer {
 public:
  task_consumer(const task_control& parent, std::span<const std::byte> ring, result_control& own)
      : parent_(&parent), ring_(ring), own_(&own) {}

  /// Whether there is another frame.
  [[nodiscard]] bool anything() noexcept {
    if (sent_ <= cursor_) sent_ = sent();  // reads the parent's line only if necessary
    return sent_ > cursor_;
  }

  /// Waits for the next frame to run, claims it and returns a copy of its head.
  /// @param wait_for_frame like @p wait, for the frame; if it throws, nothing is claimed
  template <class WaitForFrame, class Wait>
  frame_head next(WaitForFrame wait_for_frame, Wait wait) {
    while (true) {
      wait_for_frame([this] { return anything(); });
      if (ring_.until_end(cursor_) < sizeof(frame_head)) {  // no head fits: both sides skip this
        cursor_ += ring_.until_end(cursor_);
        continue;
      }
      const auto& head = *reinterpret_cast<const frame_head*>(ring_.at(cursor_));
      if (load_kind(head) != frame_kind::pad && claim(head, wait)) return head;
      cursor_ += footprint(head);
      own_->claimed.store(cursor_, std::memory_order_release);  // after the last read of the frame
    }
  }

  template <class Wait>
  frame_head next(Wait wait) {
    return next(wait, wait);
  }

  /// The in-line body of the frame that next() returned last.
  [[nodiscard]] std::span<const std::byte> in_line_body(const frame_head& head) const noexcept {
    return {ring_.at(cursor_ + sizeof head), head.body_size};
  }

  /// Reads the next @p size bytes of that frame's streamed body to @p into. If @p into is null, the
  /// bytes are skipped.
  template <class Wait, class Progress>
  void read_stream(std::byte* into, std::size_t size, Wait wait, Progress progress) {
    if (streamed_ == 0) streamed_ = cursor_ + sizeof(frame_head);
    while (size > 0) {
      wait([this] { return sent() != streamed_; });
      const std::size_t piece = std::min<std::size_t>(size, sent() - streamed_);
      if (into != nullptr) {
        ring_.copy_out(streamed_, into, piece);
        into += piece;
      }
      streamed_ += piece;
      size -= piece;
      own_->consumed.store(streamed_, std::memory_order_release);  // the bytes are copied
      progress();
    }
  }

  /// Moves past a frame that is done.
  void pass(const frame_head& head) noexcept {
    cursor_ += footprint(head);
    streamed_ = 0;
  }

 private:
  [[nodiscard]] std::uint64_t sent() const noexcept {
    return parent_->published.load(std::memory_order_acquire);  // with the bytes before it
  }

  // Publish the claim, then read the limit: the mirror image of task_producer::take_back.
  template <class Wait>
  bool claim(const frame_head& head, Wait wait) {
    // Not the frame's end: once that is claimed, the parent reuses the space of a skipped frame.
    own_->claimed.store(cursor_ + 1, std::memory_order_seq_cst);      // before the limit is read
    if (parent_->limit.load(std::memory_order_seq_cst) <= cursor_) {  // after the claim
      wait([this] {
        return parent_->limit.load(std::memory_order_acquire) > cursor_;  // the kinds are final
      });
    }
    return load_kind(head) != frame_kind::skip;
  }

  const task_control* parent_;
  ring_memory<const std::byte> ring_;
  result_control* own_;
  std::uint64_t cursor_ = 0;
  std::uint64_t sent_ = 0;      ///< `published` as last read
  std::uint64_t streamed_ = 0;  ///< cursor in a streamed body; 0: none is being read
};

}  // namespace procpool::detail
