// SPDX-License-Identifier: MIT
/// @file
/// The segments of a queue: their sizes, their mappings, and what can be wrong with them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/queue/queue_layout.hpp>
#include <procpool/detail/queue/shared_queue.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// A queue begins with this many bytes, and returns to them.
inline constexpr std::uint64_t first_segment_size = 64 << 10;
/// Segments grow up to this size; only larger items get larger ones. Many items that wait are in
/// many segments, each of which is given back as soon as it is drained.
inline constexpr std::uint64_t largest_segment_size = 4 << 20;
inline constexpr std::uint64_t largest_segment_units = largest_segment_size / segment_number::unit;

[[nodiscard]] constexpr std::uint64_t units_of(std::uint64_t bytes) noexcept {
  return (bytes + segment_number::unit - 1) / segment_number::unit;
}
/// Room for two records of this size: one is written while the other one is read.
[[nodiscard]] constexpr std::uint64_t units_for(std::uint64_t record) noexcept {
  return std::max<std::uint64_t>(units_of(2 * (record + jump_size)),
                                 first_segment_size / segment_number::unit);
}
/// The size of the segment after @p segment, which was too small.
[[nodiscard]] constexpr std::uint64_t larger_units(segment_number segment,
                                                   std::uint64_t record) noexcept {
  constexpr std::uint64_t factor = 4;
  return std::max(units_for(record), std::min(factor * segment.units(), largest_segment_units));
}
[[nodiscard]] constexpr std::size_t half_of(std::uint64_t unit) noexcept {
  return unit < segment_number::units_in_extent / 2 ? 0 : 1;
}

[[noreturn, gnu::cold]] inline void queue_is_damaged(std::uint64_t at) {
  throw DecodeError("the memory of a queue makes no sense: another process has written into it",
                    at);
}
[[noreturn, gnu::cold]] inline void throw_queue_closed() {
  throw QueueClosed("nothing can be put into a queue that is closed");
}
[[noreturn, gnu::cold]] inline void too_large_an_item(std::uint64_t length) {
  os::throw_errno(concat({"an item of ", length, " bytes is too large for a queue"}), EFBIG);
}
[[noreturn, gnu::cold]] inline void no_memory_for_item(std::uint64_t bytes, std::uint64_t room) {
  os::throw_errno(concat({"cannot reserve ", bytes, " bytes for an item of a queue: ", room,
                          " bytes are available"}),
                  ENOMEM);
}

PROCPOOL_FUNCTION void segment_window::forget() noexcept {
  // Zero in between: a child forked by another thread now has neither of the two.
  const segment_number old{mapped_.exchange(0, std::memory_order_relaxed)};
  if (old.word != 0) shared_heap::unmap(base_, old.size());
}

PROCPOOL_FUNCTION std::byte* segment_window::map(const held_object& object,
                                                 segment_number segment) {
  forget();
  // Not zero: the pages are freed with the object. Relaxed: read when nobody else has it.
  object.record().data_size.store(1, std::memory_order_relaxed);
  base_ = object.heap()->map(heap_places::extent_at(object.number()) + segment.offset(),
                             segment.size(), PROT_READ | PROT_WRITE);
  mapped_.store(segment.word, std::memory_order_release);  // after base_, also for a child
  return base_;
}

}  // namespace procpool::detail
