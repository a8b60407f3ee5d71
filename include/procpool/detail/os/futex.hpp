// SPDX-License-Identifier: MIT
/// @file
/// Sleeping on a word of shared memory (futex(2)). Not FUTEX_PRIVATE_FLAG: sleeper and waker may be
/// different processes.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail::os {

/// Sleeps while @p word holds @p expected, until @p until. Returns at a wake-up, at a signal, or at
/// once if the value differs; the caller checks again. The mapping may be read-only.
inline void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       deadline until = std::nullopt) noexcept {
  timespec left{};
  if (until) left = time_left(*until);
  PROCPOOL_SYSTEM(
      syscall(SYS_futex, &word, FUTEX_WAIT, expected, until ? &left : nullptr, nullptr, 0));
}

/// Wakes one sleeper on @p word, in any process.
inline void futex_wake(std::atomic<std::uint32_t>& word) noexcept {
  PROCPOOL_SYSTEM(syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0));
}

}  // namespace procpool::detail::os
