// SPDX-License-Identifier: MIT
/// @file
/// Semaphore and BoundedSemaphore: what they have in their records.
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/owner_cells.hpp>

namespace procpool::detail {

/// The greatest value of a Semaphore; above it is the flag of sleepers.
inline constexpr std::uint32_t max_semaphore_value = has_sleepers - 1;
/// The greatest value of a BoundedSemaphore, which has a word for each.
inline constexpr std::uint32_t max_bounded_value = 1U << 20U;

/// A Semaphore is one word: its value, and has_sleepers.
[[nodiscard]] inline std::atomic<std::uint32_t>& semaphore_word(object_record& record) noexcept {
  return record.wait_words[0];
}
[[nodiscard]] inline bool try_acquire_semaphore(object_record& record) noexcept {
  auto& word = semaphore_word(record);
  std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  while ((seen & ~has_sleepers) != 0) {
    if (word.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire,
                                   std::memory_order_relaxed))  // as with a lock
      return true;
  }
  return false;
}
/// @returns false: the time is over
[[nodiscard]] bool acquire_semaphore(object_record& record, const os::deadline& until);
/// @throws std::logic_error: the value would be too great
void release_semaphore(object_record& record, std::uint32_t count);

/// The body of a BoundedSemaphore. A token is a cell: 0, or the process that has it. wait_words[0]
/// counts releases, so that a sleeper misses none.
struct bounded_state {
  cell_state cells;
};

[[nodiscard]] bool acquire_token(object_record& record, const owner_cells& cells,
                                 const os::deadline& until);
[[nodiscard]] bool try_acquire_token(object_record& record, const owner_cells& cells);
/// @throws std::logic_error: no token is taken
void release_token(object_record& record, const owner_cells& cells);
/// How many tokens nobody has who lives.
[[nodiscard]] std::uint32_t free_tokens(const owner_cells& cells) noexcept;

/// @throws std::invalid_argument if the value is above @p most
[[nodiscard]] std::uint32_t checked_semaphore_value(std::uint64_t value, std::uint32_t most);

}  // namespace procpool::detail
