// SPDX-License-Identifier: MIT
/// @file
/// How much memory this process and its control group can still get. Asked before many pages are
/// reserved: the kernel does not refuse them, it kills a process when memory runs out. The
/// functions take their file reader as a parameter, so that tests can pass made-up files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <procpool/config.hpp>
#include <procpool/detail/machine/cpu_quota.hpp>
#include <procpool/detail/machine/small_file.hpp>

namespace procpool::detail::os {

inline constexpr std::uint64_t unlimited_memory = std::numeric_limits<std::uint64_t>::max();

/// The number in the line "name 123 kB" or "name: 123 kB"; 0 if there is none.
inline std::uint64_t number_of_line(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    std::string_view line = next_field(text, '\n');
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    return static_cast<std::uint64_t>(std::max<std::int64_t>(leading_number(line), 0));
  }
  return 0;
}

/// Of the machine, with swap.
template <class Read>
std::uint64_t machine_memory_room(Read read) {
  const std::string about = read(std::string("/proc/meminfo"));
  const std::uint64_t kib =
      number_of_line(about, "MemAvailable:") + number_of_line(about, "SwapFree:");
  return kib == 0 ? unlimited_memory : kib << 10U;
}

/// Of one control group (version 2): what its limit leaves, and the pages of files that it could
/// drop.
template <class Read>
std::uint64_t memory_room_of_group(const std::string& folder, Read read) {
  const std::int64_t limit = leading_number(read(folder + "/memory.max"));
  if (limit < 0) return unlimited_memory;
  const std::string about = read(folder + "/memory.stat");
  const std::int64_t used = leading_number(read(folder + "/memory.current"));
  const auto files = static_cast<std::int64_t>(number_of_line(about, "file ")) -
                     static_cast<std::int64_t>(number_of_line(about, "shmem "));
  return static_cast<std::uint64_t>(std::max<std::int64_t>(
      limit - std::max<std::int64_t>(used, 0) + std::max<std::int64_t>(files, 0), 0));
}

/// Of the group of this process and those around it, where the hierarchy has its usual place;
/// unlimited otherwise.
template <class Read>
std::uint64_t group_memory_room(Read read) {
  const auto group = own_group(read(std::string("/proc/self/cgroup")), cgroup_version::two);
  std::string path = group.value_or("");
  std::uint64_t room = unlimited_memory;
  while (true) {
    room = std::min(room, memory_room_of_group("/sys/fs/cgroup" + path, read));
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return room;
    path.resize(slash);
  }
}

/// In bytes. An estimate: other processes take and give memory at any time.
inline std::uint64_t memory_room() {
  return std::min(machine_memory_room(read_small_file), group_memory_room(read_small_file));
}

}  // namespace procpool::detail::os
