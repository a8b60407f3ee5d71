// SPDX-License-Identifier: MIT
/// @file
/// Implements unfinished.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <procpool/config.hpp>
#include <procpool/detail/queue/pending_items.hpp>
#include <procpool/detail/queue/queue_waiting.hpp>
#include <procpool/detail/queue/unfinished.hpp>

namespace procpool::detail {

/// The contents of unfinished_of_process::word.
struct unfinished_word {
  owner_id owner = 0;
  std::uint32_t items = 0;

  [[nodiscard]] constexpr std::uint64_t word() const noexcept {
    return std::uint64_t{owner} << 32U | items;
  }
  [[nodiscard]] static constexpr unfinished_word of(std::uint64_t word) noexcept {
    return {static_cast<owner_id>(word >> 32U), static_cast<std::uint32_t>(word)};
  }
};

PROCPOOL_FUNCTION unfinished_items::unfinished_items(shared_queue& queue, bool is_new)
    : queue_(queue) {
  static_assert(bytes <= segment_number::first_unit * segment_number::unit);
  if (queue.returns_items()) {
    pending_ = std::make_unique<pending_items>();
    queue.call_when_idle(
        [](void* self) { return static_cast<unfinished_items*>(self)->give_back(); }, this);
  }
  if (is_new) reserve_extent(*queue.object(), 0, bytes);
  mapping_ = extent_mapping(*queue.object(), 0, bytes, extent_access::read_write);
}

PROCPOOL_FUNCTION unfinished_items::~unfinished_items() {
  if (pending_ == nullptr || !queue_.is_last_user()) return;
  for (std::size_t slot = 0; slot < max_processes; ++slot) {
    pending_items::release(queue_.object(), of(slot).copies);
  }
}

inline unfinished_of_process& unfinished_items::of(std::size_t slot) const noexcept {
  return reinterpret_cast<unfinished_of_process*>(mapping_.bytes().data())[slot];
}

PROCPOOL_FUNCTION void unfinished_items::add(std::uint64_t items) {
  const owner_id self = this_owner();
  auto& word = of(slot_of(self)).word;
  std::uint64_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  unfinished_word next;
  do {
    next = unfinished_word::of(seen);
    if (next.owner != self) next = {self, 0};  // of a process that has ended, see keep()
    next.items += static_cast<std::uint32_t>(items);
    // Sequentially consistent: before the items are taken, see anything().
  } while (!word.compare_exchange_weak(seen, next.word(), std::memory_order_seq_cst));
}

PROCPOOL_FUNCTION void unfinished_items::keep(std::span<const std::byte> item) {
  if (pending_ == nullptr) return;
  const owner_id self = this_owner();
  unfinished_of_process& mine = of(slot_of(self));
  // Relaxed: only this process changes its word, or nobody.
  const auto of_process = unfinished_word::of(mine.word.load(std::memory_order_relaxed));
  if (of_process.owner != self) {
    pending_items::give_back(queue_, mine.copies);
    mine.word.store(unfinished_word{self, 0}.word(), std::memory_order_relaxed);
  }
  pending_->keep(item, mine.copies, self);
}

// One item less. First the copy: if this process is killed in between, its number no longer counts.
inline void unfinished_items::drop_copy(std::size_t slot) {
  if (pending_ == nullptr) return;
  pending_items::drop_one(queue_.object(), of(slot).copies);
}

// @param only_of 0: whoever it is
inline bool unfinished_items::take_one(std::size_t slot, owner_id only_of) noexcept {
  auto& word = of(slot).word;
  std::uint64_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  while (true) {
    unfinished_word next = unfinished_word::of(seen);
    if (next.items == 0 || (only_of != 0 && next.owner != only_of)) return false;
    --next.items;
    // Sequentially consistent: as in add(). What was done for the item is seen by who waits for it.
    if (!word.compare_exchange_weak(seen, next.word(), std::memory_order_seq_cst)) continue;
    if (next.items == 0) wake_sleepers(queue_.words().finished_word(), INT_MAX);
    return true;
  }
}

PROCPOOL_FUNCTION bool unfinished_items::finish_one() {
  const owner_id self = this_owner();
  if (finish_one_of(slot_of(self), self)) return true;
  for (std::size_t slot = 0; slot < max_processes; ++slot) {
    if (finish_one_of(slot, 0)) return true;
  }
  return false;
}

inline bool unfinished_items::finish_one_of(std::size_t slot, owner_id only_of) {
  if (pending_ == nullptr) return take_one(slot, only_of);
  // Relaxed: it is looked at again.
  const auto seen = unfinished_word::of(of(slot).word.load(std::memory_order_relaxed));
  if (seen.items == 0 || (only_of != 0 && seen.owner != only_of)) return false;
  drop_copy(slot);
  return take_one(slot, only_of);
}

// What dead processes had taken and not finished goes back. @returns whether there was something
PROCPOOL_FUNCTION bool unfinished_items::give_back() {
  for (std::size_t slot = 0; slot < max_processes; ++slot)
    static_cast<void>(has_living_owner(slot));
  return !queue_.is_empty();
}

inline bool unfinished_items::has_living_owner(std::size_t slot) {
  auto& word = of(slot).word;
  std::uint64_t seen = word.load(std::memory_order_seq_cst);  // after the ends: see anything()
  const unfinished_word of_process = unfinished_word::of(seen);
  if (of_process.items == 0) return false;
  if (of_process.owner == this_owner() || !owner_is_dead(of_process.owner)) return true;
  if (pending_ != nullptr) pending_items::give_back(queue_, of(slot).copies);
  word.compare_exchange_strong(seen, unfinished_word{of_process.owner, 0}.word(),
                               std::memory_order_relaxed);  // others need not ask the system
  return false;
}

// If nothing is in the queue, nothing is added to the words unless something was put meanwhile.
inline bool unfinished_items::anything() {
  constexpr int most_looks = 100;
  for (int look = 0; look < most_looks; ++look) {
    if (!queue_.is_empty()) return true;
    const std::uint64_t put = queue_.put_count();
    if (!queue_.is_empty()) return true;
    for (std::size_t slot = 0; slot < max_processes; ++slot) {
      if (has_living_owner(slot)) return true;
    }
    if (queue_.put_count() == put) return false;
  }
  return true;  // much is going on
}

PROCPOOL_FUNCTION bool unfinished_items::wait(const os::deadline& until) {
  wait_slices slices;
  const auto ready = [this] { return !anything(); };
  while (!ready()) {
    if (!sleep_unless(queue_.words().finished_word(), slices, until, ready)) return ready();
  }
  return true;
}

}  // namespace procpool::detail
