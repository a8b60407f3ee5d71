// SPDX-License-Identifier: MIT
/// @file
/// Implements owner_lock.hpp: sleeping, waking, and finding out that an owner has died.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/base/cpu_relax.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/os/futex.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION owner_id this_owner() {
  static heap_process& process = heap_process::instance();
  return process.owner();
}

PROCPOOL_FUNCTION bool owner_is_dead(owner_id owner) noexcept {
  static heap_process& process = heap_process::instance();
  const auto heap = process.heap_if_any();
  if (heap == nullptr) return false;
  return slot_access(heap->control(), slot_of(owner)).has_ended(owner & ~has_sleepers);
}

PROCPOOL_FUNCTION bool owner_is_known_dead(owner_id owner) noexcept {
  static heap_process& process = heap_process::instance();
  const auto heap = process.heap_if_any();
  if (heap == nullptr) return false;
  const slot_state now = slot_access(heap->control(), slot_of(owner)).state();
  if (now.generation != generation_of(owner)) return true;
  return now.phase != slot_phase::live && now.phase != slot_phase::reserved;
}

PROCPOOL_FUNCTION bool wait_slices::sleep(std::atomic<std::uint32_t>& word, std::uint32_t expected,
                                          const os::deadline& until) {
  constexpr std::chrono::microseconds longest{50'000};
  const auto now = std::chrono::steady_clock::now();
  if (until && now >= *until) return false;
  const auto end = until ? std::min(*until, now + next_) : now + next_;
  next_ = std::min(2 * next_, longest);
  os::futex_wait(word, expected, end);
  return true;
}

PROCPOOL_FUNCTION int wake_some(std::atomic<std::uint32_t>& word, int count) noexcept {
  return static_cast<int>(
      PROCPOOL_SYSTEM(syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0)));
}
PROCPOOL_FUNCTION void wake_all(std::atomic<std::uint32_t>& word) noexcept {
  wake_some(word, INT_MAX);
}

/// Polls a lock for a moment before it sleeps; not where one CPU runs everything.
inline bool poll_owner_word(std::atomic<std::uint32_t>& word, owner_id self) {
  static const bool may_spin = os::usable_cpus() > 1;
  constexpr int looks = 100;
  for (int look = 0; may_spin && look < looks; ++look) {
    const std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
    if ((seen & has_sleepers) != 0) return false;                     // behind them
    if (seen == 0 && try_acquire_owner_word(word, self)) return true;
    cpu_relax();
  }
  return false;
}

PROCPOOL_FUNCTION acquired wait_for_owner_word(std::atomic<std::uint32_t>& word, owner_id self,
                                               const os::deadline& until) {
  if (poll_owner_word(word, self)) return acquired::yes;
  wait_slices slices;
  owner_id mine = self;
  while (true) {
    // Acquire where the word is taken: what the last owner wrote is seen.
    std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchanges
    const bool dead = seen != 0 && mine != self && owner_is_dead(seen);
    if (seen == 0 || dead) {
      if (!word.compare_exchange_strong(seen, dead ? mine | has_sleepers : mine,
                                        std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      return dead ? acquired::from_dead_owner : acquired::yes;
    }
    if ((seen & has_sleepers) == 0 &&
        !word.compare_exchange_strong(seen, seen | has_sleepers, std::memory_order_relaxed))
      continue;  // announce the sleep
    if (!slices.sleep(word, seen | has_sleepers, until)) return acquired::no;
    mine = self | has_sleepers;  // others may sleep still: whoever wakes takes their flag over
  }
}

/// Whether it is time to ask the system about an owner again. One clock for all locks of a process.
inline bool may_ask_system() noexcept {
  static std::atomic<std::int64_t> next{0};  // ns of the steady clock
  constexpr std::int64_t pause = 1'000'000;
  const std::int64_t now = os::time_point::clock::now().time_since_epoch().count();
  if (now < next.load(std::memory_order_relaxed)) return false;  // a hint
  next.store(now + pause, std::memory_order_relaxed);            // likewise
  return true;
}

PROCPOOL_FUNCTION bool take_from_dead_owner(std::atomic<std::uint32_t>& word,
                                            owner_id self) noexcept {
  std::uint32_t seen = word.load(std::memory_order_relaxed);  // checked by the exchange
  const owner_id owner = seen & ~has_sleepers;
  if (owner == 0 || owner == self) return false;
  if (!owner_is_known_dead(owner) && !(may_ask_system() && owner_is_dead(owner))) return false;
  return word.compare_exchange_strong(seen, self | has_sleepers,  // some may sleep for it
                                      std::memory_order_acquire, std::memory_order_relaxed);
}

PROCPOOL_FUNCTION void process_was_reaped(std::int32_t pid) noexcept {
  heap_process::instance().reaped(pid);
}

PROCPOOL_FUNCTION void collect_dead_processes(bool look) noexcept {
  heap_process::instance().collect(look);
}

}  // namespace procpool::detail
