// SPDX-License-Identifier: MIT
// Level 2: operating system.
/// @file
/// How many CPUs this process may use: its affinity mask and the quota of its control groups.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/os/cpu_count.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// A small file of /proc or /sys as text; empty if it cannot be read.
inline std::string read_small_file(const std::string& path) {
  const fd file(retry([&] { return PROCPOOL_SYSTEM(open(path.c_str(), O_RDONLY | O_CLOEXEC)); }));
  std::string text;
  std::array<char, 4096> buffer;
  while (file) {
    const auto got =
        retry([&] { return PROCPOOL_SYSTEM(read(file.get(), buffer.data(), buffer.size())); });
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

/// Cuts the text before the first @p separator off @p rest, all of it when there is none.
inline std::string_view next_field(std::string_view& rest, char separator) {
  const auto end = std::min(rest.find(separator), rest.size());
  const auto field = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return field;
}

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  while (!text.empty()) fields.push_back(next_field(text, separator));
  return fields;
}

/// The number that @p text begins with, or -1 ("max", "-1" and rubbish alike: no limit).
inline std::int64_t leading_number(std::string_view text) {
  std::int64_t number = -1;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

inline constexpr int no_quota = std::numeric_limits<int>::max();

/// CPUs for a quota of @p quota microseconds in each @p period, rounded up: a group with one and a
/// half CPUs keeps two workers busy.
inline int cpus_for(std::int64_t quota, std::int64_t period) {
  if (quota <= 0 || period <= 0) return no_quota;
  const auto cpus = (quota - 1) / period + 1;
  return static_cast<int>(std::min<std::int64_t>(cpus, no_quota));
}

/// Where one hierarchy of control groups is mounted, and where in it this process is.
struct cgroup_place {
  bool unified = false;     ///< version 2
  std::string mount_point;  ///< directory of the topmost group that can be seen
  std::string path;         ///< of our group under it: "" or "/a/b"
};

/// Reads one line of /proc/self/mountinfo (proc(5)): "36 35 98:0 root mount-point options [tags] -
/// type source super-options". An empty mount point: not a hierarchy with CPU quotas.
inline cgroup_place place_of_mount(std::string_view line, std::string& root) {
  const auto dash = line.find(" - ");
  const auto before = split(line.substr(0, dash), ' ');
  const auto after =
      split(dash == std::string_view::npos ? std::string_view() : line.substr(dash + 3), ' ');
  if (before.size() < 6 || after.size() < 3) return {};
  const auto options = split(after[2], ',');
  const bool unified = after[0] == "cgroup2";
  const bool cpu = after[0] == "cgroup" && std::ranges::count(options, "cpu") > 0;
  if (!unified && !cpu) return {};
  root = before[3];
  return {unified, std::string(before[4]), {}};
}

/// Our group in a hierarchy, from /proc/self/cgroup: lines "id:controllers:path", version 2 with
/// no controllers. Relative to @p root, the part of the hierarchy that is mounted.
inline std::string own_group(std::string_view cgroups, bool unified, std::string_view root) {
  for (auto line : split(cgroups, '\n')) {
    next_field(line, ':');
    const auto controllers = split(next_field(line, ':'), ',');
    if (unified ? !controllers.empty() : std::ranges::count(controllers, "cpu") == 0) continue;
    if (root != "/" && line.starts_with(root)) line.remove_prefix(root.size());
    return line == "/" ? std::string() : std::string(line);
  }
  return {};
}

/// The limit that one group's own files state.
template <class Read>
int quota_of_group(const std::string& directory, bool unified, Read read) {
  if (!unified) {
    return cpus_for(leading_number(read(directory + "/cpu.cfs_quota_us")),
                    leading_number(read(directory + "/cpu.cfs_period_us")));
  }
  const std::string text = read(directory + "/cpu.max");  // "150000 100000" or "max 100000"
  std::string_view rest = text;
  const auto quota = leading_number(next_field(rest, ' '));
  return cpus_for(quota, leading_number(rest));
}

/// The smallest limit of a group and all the groups it lies in.
template <class Read>
int quota_of_place(const cgroup_place& place, Read read) {
  int cpus = no_quota;
  for (std::string path = place.path;; path.resize(path.rfind('/'))) {
    cpus = std::min(cpus, quota_of_group(place.mount_point + path, place.unified, read));
    if (path.rfind('/') == std::string::npos) return cpus;
  }
}

/// CPUs that the control groups of this process allow; no_quota if they do not say. @p read gives
/// the text of a file, empty if there is none.
template <class Read>
int cgroup_cpus(Read read) {
  int cpus = no_quota;
  const std::string cgroups = read(std::string("/proc/self/cgroup"));
  const std::string mounts = read(std::string("/proc/self/mountinfo"));
  for (const auto line : split(mounts, '\n')) {
    std::string root;
    auto place = place_of_mount(line, root);
    if (place.mount_point.empty()) continue;
    place.path = own_group(cgroups, place.unified, root);
    cpus = std::min(cpus, quota_of_place(place, read));
  }
  return cpus;
}

/// A set of CPUs, 64 in each word, as the kernel has it.
using cpu_mask = std::vector<std::uint64_t>;

/// The affinity mask of the calling thread (sched_getaffinity(2)); empty, with errno: not to be
/// had.
inline cpu_mask affinity_mask() {
  // The kernel refuses a mask smaller than its own, whose size it does not tell.
  for (std::size_t words = 16; words <= 16384; words *= 2) {
    cpu_mask mask(words);
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    if (PROCPOOL_SYSTEM(sched_getaffinity(0, words * sizeof mask[0], set)) == 0) return mask;
  }
  return {};
}

/// Has the calling thread run on these CPUs only (sched_setaffinity(2)); false, with errno: it
/// cannot be done. Threads and processes that it makes later have the same mask.
inline bool set_affinity(const cpu_mask& mask) noexcept {
  const auto* set = reinterpret_cast<const cpu_set_t*>(mask.data());
  return PROCPOOL_SYSTEM(sched_setaffinity(0, mask.size() * sizeof mask[0], set)) == 0;
}

inline int count_cpus(const cpu_mask& mask) noexcept {
  int cpus = 0;
  for (const auto word : mask) cpus += std::popcount(word);
  return cpus;
}

/// The CPU in @p mask, which has some, that comes @p place places after the first one; behind the
/// last one comes the first one again.
inline cpu_mask one_cpu_of(const cpu_mask& mask, std::uint32_t place) {
  auto before = place % static_cast<std::uint32_t>(count_cpus(mask));
  cpu_mask one(mask.size());
  for (std::size_t word = 0; word < mask.size(); ++word) {
    for (std::uint64_t left = mask[word]; left != 0; left &= left - 1) {
      if (before-- != 0) continue;
      one[word] = left & ~(left - 1);  // the lowest bit
      return one;
    }
  }
  return one;
}

/// CPUs in the affinity mask of the calling thread.
inline int affinity_cpus() {
  const cpu_mask mask = affinity_mask();
  if (!mask.empty()) return count_cpus(mask);
  return static_cast<int>(PROCPOOL_SYSTEM(sysconf(_SC_NPROCESSORS_ONLN)));
}

/// CPUs that the calling thread can keep busy at once, at least 1.
PROCPOOL_FUNCTION int usable_cpus() {
  return std::max(1, std::min(affinity_cpus(), cgroup_cpus(read_small_file)));
}

}  // namespace procpool::detail::os
