// SPDX-License-Identifier: MIT
/// @file
/// Implements put_turn: finding room for items, in this segment or another one.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/cpu_relax.hpp>
#include <procpool/detail/machine/memory_room.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/queue/queue_waiting.hpp>
#include <procpool/detail/queue/segments.hpp>
#include <procpool/detail/queue/shared_queue.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION put_turn::put_turn(shared_queue& queue, const os::deadline& until, limits which)
    : queue_(queue), body_(queue.body()), limits_(which) {
  locked_ = lock_end(queue.words().put_lock(), until);
  if (!locked_) return;
  try {
    // Relaxed: the lock orders what is written under it.
    if (which == limits::all && body_.producers.closed.load(std::memory_order_relaxed) != 0) {
      throw_queue_closed();
    }
    passed_.word = body_.put.passed.load(std::memory_order_relaxed);
    now_ = body_.put.places[passed_.copy()].load();
    if (!now_.is_valid()) queue_is_damaged(now_.at);
    get_ = body_.producers.get_place.load();
    reserved_ = body_.producers.reserved.load(std::memory_order_relaxed);
    base_ = queue_.windows_->put.of(*queue_.object(), now_.segment);
  } catch (...) {
    release();
    throw;
  }
}

PROCPOOL_FUNCTION put_turn::~put_turn() {
  release();
}

PROCPOOL_FUNCTION void put_turn::release() noexcept {
  if (std::exchange(locked_, false)) release_owner_word(queue_.words().put_lock());
}

PROCPOOL_FUNCTION void put_turn::publish() noexcept {
  if (items_ != 0) {
    const passed_word next = passed_.plus(items_);
    body_.put.places[next.copy()].store(now_);
    body_.put.passed.store(next.word, std::memory_order_release);  // now the items exist
    if (body_.producers.reserved.load(std::memory_order_relaxed) != reserved_) {
      body_.producers.reserved.store(reserved_, std::memory_order_relaxed);  // the lock orders it
    }
  }
  release();
  wake_sleepers(queue_.words().item_word(), items_);
}

PROCPOOL_FUNCTION std::byte* put_turn::add(std::uint64_t length) {
  if (length > max_item_size) too_large_an_item(length);
  const std::uint64_t size = record_size(length);
  if (!locked_ || !is_within_limits(size)) return nullptr;
  if (reserved_ == 0) [[unlikely]]
    leave_large_segment(size);
  if (!fits(size) && !has_room(size)) go_to_another_segment(larger_units(now_.segment, size));
  reserve(now_.at + size + jump_size);
  std::byte* const at = base_ + now_.at;
  write_head(at, item_head::of(record_head_kind::item, length));
  now_.at += size;
  now_.bytes += size;
  ++items_;
  return at + sizeof(item_head);
}

inline void put_turn::write_head(std::byte* at, item_head head) noexcept {
  std::memcpy(at, &head, sizeof head);
}

inline bool put_turn::is_within_limits(std::uint64_t size) {
  // Relaxed: they never change.
  const auto max_items = body_.producers.max_items.load(std::memory_order_relaxed);
  const auto max_bytes = body_.producers.max_bytes.load(std::memory_order_relaxed);
  if ((max_items | max_bytes) == 0 || limits_ == limits::none) return true;
  const std::uint64_t items = passed_.items() + items_;
  const auto within = [&] {
    // Relaxed: under the lock.
    const std::uint64_t waiting = items - body_.put.other_items.load(std::memory_order_relaxed);
    if (waiting == 0) return true;
    if (waiting > impossible_count) queue_is_damaged(now_.at);
    if (max_items != 0 && waiting >= max_items) return false;
    return max_bytes == 0 || now_.bytes - get_.bytes + size <= max_bytes;
  };
  return within() || (look_at_other_end() && within());
}

// Before the end of the segment, or before the first item that has not been taken.
inline bool put_turn::fits(std::uint64_t size) const noexcept {
  const bool in_front = get_.segment == now_.segment && get_.at > now_.at;
  const std::uint64_t end = in_front ? std::min(get_.at, now_.segment.size()) : now_.segment.size();
  return end >= now_.at && size + jump_size <= end - now_.at;
}
inline bool put_turn::fits_at_beginning(std::uint64_t size) const noexcept {
  return get_.segment == now_.segment && get_.at <= now_.at && size + jump_size <= get_.at;
}

// Room in this segment, if need be at its beginning.
inline bool put_turn::has_room(std::uint64_t size) {
  if (!fits_at_beginning(size)) {
    if (!look_at_other_end()) return false;
    if (!fits(size) && !fits_at_beginning(size) && !see_room_coming(size)) return false;
    if (fits(size)) return true;
  }
  reserve(now_.at + jump_size);
  write_head(base_ + now_.at, item_head::of(record_head_kind::wrap));
  now_.at = 0;
  return true;
}

// The ring is full. If consumers take items as fast as they can be copied, there is room sooner
// than another segment could be had, whose memory is in no cache. Waits for 16 KiB, so that the
// ends do not wait for each other at each item, but not for long: a slow consumer holds nobody up.
inline bool put_turn::see_room_coming(std::uint64_t size) noexcept {
  if (!may_spin() || get_.segment != now_.segment) return false;
  constexpr int most_polls = 2000;  // some 20 ns each
  const int most_idle = 400 + static_cast<int>(std::min<std::uint64_t>(size / 64, most_polls));
  const std::uint64_t ring = now_.segment.size();
  const std::uint64_t wanted =
      std::max<std::uint64_t>(size, std::min<std::uint64_t>(ring / 8, 16 << 10));
  std::uint64_t seen = body_.get.passed.load(std::memory_order_relaxed);  // a hint
  for (int poll = 0, idle = 0; poll < most_polls && idle < most_idle; ++poll, ++idle) {
    cpu_relax();
    const std::uint64_t passed = body_.get.passed.load(std::memory_order_relaxed);  // a hint
    if (passed == seen) continue;
    seen = passed;
    idle = 0;
    if (!look_at_other_end()) continue;
    if (get_.segment != now_.segment) return false;
    const std::uint64_t room = (get_.at + ring - now_.at) % ring;
    if ((room == 0 || room >= wanted) && (fits(size) || fits_at_beginning(size))) return true;
  }
  return false;
}

inline bool put_turn::look_at_other_end() noexcept {
  const queue_end::view seen = body_.get.look();
  body_.put.other_items.store(seen.passed.items(), std::memory_order_relaxed);  // under the lock
  if (!seen.is_known) return false;
  get_ = seen.place;
  body_.producers.get_place.store(get_);
  return true;
}

// The pages of an empty queue were given back: it can as well use a small segment again.
inline void put_turn::leave_large_segment(std::uint64_t size) {
  if (now_.at == 0 || now_.segment.size() <= first_segment_size || items_ != 0) return;
  if (!queue_.is_empty()) return;
  const auto units = units_for(size);
  if (units * segment_number::unit < now_.segment.size()) go_to_another_segment(units);
}

inline void put_turn::go_to_another_segment(std::uint64_t units) {
  reserve(now_.at + jump_size);
  const segment_number next = take_segment(units);
  std::byte* const at = base_ + now_.at;
  write_head(at, item_head::of(record_head_kind::jump, sizeof next));
  std::memcpy(at + sizeof(item_head), &next, sizeof next);
  // From here on until publish() a death must leave no false number. Relaxed: under the lock.
  body_.producers.reserved.store(0, std::memory_order_relaxed);
  reserved_ = 0;
  now_ = {next, 0, now_.bytes};
  base_ = queue_.windows_->put.of(*queue_.object(), next);
  // The other end may have been in `next` before, at another time.
  if (!look_at_other_end()) {
    get_.segment = {};
    body_.producers.get_place.store(get_);
  }
}

inline segment_number put_turn::take_segment(std::uint64_t units) {
  auto& word = body_.both.spare;
  if (word.load(std::memory_order_relaxed) != 0) {  // a hint
    // Acquire: the other end has left it.
    const segment_number spare{word.exchange(0, std::memory_order_acquire)};
    const auto next = body_.producers.next_unit.load(std::memory_order_relaxed);  // under the lock
    if (spare.is_valid() && spare != now_.segment && spare.units() <= largest_segment_units) {
      if (spare.units() >= units && half_of(spare.start()) == half_of(next)) return spare;
      discard_extent(*queue_.object(), spare.offset(), spare.size());
    }
  }
  return new_segment(units);
}

// The extent is used from its beginning to its end, half by half. A half is used again when no item
// is left in it.
inline segment_number put_turn::new_segment(std::uint64_t units) {
  constexpr std::uint64_t middle = segment_number::units_in_extent / 2;
  std::uint64_t start =
      body_.producers.next_unit.load(std::memory_order_relaxed);  // under the lock
  const std::size_t half = half_of(start);
  const std::uint64_t end = half == 0 ? middle - 1 : segment_number::units_in_extent;
  if (start < segment_number::first_unit || start > end || units > end - start) {
    const queue_end::view other = body_.get.look();
    if (!other.is_known || half_of(other.place.segment.start()) != half) {
      os::throw_errno("a queue cannot hold more than 1 TiB", ENOSPC);
    }
    start = half == 0 ? middle : segment_number::first_unit;
  }
  body_.producers.next_unit.store(start + units, std::memory_order_relaxed);  // before its use
  return segment_number::of(start, units);
}

// Allocates pages, so that no write fails. In steps: a signal that comes again and again undoes one
// step at most.
inline void put_turn::reserve(std::uint64_t end) {
  if (end <= reserved_) [[likely]]
    return;
  constexpr std::uint64_t least = 256 << 10;
  constexpr std::uint64_t step = 16 << 20;
  const std::uint64_t size = now_.segment.size();
  const std::uint64_t from =
      std::min(std::max(reserved_, now_.at / segment_number::unit * segment_number::unit), size);
  const std::uint64_t to =
      std::min(std::max(units_of(end) * segment_number::unit, from + least), size);
  if (to - from > step) {
    if (const auto room = os::memory_room(); to - from > room) no_memory_for_item(to - from, room);
  }
  for (std::uint64_t at = from; at < to; at += step) {
    const std::uint64_t length = std::min(step, to - at);
    reserve_extent(*queue_.object(), now_.segment.offset() + at, length);
    // It only saves page faults.
    static_cast<void>(os::populate({base_ + at, static_cast<std::size_t>(length)}));
  }
  reserved_ = to;
}

}  // namespace procpool::detail
