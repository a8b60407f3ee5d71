// SPDX-License-Identifier: MIT
/// @file
/// A queue byte for byte: its control words in the record of the shared heap, its items in the
/// record's extent. docs/design/shared_objects.md explains how it works.
///
/// Items lie in a segment of the extent, which is a ring. When a producer finds no room, it goes on
/// in another segment and leaves a jump record; consumers follow when they come to it. Each end has
/// a lock (an owner word) and a place. To move the place, whoever has the lock writes the spare
/// copy of it and then one word, `passed`, which counts the items that passed this end and says
/// which copy holds. So a process killed at any instruction has moved an end, or has not.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>

namespace procpool::detail {

/// A part of the extent, in units of 64 KiB; 0: none. One word, so that it is read as a whole.
struct segment_number {
  static constexpr std::uint64_t unit = 64 << 10;
  static constexpr std::uint64_t units_in_extent = heap_places::extent_bytes / unit;
  static constexpr std::uint64_t first_unit = 16;  ///< before: see unfinished.hpp

  std::uint64_t word = 0;

  [[nodiscard]] static constexpr segment_number of(std::uint64_t start,
                                                   std::uint64_t units) noexcept {
    return {start << 26U | units};
  }
  [[nodiscard]] constexpr std::uint64_t start() const noexcept { return word >> 26U; }
  [[nodiscard]] constexpr std::uint64_t units() const noexcept {
    return word & ((std::uint64_t{1} << 26U) - 1);
  }
  [[nodiscard]] constexpr std::uint64_t offset() const noexcept { return start() * unit; }
  [[nodiscard]] constexpr std::uint64_t size() const noexcept { return units() * unit; }
  /// Whether it lies within the extent. False for `none`.
  [[nodiscard]] constexpr bool is_valid() const noexcept {
    return units() != 0 && start() >= first_unit && start() < units_in_extent &&
           units() <= units_in_extent - start();
  }
  friend constexpr bool operator==(segment_number, segment_number) noexcept = default;
};

/// Where an end of the queue is.
struct queue_place {
  segment_number segment{};
  std::uint64_t at = 0;     ///< a byte of the segment, a multiple of 8
  std::uint64_t bytes = 0;  ///< that all items which passed this end had together

  /// Whether a record can begin here. A place that was read may contain anything.
  [[nodiscard]] constexpr bool is_valid() const noexcept {
    return segment.is_valid() && at % 8 == 0 && at <= segment.size() - 16;
  }
};

/// A queue_place in shared memory. Released and acquired: who reads a word of a copy that is being
/// written sees that `passed` has changed.
struct shared_place {
  std::atomic<std::uint64_t> segment;
  std::atomic<std::uint64_t> at;
  std::atomic<std::uint64_t> bytes;

  void store(const queue_place& place) noexcept {
    segment.store(0, std::memory_order_release);  // killed in between, it is no place
    at.store(place.at, std::memory_order_release);
    bytes.store(place.bytes, std::memory_order_release);
    segment.store(place.segment.word, std::memory_order_release);
  }
  [[nodiscard]] queue_place load() const noexcept {
    return {{segment.load(std::memory_order_acquire)},
            at.load(std::memory_order_acquire),
            bytes.load(std::memory_order_acquire)};
  }
};

/// The word that moves an end: how many items passed it, and which copy of its place holds.
struct passed_word {
  std::uint64_t word = 0;

  [[nodiscard]] constexpr std::uint64_t items() const noexcept { return word >> 1U; }
  [[nodiscard]] constexpr std::size_t copy() const noexcept { return word & 1U; }
  [[nodiscard]] constexpr passed_word plus(std::uint64_t more) const noexcept {
    return {(items() + more) << 1U | (copy() ^ 1U)};
  }
};

/// One end, on a cache line of its own. Written by who has its lock.
struct alignas(64) queue_end {
  std::atomic<std::uint64_t> passed;  ///< a passed_word
  std::array<shared_place, 2> places;
  std::atomic<std::uint64_t> other_items;  ///< of the other end, when this one last looked

  struct view {
    passed_word passed{};
    queue_place place{};
    bool is_known = false;  ///< false: it moved again and again
  };
  /// For those who do not have the lock.
  [[nodiscard]] view look() const noexcept {
    view seen;
    for (int attempt = 0; attempt < 8 && !seen.is_known; ++attempt) {
      seen.passed.word = passed.load(std::memory_order_acquire);  // before the copy is read
      seen.place = places[seen.passed.copy()].load();
      seen.is_known = passed.load(std::memory_order_relaxed) == seen.passed.word;  // after it
    }
    return seen;
  }
};
static_assert(sizeof(queue_end) == 64);

/// The body of a queue's record.
struct queue_body {
  queue_end put;
  // Of those who put.
  struct alignas(64) {
    shared_place get_place;                ///< of the other end, when this one last looked
    std::atomic<std::uint64_t> reserved;   ///< pages before this byte of the segment are allocated
    std::atomic<std::uint64_t> next_unit;  ///< of the extent, for the next new segment
    std::atomic<std::uint64_t> max_items;  ///< never changes; 0: no limit
    std::atomic<std::uint64_t> max_bytes;  ///< likewise
    std::atomic<std::uint32_t> closed;     ///< 1: no more items will come. With the lock of put
  } producers;
  queue_end get;
  struct alignas(64) {
    std::atomic<std::uint64_t> spare;  ///< a segment_number: drained, its pages are still there
    std::atomic<std::uint32_t>
        returns_items;  ///< never changes; 1: those of dead consumers go back
  } both;
};
static_assert(sizeof(queue_body) == object_body_size);
static_assert(offsetof(queue_body, get) == 128);

/// Words of the record that locks and sleepers use. Each end has its own cache line.
struct queue_words {
  object_record* record;

  [[nodiscard]] auto& put_lock() const noexcept { return record->wait_words[0]; }
  /// Consumers that found it empty sleep on it.
  [[nodiscard]] auto& item_word() const noexcept { return record->wait_words[1]; }
  /// join() sleeps on it.
  [[nodiscard]] auto& finished_word() const noexcept { return record->wait_words[2]; }
  [[nodiscard]] auto& get_lock() const noexcept { return record->far_wait_words[0]; }
  /// Producers that found it full sleep on it.
  [[nodiscard]] auto& room_word() const noexcept { return record->far_wait_words[1]; }
};

/// What lies in a segment: a head, then the payload, padded to a multiple of 8 bytes.
enum class record_head_kind : std::uint8_t {
  none,  ///< nothing was written here
  item,
  wrap,  ///< goes on at the beginning of the segment
  jump,  ///< goes on at the beginning of the segment whose number is the payload
};

struct item_head {
  std::uint64_t word = 0;

  [[nodiscard]] static constexpr item_head of(record_head_kind kind,
                                              std::uint64_t length = 0) noexcept {
    return {length | std::uint64_t{static_cast<std::uint8_t>(kind)} << 56U};
  }
  [[nodiscard]] constexpr record_head_kind kind() const noexcept {
    return static_cast<record_head_kind>(word >> 56U);
  }
  [[nodiscard]] constexpr std::uint64_t length() const noexcept {
    return word & ((std::uint64_t{1} << 56U) - 1);
  }
};

/// The room that is always left behind the last item.
inline constexpr std::uint64_t jump_size = 16;
inline constexpr std::uint64_t max_item_size = std::uint64_t{1} << 38U;

/// More items than this have never waited anywhere.
inline constexpr std::uint64_t impossible_count = std::uint64_t{1} << 48U;

/// The bytes that an item takes in a segment.
[[nodiscard]] constexpr std::uint64_t record_size(std::uint64_t length) noexcept {
  return 8 + ((length + 7) & ~std::uint64_t{7});
}

}  // namespace procpool::detail
