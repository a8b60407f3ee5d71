// SPDX-License-Identifier: MIT
/// @file
/// How many CPUs this process may use: its affinity mask and the quota of its control groups.
#pragma once

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/machine/cpu_count.hpp>
#include <procpool/detail/machine/cpu_quota.hpp>
#include <procpool/detail/machine/small_file.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// A set of CPUs, one bit each, 64 per word, in the kernel's format.
using cpu_mask = std::vector<std::uint64_t>;

/// The affinity mask of the calling thread (sched_getaffinity(2)); empty on failure, with errno.
inline cpu_mask affinity_mask() {
  // The kernel refuses a mask smaller than its own and does not report the size.
  for (std::size_t words = 16; words <= 16384; words *= 2) {
    cpu_mask mask(words);
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    if (PROCPOOL_SYSTEM(sched_getaffinity(0, words * sizeof mask[0], set)) == 0) return mask;
  }
  return {};
}

/// Restricts the calling thread to these CPUs (sched_setaffinity(2)); false on failure, with errno.
/// Threads and processes that it creates later inherit the mask.
inline bool set_affinity(const cpu_mask& mask) noexcept {
  const auto* set = reinterpret_cast<const cpu_set_t*>(mask.data());
  return PROCPOOL_SYSTEM(sched_setaffinity(0, mask.size() * sizeof mask[0], set)) == 0;
}

inline int count_cpus(const cpu_mask& mask) noexcept {
  int cpus = 0;
  for (const auto word : mask) cpus += std::popcount(word);
  return cpus;
}

/// The CPU number @p index of @p mask, counted from 0 and wrapping around at the last one.
/// Precondition: the mask is not empty.
inline cpu_mask one_cpu_of(const cpu_mask& mask, std::uint32_t index) {
  auto to_skip = index % static_cast<std::uint32_t>(count_cpus(mask));
  cpu_mask one(mask.size());
  for (std::size_t word = 0; word < mask.size(); ++word) {
    for (std::uint64_t left = mask[word]; left != 0; left &= left - 1) {
      if (to_skip-- != 0) continue;
      one[word] = left & ~(left - 1);  // the lowest bit
      return one;
    }
  }
  return one;
}

/// The number of CPUs in the affinity mask of the calling thread.
inline int affinity_cpus() {
  const cpu_mask mask = affinity_mask();
  if (!mask.empty()) return count_cpus(mask);
  return static_cast<int>(PROCPOOL_SYSTEM(sysconf(_SC_NPROCESSORS_ONLN)));
}

/// The limit in @p given, the value of PROCPOOL_MAX_CPUS; no_quota if it is null or empty.
/// @throws std::invalid_argument if it is not a number, or less than 1
inline int cpus_of_environment(const char* given) {
  if (given == nullptr || *given == '\0') return no_quota;
  const std::string_view text = given;
  std::int64_t cpus = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpus);
  if (error != std::errc() || end != text.data() + text.size() || cpus < 1) {
    throw std::invalid_argument(
        concat({"PROCPOOL_MAX_CPUS must be a number of CPUs, 1 or more, but is ", text}));
  }
  return static_cast<int>(std::min<std::int64_t>(cpus, no_quota));
}

/// The number of CPUs that the calling thread and its children can keep busy; at least 1.
PROCPOOL_FUNCTION int usable_cpus() {
  const int allowed = cpus_of_environment(std::getenv("PROCPOOL_MAX_CPUS"));
  return std::max(1, std::min({allowed, affinity_cpus(), cgroup_cpus(read_small_file)}));
}

}  // namespace procpool::detail::os
