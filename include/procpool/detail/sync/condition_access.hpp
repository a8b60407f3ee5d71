// SPDX-License-Identifier: MIT
/// @file
/// Implements condition_state.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/bulk/bulk_access.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#include <procpool/detail/sync/condition_state.hpp>
#include <procpool/detail/sync/lock_access.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

inline constexpr std::uint32_t cells_of_page = 4096 / sizeof(waiter_cell);

PROCPOOL_FUNCTION bulk_ptr make_waiter_cells(object_ref condition) {
  reserve_bulk(*condition, cells_of_page * sizeof(waiter_cell), "a Condition");
  return find_waiter_cells(std::move(condition));
}
PROCPOOL_FUNCTION bulk_ptr find_waiter_cells(object_ref condition) {
  return map_bulk(std::move(condition), max_waiters * sizeof(waiter_cell));
}

PROCPOOL_FUNCTION void condition_access::require_lock(const char* what) const {
  if (!lock_.is_owned()) throw std::logic_error(what);
}

PROCPOOL_FUNCTION std::uint32_t condition_access::cell_end() const noexcept {
  // Acquire: cells before it were claimed by owners of the lock; passers do not have it.
  return std::min(state().cell_end.load(std::memory_order_acquire), max_waiters);
}

// Only the owner of the lock claims cells. A process killed in between leaves a cell that has an
// owner and is not `waiting`.
PROCPOOL_FUNCTION waiter_cell& condition_access::claim(owner_id self) {
  waiter_cell* cell = nullptr;
  while (!claim_used(self, cell)) grow();
  // Relaxed, both: published by the state.
  const std::uint64_t ticket = state().next_ticket.fetch_add(1, std::memory_order_relaxed);
  cell->ticket.store(ticket, std::memory_order_relaxed);
  cell->state.store(waiter_cell::waiting, std::memory_order_release);
  return *cell;
}

PROCPOOL_FUNCTION bool condition_access::claim_used(owner_id self,
                                                    waiter_cell*& cell) const noexcept {
  const std::uint32_t end = cell_end();
  for (std::uint32_t i = 0; i < end; ++i) {
    owner_id owner = 0;
    cell = &cells_[i];
    if (cell->owner.load(std::memory_order_relaxed) == 0 &&  // checked by the exchange
        cell->owner.compare_exchange_strong(owner, self, std::memory_order_acquire))
      return true;  // after its last use
  }
  for (std::uint32_t i = 0; i < end; ++i) {  // those of the dead, unless their mark is to be passed
    cell = &cells_[i];
    owner_id owner = cell->owner.load(std::memory_order_relaxed);  // checked by the exchange
    std::uint32_t seen = cell->state.load(std::memory_order_relaxed);
    if (seen == waiter_cell::marked || !owner_is_known_dead(owner)) continue;
    if (seen == waiter_cell::waiting &&
        !cell->state.compare_exchange_strong(seen, 0, std::memory_order_relaxed))
      continue;  // a passer was faster
    if (cell->owner.compare_exchange_strong(owner, self, std::memory_order_acquire)) return true;
  }
  return false;
}

PROCPOOL_FUNCTION void condition_access::grow() {
  const std::uint32_t end = cell_end();
  if (end == max_waiters) {
    throw ProcessError("4096 threads wait on a Condition already",
                       std::make_error_code(std::errc::resource_unavailable_try_again));
  }
  if (end != 0 && end % cells_of_page == 0) {
    const std::uint64_t page = cells_of_page * sizeof(waiter_cell);
    reserve_extent(*object_, end / cells_of_page * page, page);
  }
  state().cell_end.store(end + 1, std::memory_order_release);  // see cell_end()
}

PROCPOOL_FUNCTION bool condition_access::wait(const os::deadline& until) {
  require_lock("a thread waits on a Condition that does not have its lock");
  waiter_cell& cell = claim(this_owner());
  const std::uint32_t depth = lock_.release_all();
  const bool marked = sleep(cell, until);
  lock_.acquire_again(depth);
  // Only now: if this process had been killed before, its mark would have been passed on.
  if (marked) {
    cell.state.store(0, std::memory_order_relaxed);  // before the owner
    cell.owner.store(0, std::memory_order_release);
  }
  return marked;
}

// @returns false: the time is over, and the cell is free
PROCPOOL_FUNCTION bool condition_access::sleep(waiter_cell& cell, const os::deadline& until) {
  wait_slices slices;
  // Relaxed: the lock orders what was written before the notification.
  while (cell.state.load(std::memory_order_relaxed) == waiter_cell::waiting) {
    if (slices.sleep(cell.state, waiter_cell::waiting, until)) {
      if (cell.state.load(std::memory_order_relaxed) == waiter_cell::waiting) pass_marks_on();
      continue;
    }
    std::uint32_t seen = waiter_cell::waiting;
    if (cell.state.compare_exchange_strong(seen, 0, std::memory_order_relaxed)) {
      cell.owner.store(0, std::memory_order_release);
      return false;
    }
  }
  return true;
}

PROCPOOL_FUNCTION waiter_cell* condition_access::oldest_waiting() const noexcept {
  waiter_cell* oldest = nullptr;
  std::uint64_t first = std::numeric_limits<std::uint64_t>::max();
  const std::uint32_t end = cell_end();
  for (std::uint32_t i = 0; i < end; ++i) {
    waiter_cell& cell = cells_[i];
    // Acquire: its ticket is that of this wait.
    if (cell.state.load(std::memory_order_acquire) != waiter_cell::waiting) continue;
    const std::uint64_t ticket = cell.ticket.load(std::memory_order_relaxed);  // see above
    if (ticket >= first) continue;
    first = ticket;
    oldest = &cell;
  }
  return oldest;
}

// @returns whether a living process was notified; if it is not known to be dead, it counts as alive
PROCPOOL_FUNCTION bool condition_access::mark(waiter_cell& cell) noexcept {
  std::uint32_t seen = waiter_cell::waiting;
  owner_id owner = cell.owner.load(std::memory_order_relaxed);  // of a cell that waits
  if (owner_is_known_dead(owner)) {
    if (cell.state.compare_exchange_strong(seen, 0, std::memory_order_relaxed)) {
      cell.owner.compare_exchange_strong(owner, 0, std::memory_order_release);
    }
    return false;
  }
  if (!cell.state.compare_exchange_strong(seen, waiter_cell::marked, std::memory_order_seq_cst))
    return false;  // its time was over
  wake_all(cell.state);
  return true;
}

PROCPOOL_FUNCTION void condition_access::notify(std::uint64_t count) {
  require_lock("a thread notifies a Condition that does not have its lock");
  // Ends: each turn takes a cell out of `waiting`, and none is added without the lock. Hostile
  // processes may add some, so the turns are limited.
  for (std::uint32_t turn = 0; count != 0 && turn < max_waiters; ++turn) {
    waiter_cell* const oldest = oldest_waiting();
    if (oldest == nullptr) return;
    if (mark(*oldest)) --count;
  }
}

PROCPOOL_FUNCTION std::uint32_t condition_access::waiting() const noexcept {
  std::uint32_t count = 0;
  const std::uint32_t end = cell_end();
  for (std::uint32_t i = 0; i < end; ++i) {
    const bool waits = cells_[i].state.load(std::memory_order_relaxed) == waiter_cell::waiting;
    if (waits && !owner_is_known_dead(cells_[i].owner.load(std::memory_order_relaxed)))
      ++count;  // a snapshot
  }
  return count;
}

PROCPOOL_FUNCTION void condition_access::pass_marks_on() {
  const std::uint32_t end = cell_end();
  for (std::uint32_t i = 0; i < end; ++i) {
    waiter_cell& cell = cells_[i];
    if (cell.state.load(std::memory_order_relaxed) != waiter_cell::marked) continue;  // see pass_on
    const owner_id owner = cell.owner.load(std::memory_order_relaxed);
    if (owner != 0 && owner_is_dead(owner)) pass_on(cell, owner);
  }
}

// One passer at a time, so that a mark is passed to one only. It marks first and then takes the old
// mark away: killed in between, it leaves one mark too many, and never one too few.
PROCPOOL_FUNCTION void condition_access::pass_on(waiter_cell& dead, owner_id owner) {
  auto& passing = record_->wait_words[1];
  const owner_id self = this_owner();
  if (!try_acquire_owner_word(passing, self) && !take_from_dead_owner(passing, self)) {
    return;  // another one is at it; this thread looks again after its next slice
  }
  // Acquire, both: with what the last passer has done.
  if (dead.state.load(std::memory_order_acquire) == waiter_cell::marked &&
      dead.owner.load(std::memory_order_acquire) == owner) {
    for (std::uint32_t turn = 0; turn < max_waiters; ++turn) {
      waiter_cell* const oldest = oldest_waiting();
      if (oldest == nullptr || mark(*oldest)) break;
    }
    dead.state.store(0, std::memory_order_relaxed);  // before the owner
    owner_id expected = owner;
    dead.owner.compare_exchange_strong(expected, 0, std::memory_order_release);
  }
  release_owner_word(passing);
}

}  // namespace procpool::detail
