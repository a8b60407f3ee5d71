// SPDX-License-Identifier: MIT
/// @file
/// The layout of shared memory, byte for byte. Every page has exactly one writer:
///
///     outbound region   written by the parent, read by the workers of the pool
///       outbound_header | task_control[workers] | task ring[workers] | arena
///     inbound region    one for each worker, written by it, read by the parent
///       result_control | crash_note | result ring
///
/// Cursors count bytes since the region was made. They never wrap in practice (2^64 bytes). A
/// position in a ring is the cursor modulo the ring's capacity, a power of two.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace procpool::detail {

inline constexpr std::size_t cache_line = 64;

/// Frames and their bodies start at multiples of this, so that views into them are aligned.
inline constexpr std::size_t frame_alignment = 16;

template <class Int>
constexpr Int round_up(Int value, Int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// One for each pool. Writer: the parent.
struct outbound_header {
  /// Odd while the parent sleeps and must be woken for the next result. Each sleep has a new value.
  alignas(cache_line) std::atomic<std::uint32_t> armed;
};

/// The task direction's cursors of one worker. Writer: the parent.
struct task_control {
  alignas(cache_line) std::atomic<std::uint64_t> published;  ///< end of the frames to read
  alignas(cache_line) std::atomic<std::uint64_t> consumed;   ///< end of the results it has read
  // Read for every frame but rarely written: not on the line of a busy cursor.
  alignas(cache_line) std::atomic<std::uint64_t> limit;  ///< frames from here on are taken back
  std::atomic<std::uint32_t> doorbell;                   ///< futex that the worker sleeps on
  std::atomic<std::uint32_t> spin;  ///< whether the worker may spin before it sleeps
  std::atomic<std::uint32_t> halt;  ///< 1: do not start another item of a timed frame for now
};

/// The result direction's cursors of one worker, and what it is doing. Writer: that worker.
struct result_control {
  alignas(cache_line) std::atomic<std::uint64_t> committed;  ///< end of the results to read
  /// End of the last complete outcome, ahead of `committed` inside a chunk. The parent reads it
  /// after the worker has died, so that finished items keep their results.
  alignas(cache_line) std::atomic<std::uint64_t> written;
  /// End of the last complete frame, ahead of `committed` while results are held back. The parent
  /// reads it before it sleeps.
  std::atomic<std::uint64_t> finished;
  std::atomic<std::uint64_t> started;  ///< low half of the frame's ordinal, then the item's index
  std::atomic<std::uint64_t> started_at;  ///< start time, ns of CLOCK_MONOTONIC; timed frames only
  alignas(cache_line) std::atomic<std::uint64_t> claimed;  ///< frames before this are the worker's
  // The parent polls these: not on the line that the worker writes for every frame.
  alignas(cache_line) std::atomic<std::uint64_t> consumed;  ///< end of the streamed bytes it took
  std::atomic<std::uint32_t> parked;  ///< number of the present or coming sleep; 0: awake
  std::atomic<std::uint32_t> leaves;  ///< 1: exits by its own decision; starts no further item
};

/// What a worker notes when it crashes. Writer: its signal handler.
struct crash_note {
  static constexpr std::size_t max_frames = 56;

  /// 0: no crash. Stored after all other members but the stack.
  alignas(cache_line) std::atomic<std::uint32_t> signal;
  std::int32_t code;      ///< si_code: why the signal was sent
  std::uint64_t address;  ///< si_addr; for a signal that was sent, the sender's process id
  std::uint64_t thread;   ///< thread id
  std::uint64_t pc;       ///< program counter at the crash
  std::atomic<std::uint64_t> frames;  ///< entries of `stack` that are written
  std::uint64_t stack[max_frames];    ///< code addresses, innermost first
};

/// The value of `started` for an item of a frame.
constexpr std::uint64_t started_mark(std::uint64_t ordinal, std::uint32_t item) noexcept {
  return (ordinal << 32) | item;
}
constexpr std::uint32_t started_item(std::uint64_t mark) noexcept {
  return static_cast<std::uint32_t>(mark);
}

/// The value of `started` before the first item.
inline constexpr std::uint64_t nothing_started = ~std::uint64_t{0};

/// What a frame in the task ring tells the worker to do.
enum class frame_kind : std::uint16_t {
  run = 1,     ///< run items
  skip = 2,    ///< taken back by the parent: pass over
  pad = 3,     ///< filler before the end of the ring
  retire = 4,  ///< no more tasks: exit in order
};

/// Where a frame's body is.
enum class body_place : std::uint8_t {
  in_line = 1,  ///< directly after the head
  arena = 2,    ///< in the arena of the outbound region
  stream = 3,   ///< after the head, longer than the ring: read it piece by piece
  large = 4,    ///< in the file of large_blocks.hpp
};

/// frame_head::first_number until the pool assigns the next number. Initializers keep this value.
inline constexpr std::uint64_t unnumbered = ~std::uint64_t{0};

/// A task, or a chunk of items of one, on its way to a worker.
struct frame_head {
  std::uint32_t length;  ///< bytes in the ring: head and in-line body
  frame_kind kind;       ///< changed to skip in place when the frame is taken back
  body_place place;
  std::uint8_t backlog;  ///< 1: many earlier frames have no results yet, so more may follow at once
  std::uint64_t ordinal;       ///< counts the frames sent to this worker
  std::uint64_t first_number;  ///< number of item 0 among all items ever submitted to the pool
  std::uint64_t entry_offset;  ///< code that runs it, see code_ref
  std::uint32_t entry_module;
  std::uint32_t item_count;
  std::uint32_t first_item;  ///< items before this one are done: decode and pass over them
  std::uint16_t
      attempt;  ///< attempt at the first item, from 1; later items start for the first time
  std::uint8_t initializer;  ///< 1: if it throws, the worker exits
  std::uint8_t timed;        ///< 1: its items have a time limit
  std::uint64_t body_at;     ///< offset in the arena, or in the file of large blocks
  std::uint64_t body_size;
  std::uint64_t callable_at;    ///< a callable shared by many frames: offset in the arena,
  std::uint64_t callable_size;  ///< its size; 0: the callable begins the body
};

/// Copies a head that has just been written, field by field. A load wider than the stores before it
/// waits until they have reached the cache, behind all earlier stores, and stores to shared memory
/// are slow. Measured: a tenth of the time of a stream of empty tasks.
inline void copy_head(frame_head& to, const frame_head& written) noexcept {
  const volatile frame_head& from = written;  // so that the compiler does not merge loads
  to.length = from.length;
  to.kind = from.kind;
  to.place = from.place;
  to.backlog = from.backlog;
  to.ordinal = from.ordinal;
  to.first_number = from.first_number;
  to.entry_offset = from.entry_offset;
  to.entry_module = from.entry_module;
  to.item_count = from.item_count;
  to.first_item = from.first_item;
  to.attempt = from.attempt;
  to.initializer = from.initializer;
  to.timed = from.timed;
  to.body_at = from.body_at;
  to.body_size = from.body_size;
  to.callable_at = from.callable_at;
  to.callable_size = from.callable_size;
  static_assert(sizeof(frame_head) == 80, "copy_head() must copy every field");
}

/// The kind of a frame may change while the worker reads it, hence the atomic access.
inline frame_kind load_kind(const frame_head& head) noexcept {
  // Ordered by the load of the limit.
  return frame_kind{
      __atomic_load_n(reinterpret_cast<const std::uint16_t*>(&head.kind), __ATOMIC_RELAXED)};
}
inline void store_kind(frame_head& head, frame_kind kind) noexcept {
  // Ordered by the store of the limit.
  __atomic_store_n(reinterpret_cast<std::uint16_t*>(&head.kind), static_cast<std::uint16_t>(kind),
                   __ATOMIC_RELAXED);
}

/// The bytes that a frame occupies in the stream of the ring.
inline std::uint64_t footprint(const frame_head& head) noexcept {
  const std::uint64_t streamed = head.place == body_place::stream ? head.body_size : 0;
  return head.length + round_up<std::uint64_t>(streamed, frame_alignment);
}

/// What a record in the result ring holds.
enum class record_kind : std::uint32_t {
  value = 1,  ///< the encoded result of one item
  error = 2,  ///< the encoded exception of one item
  run = 3,    ///< plain results of consecutive items, without gaps
};

/// Length of a run that is still growing; replaced by the true length before the run is committed.
inline constexpr std::uint64_t open_length = ~std::uint64_t{0};

/// Head of one record in the result ring; @c length bytes follow, padded to 8.
struct record_head {
  std::uint32_t ordinal;  ///< low half of the ordinal of the frame it answers
  std::uint32_t item;     ///< index in the frame; for a run, of its first item
  record_kind kind;
  std::uint32_t reserved;
  std::uint64_t length;
};

inline constexpr std::size_t record_alignment = 8;

// The parent and a spawned worker may be different builds: the layout is part of the protocol.
static_assert(sizeof(outbound_header) == 1 * cache_line);
static_assert(sizeof(task_control) == 3 * cache_line);
static_assert(sizeof(result_control) == 4 * cache_line);
static_assert(sizeof(crash_note) == 8 * cache_line);
static_assert(sizeof(frame_head) == 80 && sizeof(frame_head) % frame_alignment == 0);
static_assert(sizeof(record_head) == 24 && sizeof(record_head) % record_alignment == 0);
static_assert(std::is_trivially_copyable_v<frame_head> && std::is_standard_layout_v<frame_head>);
static_assert(std::is_trivially_copyable_v<record_head>);
static_assert(offsetof(task_control, consumed) == 1 * cache_line);
static_assert(offsetof(task_control, limit) == 2 * cache_line);
static_assert(offsetof(result_control, written) == 1 * cache_line);
static_assert(offsetof(result_control, claimed) == 2 * cache_line);
static_assert(offsetof(result_control, consumed) == 3 * cache_line);
static_assert(offsetof(result_control, parked) == 3 * cache_line + sizeof(std::uint64_t));
// An atomic with a lock inside would put a lock into shared memory.
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

}  // namespace procpool::detail
