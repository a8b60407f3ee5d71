// SPDX-License-Identifier: MIT
/// @file
/// The CPU limit that the control groups (cgroups(7)) of this process impose. The functions take
/// their file reader as a parameter, so that tests can pass made-up files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include <procpool/detail/machine/mount_table.hpp>
#include <procpool/detail/machine/small_file.hpp>

namespace procpool::detail::os {

inline constexpr int no_quota = std::numeric_limits<int>::max();

/// CPUs for a quota of @p quota microseconds per @p period microseconds. Rounded up, because a
/// group with 1.5 CPUs keeps two workers busy.
inline int cpus_for(std::int64_t quota, std::int64_t period) {
  if (quota <= 0 || period <= 0) return no_quota;
  const auto cpus = (quota - 1) / period + 1;
  return static_cast<int>(std::min<std::int64_t>(cpus, no_quota));
}

/// The two interfaces of control groups. A machine may use both at once.
enum class cgroup_version { one, two };

/// Whether @p mount is a cgroup hierarchy with CPU quotas.
inline bool has_cpu_quotas(const mount_entry& mount, cgroup_version version) {
  if (version == cgroup_version::two) return mount.type == "cgroup2";
  return mount.type == "cgroup" && std::ranges::count(split(mount.options, ','), "cpu") > 0;
}

/// This process's group, "/a/b", from the text of /proc/self/cgroup: lines "id:controllers:path",
/// for version 2 without controllers. Nullopt if ambiguous: a group whose name contains a line
/// break can forge lines.
inline std::optional<std::string> own_group(std::string_view cgroups, cgroup_version version) {
  std::optional<std::string> found;
  while (!cgroups.empty()) {
    std::string_view line = next_field(cgroups, '\n');
    const auto id = next_field(line, ':');
    const auto controllers = split(next_field(line, ':'), ',');
    if (leading_number(id) < 0 || !line.starts_with('/')) return std::nullopt;
    const bool matches = version == cgroup_version::two
                             ? controllers.empty()
                             : std::ranges::count(controllers, "cpu") > 0;
    if (!matches) continue;
    if (found) return std::nullopt;
    found = line;
  }
  return found;
}

/// Parses cpu.max, "150000 100000" or "max 100000". Nullopt if the text is malformed or empty.
inline std::optional<int> parse_cpu_max(std::string_view text) {
  const auto quota = next_field(text, ' ');
  const auto period = leading_number(text);
  if (period <= 0) return std::nullopt;
  return cpus_for(leading_number(quota), period);
}

/// The limit in the files of a single group.
template <class Read>
int quota_of_group(const std::string& directory, cgroup_version version, Read read) {
  if (version == cgroup_version::two) {
    return parse_cpu_max(read(directory + "/cpu.max")).value_or(no_quota);
  }
  return cpus_for(leading_number(read(directory + "/cpu.cfs_quota_us")),
                  leading_number(read(directory + "/cpu.cfs_period_us")));
}

/// The smallest limit of @p group and all its ancestors, as far as @p mount shows them. Files that
/// another mount hides are skipped.
template <class Read>
int quota_of_mount(const mount_table& mounts, const mount_entry& mount, std::string_view group,
                   cgroup_version version, Read read) {
  constexpr std::string_view outside = "outside";
  std::string path(path_under(mount.root, group, outside));
  if (path == outside || (path + '/').find("/../") != std::string::npos) return no_quota;
  const std::string top = mount.point == "/" ? std::string() : mount.point;
  const auto read_visible = [&](const std::string& file) {
    std::string text = read(file);
    if (!text.empty() && mounts.at(file) != &mount) text.clear();
    return text;
  };
  int cpus = no_quota;
  while (true) {
    cpus = std::min(cpus, quota_of_group(top + path, version, read_visible));
    if (path.empty()) return cpus;
    path.resize(path.rfind('/'));
  }
}

/// The limit at the usual paths, for when /proc does not say where the groups are.
template <class Read>
int quota_of_usual_places(Read read) {
  if (const auto cpus = parse_cpu_max(read(std::string("/sys/fs/cgroup/cpu.max")))) return *cpus;
  return std::min(quota_of_group("/sys/fs/cgroup/cpu", cgroup_version::one, read),
                  quota_of_group("/sys/fs/cgroup/cpu,cpuacct", cgroup_version::one, read));
}

/// CPUs that the control groups of this process allow; no_quota if unlimited or unknown.
/// @param read returns the text of a file, empty if it cannot be read
template <class Read>
int cgroup_cpus(Read read) {
  const std::string cgroups = read(std::string("/proc/self/cgroup"));
  const mount_table mounts(read(std::string("/proc/self/mountinfo")));
  int cpus = no_quota;
  bool known = false;
  for (const auto version : {cgroup_version::one, cgroup_version::two}) {
    const auto group = own_group(cgroups, version);
    if (!group) continue;
    for (const mount_entry& mount : mounts.entries()) {
      if (!has_cpu_quotas(mount, version)) continue;
      known = true;
      cpus = std::min(cpus, quota_of_mount(mounts, mount, *group, version, read));
    }
  }
  return known ? cpus : quota_of_usual_places(read);
}

}  // namespace procpool::detail::os
