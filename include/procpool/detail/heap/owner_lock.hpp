// SPDX-License-Identifier: MIT
/// @file
/// Locks and sleeps in the shared heap that survive the death of any process.
///
/// A lock is one word: the owner_id of the process that has it, or 0, and has_sleepers. One
/// compare-exchange takes it, one exchange gives it back: a process killed before has changed
/// nothing, a process killed after has done it. Nobody waits for a wake-up alone: each sleep ends
/// after a slice, and the sleeper looks whether the owner still lives. So a lost wake-up costs a
/// slice, whoever died (see docs/design/shared_objects.md).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail {

/// This process in the shared heap. The first call of a process enters it into the table of
/// processes. @throws ProcessError when the table is full or there is no heap
[[nodiscard]] owner_id this_owner();

/// Whether the process has ended. Makes system calls. An identity that is none counts as ended.
[[nodiscard]] bool owner_is_dead(owner_id owner) noexcept;

/// Whether it is known already that the process has ended. Makes no system call; false in doubt.
[[nodiscard]] bool owner_is_known_dead(owner_id owner) noexcept;

/// The length of the next sleep: 1 ms, doubling to 50 ms.
class wait_slices {
 public:
  /// Sleeps while @p word holds @p expected, for one slice, at most until @p until.
  /// @returns false: @p until has passed
  bool sleep(std::atomic<std::uint32_t>& word, std::uint32_t expected, const os::deadline& until);

 private:
  std::chrono::microseconds next_{1000};
};

/// Wakes all that sleep on @p word, in every process.
void wake_all(std::atomic<std::uint32_t>& word) noexcept;
/// Wakes up to @p count of them. @returns how many slept
int wake_some(std::atomic<std::uint32_t>& word, int count) noexcept;

/// The result of acquiring a lock.
enum class acquired : std::uint8_t { no, yes, from_dead_owner };

/// acquire_owner_word() when the word is not free. @param until nullopt: no limit
[[nodiscard]] acquired wait_for_owner_word(std::atomic<std::uint32_t>& word, owner_id self,
                                           const os::deadline& until);

/// Takes the lock. from_dead_owner: its owner died with it, and what it guards may be half-done.
[[nodiscard]] inline acquired acquire_owner_word(std::atomic<std::uint32_t>& word, owner_id self,
                                                 const os::deadline& until = std::nullopt) {
  std::uint32_t expected = 0;
  if (word.compare_exchange_strong(expected, self, std::memory_order_acquire,
                                   std::memory_order_relaxed))  // take; nothing is read on failure
    return acquired::yes;
  return wait_for_owner_word(word, self, until);
}

[[nodiscard]] inline bool try_acquire_owner_word(std::atomic<std::uint32_t>& word,
                                                 owner_id self) noexcept {
  std::uint32_t expected = 0;
  return word.compare_exchange_strong(expected, self, std::memory_order_acquire,
                                      std::memory_order_relaxed);  // as above
}

/// Takes the lock if its owner has died. Asks the system about the owner at most once a
/// millisecond, so a thread that tries again and again does not pay for it each time.
[[nodiscard]] bool take_from_dead_owner(std::atomic<std::uint32_t>& word, owner_id self) noexcept;

/// Gives the lock back and wakes one that sleeps for it.
inline void release_owner_word(std::atomic<std::uint32_t>& word) noexcept {
  const std::uint32_t before = word.exchange(0, std::memory_order_seq_cst);  // gives; a full fence
  if ((before & has_sleepers) != 0) wake_some(word, 1);
}

/// Tells the heap of this process, if there is one, that a child was reaped: those that wait for
/// something it owned look at once. @param pid as seen by this process
void process_was_reaped(std::int32_t pid) noexcept;

/// Removes the name of ended processes from all records, and frees objects that nobody holds any
/// more. @param look whether to ask the system about processes that nobody has reported
void collect_dead_processes(bool look = true) noexcept;

}  // namespace procpool::detail
