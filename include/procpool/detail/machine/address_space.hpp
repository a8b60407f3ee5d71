// SPDX-License-Identifier: MIT
/// @file
/// How much address space this process may still map (RLIMIT_AS, `ulimit -v`).
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <limits>

#include <procpool/config.hpp>
#include <procpool/detail/machine/cpu.hpp>

namespace procpool::detail::os {

inline constexpr std::uint64_t unlimited_space = std::numeric_limits<std::uint64_t>::max();

/// In bytes; half of the limit if the current use is unknown.
inline std::uint64_t address_space_left() {
  rlimit limit{};
  if (PROCPOOL_SYSTEM(getrlimit(RLIMIT_AS, &limit)) != 0) return unlimited_space;
  if (limit.rlim_cur == RLIM_INFINITY) return unlimited_space;
  const std::int64_t pages = leading_number(read_small_file("/proc/self/statm"));  // proc(5)
  const long page = PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE));
  if (pages <= 0 || page <= 0) return limit.rlim_cur / 2;
  const std::uint64_t used = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
  return used < limit.rlim_cur ? limit.rlim_cur - used : 0;
}

}  // namespace procpool::detail::os
