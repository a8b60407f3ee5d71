// SPDX-License-Identifier: MIT
/// @file
/// The worker's end of a result ring: a stream of records (layout.hpp), the outcomes of its items.
///
/// There are three cursors. `committed`: the parent polls it. It rarely moves, so that a busy
/// parent and a busy worker do not compete for its cache line. `finished` moves with every frame.
/// The parent reads it before it goes to sleep. `written` moves with every complete outcome. The
/// parent reads it only after the worker's death: everything before it counts, so a finished item
/// is never charged for the death.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/result_window.hpp>
#include <procpool/detail/ring/ring_memory.hpp>

namespace procpool::detail {

/// Single-threaded: the worker's own thread. Wait is called as wait(ready) when everything is
/// committed and the parent has to act. It wakes the parent and returns when ready() is true.
template <class Wait>
class result_producer {
 public:
  result_producer(result_control& own, std::span<std::byte> ring, const task_control& parent,
                  Wait wait)
      : own_(&own), ring_(ring), parent_(&parent), wait_(std::move(wait)) {
    // Zero would name item 0 of frame 0, which would then seem started as soon as it is claimed.
    own.started.store(nothing_started, std::memory_order_relaxed);  // before the first claim
  }

  /// The next records answer the frame with this ordinal, whose items start at @p item.
  /// @param timed whether the items have a time limit
  void begin_frame(std::uint64_t ordinal, std::uint32_t item, bool timed = false) {
    ordinal_ = static_cast<std::uint32_t>(ordinal);
    timed_ = timed;
    begin_item(item);
  }

  /// Publishes which item runs from now on. It is charged if the worker dies.
  void begin_item(std::uint32_t item) {
    const std::uint64_t started = started_mark(ordinal_, item);
    if (timed_) return begin_timed(started);
    own_->started.store(started, std::memory_order_release);  // after the previous outcome
  }

  /// Writes one complete record.
  void put(record_kind kind, std::uint32_t item, std::span<const std::byte> payload) {
    put(kind, item, payload, {});
  }
  /// The same with a payload in two parts. The parent reads a long one while it is being written.
  void put(record_kind kind, std::uint32_t item, std::span<const std::byte> first,
           std::span<const std::byte> second) {
    close_run();
    const record_head head{ordinal_, item, kind, 0, first.size() + second.size()};
    const bool whole = second.empty() && !first.empty() && first.size() < ring_.capacity / 4;
    if (whole && put_whole(head, first.data())) return note_written();
    write(&head, sizeof head);
    write(first.data(), first.size());
    write(second.data(), second.size());
    pad();
    note_written();
  }

  /// Appends the plain result of @p item to a run of plain results; starts a run if necessary.
  /// Precondition: all values of a frame have this size, which is small compared to the ring.
  void put_plain(std::uint32_t item, const void* value, std::size_t size) {
    if (!run_open_ || room() < size + record_alignment) open_run(item, size);
    write(value, size);
    note_written();
  }

  /// The same for the only item of a frame: the length of the run is known.
  void put_only(std::uint32_t item, const void* value, std::size_t size) {
    const record_head head{ordinal_, item, record_kind::run, 0, size};
    if (!put_whole(head, value)) return put_plain(item, value, size);
    note_written();
  }

  /// Room in one piece for the plain results of items from @p item on, possibly for none.
  [[nodiscard]] result_window open_window(std::uint32_t item, std::size_t size) {
    if (!run_open_ || room() < size + record_alignment) open_run(item, size);
    const std::uint64_t max_bytes =
        std::min({room() - record_alignment, ring_.until_end(cursor_), ring_.capacity / 4});
    return {.at = ring_.at(cursor_),
            .items = static_cast<std::uint32_t>(max_bytes / size),
            .mark = started_mark(ordinal_, item),
            .cursor = cursor_,
            .started = &own_->started,
            .written = &own_->written};
  }
  /// @p items results were written to the window. The parent copies them during the next items.
  void close_window(std::uint32_t items, std::size_t size) {
    cursor_ += items * size;
    if (cursor_ - run_at_ < ring_.capacity / 4) return note_written();
    close_run();
    show_progress();
  }

  /// All outcomes of the frame are written.
  void end_frame() noexcept {
    close_run();
    own_->finished.store(cursor_, std::memory_order_release);  // after the records
  }

  /// Publishes all finished records. Call it between frames, then wake the parent.
  void commit() noexcept {
    own_->committed.store(cursor_, std::memory_order_release);  // after the bytes
  }

 private:
  [[nodiscard]] std::uint64_t room() noexcept {
    if (ring_.capacity - (cursor_ - consumed_) < ring_.capacity / 2) {
      consumed_ = parent_->consumed.load(std::memory_order_acquire);  // after the parent's copies
    }
    return ring_.capacity - (cursor_ - consumed_);
  }

  // Writes a record in one piece of the ring. False: no piece is large enough now.
  bool put_whole(const record_head& head, const void* payload) {
    const std::uint64_t length =
        sizeof head + round_up<std::uint64_t>(head.length, record_alignment);
    if (length > room() || length > ring_.until_end(cursor_)) return false;
    std::byte* at = ring_.at(cursor_);
    std::memcpy(at, &head, sizeof head);
    std::memcpy(at + sizeof head, payload, head.length);
    cursor_ += length;
    return true;
  }

  void write(const void* data, std::size_t size) {
    if (size < ring_.capacity / 4 && size <= room()) {
      ring_.copy_in(cursor_, data, size);
      cursor_ += size;
    } else {
      write_slowly(data, size);
    }
  }

  // Waits for room, and commits parts of the record meanwhile.
  [[gnu::noinline]] void write_slowly(const void* data, std::size_t size) {
    auto* from = static_cast<const std::byte*>(data);
    while (size > 0) {
      const std::size_t piece = std::min<std::size_t>({size, room(), ring_.capacity / 4});
      if (piece == 0) {
        wait_for_room(1);
        continue;
      }
      ring_.copy_in(cursor_, from, piece);
      cursor_ += piece;
      from += piece;
      size -= piece;
      if (piece == ring_.capacity / 4) show_progress();
    }
  }

  // The parent copies one part of a long record while the worker writes the next.
  void show_progress() {
    own_->committed.store(cursor_, std::memory_order_release);  // after a part of a record
    if constexpr (requires { wait_.progress(); }) wait_.progress();
  }

  void wait_for_room(std::uint64_t bytes) {
    own_->committed.store(cursor_, std::memory_order_release);  // may end in a part of a record
    wait_([&] { return room() >= bytes; });
  }

  // The worker publishes the start, then reads the halt. The parent, about to kill the worker for
  // the previous item, publishes the halt, then reads the start. All four are sequentially
  // consistent, so one side sees the other's store, and no item is killed for the previous one.
  void begin_timed(std::uint64_t started) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    own_->started_at.store(static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()),
                           std::memory_order_relaxed);        // ordered by the next store
    own_->started.store(started, std::memory_order_seq_cst);  // before the halt is read
    const auto may_start = [this] {
      return parent_->halt.load(std::memory_order_seq_cst) == 0;  // after the start
    };
    if (may_start()) return;
    close_run();
    commit();
    wait_(may_start);
  }

  void pad() {
    static constexpr std::byte zeros[record_alignment]{};
    write(zeros, round_up<std::uint64_t>(cursor_, record_alignment) - cursor_);
  }

  // The head of a run stays uncommitted until the run's length is known. So the ring must have room
  // for the head and at least one value together.
  void open_run(std::uint32_t item, std::size_t size) {
    close_run();
    const std::uint64_t needed = sizeof(record_head) + size + record_alignment;  // value, padding
    if (room() < needed) wait_for_room(needed);
    const record_head head{ordinal_, item, record_kind::run, 0, open_length};
    run_at_ = cursor_;
    run_open_ = true;
    write(&head, sizeof head);
  }

  void close_run() noexcept {
    if (!run_open_) return;
    run_open_ = false;
    const std::uint64_t length = cursor_ - run_at_ - sizeof(record_head);
    if (length == 0) {  // the first item of a window threw: the run is empty
      cursor_ = run_at_;
      return;
    }
    auto* at = ring_.at(run_at_ + offsetof(record_head, length));  // 8-aligned, so the store
    __atomic_store_n(reinterpret_cast<std::uint64_t*>(at), length,
                     __ATOMIC_RELEASE);                            // is whole or not done
    cursor_ = round_up<std::uint64_t>(cursor_, record_alignment);  // put_plain left room for this
    note_written();
  }

  void note_written() noexcept {
    own_->written.store(cursor_, std::memory_order_release);  // after the outcome
  }

  result_control* own_;
  ring_memory<std::byte> ring_;
  const task_control* parent_;
  Wait wait_;
  std::uint64_t run_at_ = 0;
  std::uint64_t cursor_ = 0;
  std::uint64_t consumed_ = 0;
  std::uint32_t ordinal_ = 0;
  bool run_open_ = false;
  bool timed_ = false;
};

}  // namespace procpool::detail
