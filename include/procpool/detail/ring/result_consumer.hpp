// SPDX-License-Identifier: MIT
/// @file
/// The parent's end of a result ring. It trusts nothing: every number from the ring is copied out
/// once, checked against private records, then used. An impossible one is a protocol_violation, and
/// the worker that wrote it must be killed.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/codec/incremental_decode.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/ring_memory.hpp>

namespace procpool::detail {

/// A worker wrote something that no correct worker writes.
class protocol_violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// How much of a worker's state the parent reads. Partial: only `committed`, with which the worker
/// announces results. Full: also `finished`, which the worker writes while it works. Reading that
/// costs both sides a transfer of its cache line, a good part of the cost of a short call.
enum class drain_mode : bool { partial, full };

/// Reassembles records. Not thread-safe: used under the lock of its pool, except functions marked
/// "any thread".
class result_consumer {
 public:
  result_consumer(const result_control& worker, std::span<const std::byte> ring, task_control& own)
      : worker_(&worker), ring_(ring), own_(&own) {
    own.consumed.store(0, std::memory_order_relaxed);  // before the worker exists
  }

  /// Whether drain() would find something new. Any thread.
  [[nodiscard]] bool anything() const noexcept {
    return worker_->committed.load(std::memory_order_relaxed) >
           seen_.load(std::memory_order_relaxed);  // a hint; drain() acquires
  }

  /// The same, including results that the worker holds back and checks that a partial drain left
  /// out. Any thread.
  [[nodiscard]] bool anything_finished() const noexcept {
    const std::uint64_t seen = seen_.load(std::memory_order_relaxed);  // as in anything()
    return std::max(worker_->committed.load(std::memory_order_relaxed),
                    worker_->finished.load(std::memory_order_relaxed)) != seen ||
           unchecked_.load(std::memory_order_relaxed);  // as seen_
  }

  /// Hands all complete records to @p sink:
  ///   sink.check(head)         how to deliver the record: at once, or in pieces as runs are;
  ///                            throws protocol_violation for a head that cannot be right
  ///   sink.record(head, bytes) one whole record; the bytes are private
  ///   sink.piece(head, offset, bytes)  the next bytes of a record, from this offset on; in shared
  ///                            memory, so they must be read only once
  ///   sink.lost(head)          instead of record(): there was no memory for it here
  /// @param mode partial: only what was committed, without a check of where the worker is
  /// @returns whether anything was consumed.
  template <class Sink>
  bool drain(Sink&& sink, drain_mode mode = drain_mode::full) {
    const std::uint64_t committed =
        worker_->committed.load(std::memory_order_acquire);  // with the bytes before it
    std::uint64_t finished = 0;
    if (mode == drain_mode::full) {
      finished = worker_->finished.load(std::memory_order_acquire);  // with the bytes before it
      if (std::max(committed, finished) < cursor_) {
        throw protocol_violation("a worker's result cursor went back");
      }
    }
    const std::uint64_t end = bounded(std::max(committed, finished));
    const std::uint64_t before = cursor_;
    if (end != cursor_) read_until(end, sink, false);
    between_frames_ = finished == end && end != 0;
    if (between_frames_ && (open_ || cursor_ != end)) {
      throw protocol_violation("a worker finished a task in the middle of a result");
    }
    own_->consumed.store(cursor_, std::memory_order_release);  // after the bytes are copied
    seen_.store(end, std::memory_order_relaxed);               // for anything()
    unchecked_.store(mode == drain_mode::partial,
                     std::memory_order_relaxed);  // for anything_finished()
    return cursor_ != before;                     // false for only a part of a head
  }

  /// Whether the last full drain found all results of some frame and none of the next.
  [[nodiscard]] bool between_frames() const noexcept { return between_frames_; }

  /// For a dead worker: also reads what it had written and not committed. An incomplete record is
  /// dropped.
  template <class Sink>
  void drain_last(Sink&& sink) {
    const std::uint64_t committed = worker_->committed.load(std::memory_order_acquire);  // final
    const std::uint64_t written = worker_->written.load(std::memory_order_acquire);      // final
    read_until(bounded(std::max(committed, written)), sink,
               true);  // `written` is never behind `finished`
  }

 private:
  [[nodiscard]] std::uint64_t bounded(std::uint64_t end) const {
    if (end <= cursor_) return cursor_;
    if (end - cursor_ > ring_.capacity) {
      throw protocol_violation("a worker's result cursor is out of range");
    }
    return end;
  }

  template <class Sink>
  void read_until(std::uint64_t end, Sink& sink, bool last) {
    while (true) {
      if (!open_ && !read_head(end, sink)) return;
      const bool whole =
          delivery_.granule != 0 ? read_pieces(end, sink, last) : read_payload(end, sink);
      if (!whole) return;
    }
  }

  template <class Sink>
  bool read_head(std::uint64_t end, Sink& sink) {
    cursor_ = std::min(round_up<std::uint64_t>(cursor_, record_alignment), end);  // padding
    if (end - cursor_ < sizeof head_) return false;
    ring_.copy_out(cursor_, &head_, sizeof head_);  // the only read of it
    cursor_ += sizeof head_;
    delivery_ = sink.check(head_);
    remaining_ = head_.length;
    buffer_.clear();
    lost_ = false;
    open_ = true;
    return true;
  }

  // The buffer grows with the bytes that have arrived, never by the promised length. (A record
  // delivered in pieces may reserve its promised length, up to the pool's limit for a result; that
  // memory is not touched before the bytes arrive.)
  template <class Sink>
  bool read_payload(std::uint64_t end, Sink& sink) {
    const std::size_t piece = std::min<std::uint64_t>(remaining_, end - cursor_);
    if (!lost_) keep_payload(piece);
    cursor_ += piece;
    remaining_ -= piece;
    if (remaining_ > 0) return false;
    open_ = false;
    if (lost_) [[unlikely]] {
      sink.lost(head_);
      return true;
    }
    sink.record(head_, std::span<const std::byte>(buffer_.data(), buffer_.size()));
    if (buffer_.capacity() > keep_bytes) buffer_ = byte_buffer();
    return true;
  }

  // Without memory the bytes are skipped, so that the worker can continue.
  void keep_payload(std::size_t piece) noexcept {
    const std::size_t before = buffer_.size();
    try {
      buffer_.make_room(piece);
      buffer_.resize_uninitialized(before + piece);
    } catch (const std::bad_alloc&) {
      lost_ = true;
      buffer_ = byte_buffer();
      return;
    }
    ring_.copy_out(cursor_, buffer_.data() + before, piece);
  }

  template <class Sink>
  bool read_pieces(std::uint64_t end, Sink& sink, bool last) {
    if (head_.length == open_length) {
      if (!last) throw protocol_violation("a worker committed an unfinished run of results");
      remaining_ = head_.length = end - cursor_;  // up to the last value that it wrote
    }
    while (remaining_ > 0) {
      if (!read_piece(std::min(remaining_, end - cursor_), sink)) return false;
    }
    open_ = false;
    return true;
  }

  // Delivers some of the @p available bytes; false: they are too few. At most a quarter of the ring
  // at a time, so that the worker can continue meanwhile.
  template <class Sink>
  bool read_piece(std::uint64_t available, Sink& sink) {
    const std::uint64_t offset = head_.length - remaining_;
    const std::uint64_t unit = offset < delivery_.head ? delivery_.head : delivery_.granule;
    if (available < unit) return false;
    std::array<std::byte, 64> joined;
    std::uint64_t size = std::min({available, ring_.until_end(cursor_), ring_.capacity / 4});
    const std::byte* from = ring_.at(cursor_);
    if (offset < delivery_.head || size < unit) {  // the latter: across the end of the ring
      size = unit;
      from = joined.data();
      ring_.copy_out(cursor_, joined.data(), size);
    }
    size -= size % unit;
    sink.piece(head_, offset, std::span<const std::byte>(from, size));
    cursor_ += size;
    remaining_ -= size;
    own_->consumed.store(cursor_, std::memory_order_release);  // after the bytes are copied
    return true;
  }

  static constexpr std::size_t keep_bytes = std::size_t{1} << 20;

  const result_control* worker_;
  ring_memory<const std::byte> ring_;
  task_control* own_;
  byte_buffer buffer_;
  record_head head_{};
  delivery delivery_{};
  std::uint64_t remaining_ = 0;
  std::uint64_t cursor_ = 0;
  std::atomic<std::uint64_t> seen_{0};
  std::atomic<bool> unchecked_{false};  ///< drained partially since the last full drain
  bool open_ = false;
  bool lost_ = false;  ///< no memory for the open record
  bool between_frames_ = false;
};

}  // namespace procpool::detail
