// SPDX-License-Identifier: MIT
/// @file
/// Implements semaphore_state.hpp, owner_cells.hpp and event_state.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/bulk/bulk_access.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#include <procpool/detail/sync/event_state.hpp>
#include <procpool/detail/sync/semaphore_state.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION owner_cells::owner_cells(cell_state& state, bulk_ptr bulk) noexcept
    : bulk_(std::move(bulk)), all_(state.few) {
  const std::size_t count = state.count.load(std::memory_order_relaxed);  // written before handles
  if (bulk_ == nullptr) {
    all_ = all_.first(std::min(count, cells_in_record));
  } else {
    all_ = {reinterpret_cast<owner_cell*>(bulk_->data()), bulk_->size() / sizeof(owner_cell)};
  }
}

PROCPOOL_FUNCTION owner_cells make_cells(const object_ref& object, cell_state& state,
                                         std::uint32_t count, const char* what) {
  state.count.store(count, std::memory_order_relaxed);  // before there are handles
  if (count <= cells_in_record) return {state, nullptr};
  reserve_bulk(*object, count * sizeof(owner_cell), what);
  return {state, map_bulk(object, count * sizeof(owner_cell))};
}

PROCPOOL_FUNCTION owner_cells find_cells(const object_ref& object, cell_state& state,
                                         std::uint32_t most) {
  const std::uint32_t count =
      std::min(state.count.load(std::memory_order_relaxed), most);  // written before handles
  if (count <= cells_in_record) return {state, nullptr};
  return {state, map_bulk(object, count * sizeof(owner_cell))};
}

/// Announces that this thread will sleep on the word. @returns what it has to sleep for
inline std::uint32_t announce_sleep(std::atomic<std::uint32_t>& word) noexcept {
  // Sequentially consistent: what is looked at next is looked at after it.
  return word.fetch_or(has_sleepers, std::memory_order_seq_cst) | has_sleepers;
}

/// Wakes up to @p count that sleep on the word. If fewer slept, nobody does any more: then the next
/// change needs no system call. @param now what the word was changed to
inline void wake_and_tidy(std::atomic<std::uint32_t>& word, std::uint32_t now, int count) noexcept {
  if ((now & has_sleepers) == 0 || wake_some(word, count) >= count) return;
  // Who is about to sleep finds another value then, and announces itself again.
  word.compare_exchange_strong(now, now & ~has_sleepers, std::memory_order_relaxed);
}

PROCPOOL_FUNCTION bool acquire_semaphore(object_record& record, const os::deadline& until) {
  auto& word = semaphore_word(record);
  wait_slices slices;
  while (!try_acquire_semaphore(record)) {
    const std::uint32_t seen = announce_sleep(word);
    if ((seen & ~has_sleepers) == 0 && !slices.sleep(word, seen, until)) {
      return try_acquire_semaphore(record);
    }
  }
  return true;
}

PROCPOOL_FUNCTION void release_semaphore(object_record& record, std::uint32_t count) {
  auto& word = semaphore_word(record);
  std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  do {
    if (count > max_semaphore_value - (seen & ~has_sleepers)) {
      throw std::logic_error(
          "a Semaphore cannot be released so often: its value is at most 2^31-1");
    }
  } while (!word.compare_exchange_weak(seen, seen + count, std::memory_order_seq_cst));  // as locks
  wake_and_tidy(word, seen + count, static_cast<int>(count));
}

inline bool acquire_free_token(object_record& record, const owner_cells& cells) {
  const owner_id self = this_owner();
  auto& hint = body_as<bounded_state>(record).cells.hint;
  const std::size_t count = cells.all().size();
  std::size_t at = hint.load(std::memory_order_relaxed);  // a hint
  for (std::size_t look = 0; look < count; ++look, ++at) {
    if (at >= count) at = 0;
    owner_id seen = cells.all()[at].load(std::memory_order_relaxed);  // checked by the exchange
    if (seen != 0) continue;
    // Acquire: what the last owner did is seen. After the announcement of a sleep: see release.
    if (!cells.all()[at].compare_exchange_strong(seen, self, std::memory_order_seq_cst)) continue;
    hint.store(static_cast<std::uint32_t>(at + 1), std::memory_order_relaxed);  // a hint
    return true;
  }
  return false;
}

/// Takes the token of a process that has ended. Asks the system about 64 owners at most.
inline bool take_token_of_dead(const owner_cells& cells, std::size_t& next) {
  const owner_id self = this_owner();
  const auto all = cells.all();
  owner_id alive = self;
  std::size_t asked = 0;
  for (std::size_t look = 0; look < all.size() && asked < 64; ++look) {
    if (next >= all.size()) next = 0;
    owner_cell& cell = all[next++];
    owner_id owner = cell.load(std::memory_order_relaxed);  // checked by the exchange
    if (owner == 0 || owner == self || owner == alive) continue;
    ++asked;
    if (!owner_is_dead(owner)) {
      alive = owner;
    } else if (cell.compare_exchange_strong(owner, self, std::memory_order_seq_cst)) {  // take it
      return true;
    }
  }
  return false;
}

PROCPOOL_FUNCTION bool try_acquire_token(object_record& record, const owner_cells& cells) {
  if (acquire_free_token(record, cells)) return true;
  std::size_t next = record.wait_words[0].load(std::memory_order_relaxed);  // anywhere
  return may_ask_system() && take_token_of_dead(cells, next);
}

PROCPOOL_FUNCTION bool acquire_token(object_record& record, const owner_cells& cells,
                                     const os::deadline& until) {
  if (acquire_free_token(record, cells)) return true;
  if (until && *until <= std::chrono::steady_clock::now()) return try_acquire_token(record, cells);
  auto& word = record.wait_words[0];
  wait_slices slices;
  std::size_t next = 0;
  while (true) {
    const std::uint32_t seen = announce_sleep(word);
    if (acquire_free_token(record, cells) || take_token_of_dead(cells, next)) return true;
    if (!slices.sleep(word, seen, until)) return false;
  }
}

PROCPOOL_FUNCTION void release_token(object_record& record, const owner_cells& cells) {
  const owner_id self = this_owner();
  const auto all = cells.all();
  auto& hint = body_as<bounded_state>(record).cells.hint;
  // The one that was taken last, likely. An own token if there is one, else anybody's.
  for (const bool own : {true, false}) {
    std::size_t at = hint.load(std::memory_order_relaxed);  // a hint
    for (std::size_t look = 0; look < all.size(); ++look) {
      at = at == 0 || at > all.size() ? all.size() - 1 : at - 1;
      owner_id owner = all[at].load(std::memory_order_relaxed);  // checked by the exchange
      if (owner == 0 || (own && owner != self)) continue;
      if (!all[at].compare_exchange_strong(owner, 0, std::memory_order_seq_cst)) continue;  // give
      hint.store(static_cast<std::uint32_t>(at), std::memory_order_relaxed);  // a hint
      auto& word = record.wait_words[0];
      std::uint32_t seen = word.load(std::memory_order_seq_cst);  // after the token is free
      if ((seen & has_sleepers) == 0) return;
      const std::uint32_t now = (seen + 1) | has_sleepers;
      if (word.compare_exchange_strong(seen, now, std::memory_order_seq_cst)) {
        wake_and_tidy(word, now, 1);
      } else {
        wake_some(word, 1);  // another release has changed it
      }
      return;
    }
  }
  throw std::logic_error("a BoundedSemaphore is released more often than it was acquired");
}

PROCPOOL_FUNCTION std::uint32_t free_tokens(const owner_cells& cells) noexcept {
  return static_cast<std::uint32_t>(std::ranges::count_if(cells.all(), [](const owner_cell& cell) {
    const owner_id owner = cell.load(std::memory_order_relaxed);  // a snapshot
    return owner == 0 || owner_is_known_dead(owner);
  }));
}

PROCPOOL_FUNCTION std::uint32_t checked_semaphore_value(std::uint64_t value, std::uint32_t most) {
  if (value > most) {
    throw std::invalid_argument(concat({"the value of a semaphore is at most ", most}));
  }
  return static_cast<std::uint32_t>(value);
}

PROCPOOL_FUNCTION void set_event(object_record& record) noexcept {
  auto& word = record.wait_words[0];
  std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  std::uint32_t now = 0;
  do {
    if ((seen & 1U) != 0) return;
    now = ((seen + 2) | 1U) & ~has_sleepers;                                    // all are woken
  } while (!word.compare_exchange_weak(seen, now, std::memory_order_seq_cst));  // publishes
  if ((seen & has_sleepers) != 0) wake_all(word);
}

PROCPOOL_FUNCTION void clear_event(object_record& record) noexcept {
  record.wait_words[0].fetch_and(~1U, std::memory_order_seq_cst);  // as set_event
}

PROCPOOL_FUNCTION bool wait_for_event(object_record& record, const os::deadline& until) {
  auto& word = record.wait_words[0];
  constexpr std::uint32_t count_bits = ~(has_sleepers | 1U);
  // Acquire, here and below: with what was written before set().
  std::uint32_t seen = word.load(std::memory_order_acquire);
  const std::uint32_t count = seen & count_bits;
  wait_slices slices;
  while ((seen & 1U) == 0 && (seen & count_bits) == count) {
    const bool announced =
        (seen & has_sleepers) != 0 ||
        word.compare_exchange_strong(seen, seen | has_sleepers, std::memory_order_relaxed);
    if (announced && !slices.sleep(word, seen | has_sleepers, until)) return false;
    seen = word.load(std::memory_order_acquire);
  }
  return true;
}

}  // namespace procpool::detail
