// SPDX-License-Identifier: MIT
/// @file
/// Counts processes that the kernel's out-of-memory killer has ended: in this process's control
/// group (memory.events, version 2; memory.oom_control, version 1), or, if the groups have no such
/// file, in the whole system (/proc/vmstat). In the parent.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <procpool/detail/machine/mount_table.hpp>
#include <procpool/detail/machine/small_file.hpp>

namespace procpool::detail::os {

/// The file with the kernel's count.
struct oom_source {
  std::string file;           ///< empty: there is none
  bool whole_system = false;  ///< not only this process's control group
};

/// The number after "oom_kill " in a file of that kind.
inline std::optional<std::uint64_t> oom_kills_in(std::string_view text) {
  for (const auto line : split(text, '\n')) {
    constexpr std::string_view key = "oom_kill ";
    if (!line.starts_with(key)) continue;
    const auto number = leading_number(line.substr(key.size()));
    if (number >= 0) return static_cast<std::uint64_t>(number);
  }
  return std::nullopt;
}

/// The path of this process's group in /proc/self/cgroup, whose lines are "id:controllers:path";
/// version 2 has no controllers. Empty: there is none.
inline std::string memory_group(std::string_view cgroups, bool unified) {
  for (auto line : split(cgroups, '\n')) {
    next_field(line, ':');
    const auto controllers = next_field(line, ':');
    if (controllers == (unified ? "" : "memory")) return std::string(line);
  }
  return {};
}

/// Finds the file. @p read(path) returns the text of a file, empty if there is none.
template <class Read>
oom_source find_oom_source(Read read) {
  constexpr std::string_view outside = "outside";
  const std::string cgroups = read(std::string("/proc/self/cgroup"));
  const mount_table mounts(read(std::string("/proc/self/mountinfo")));
  for (const mount_entry& mount : mounts.entries()) {
    const bool unified = mount.type == "cgroup2";
    const bool memory =
        mount.type == "cgroup" && std::ranges::count(split(mount.options, ','), "memory") > 0;
    if (!unified && !memory) continue;
    const std::string group = memory_group(cgroups, unified);
    const auto path = path_under(mount.root, group, outside);
    if (path == outside) continue;
    std::string file = mount.point;
    file.append(path).append(unified ? "/memory.events" : "/memory.oom_control");
    if (oom_kills_in(read(file)) && mounts.at(file) == &mount) return {std::move(file), false};
  }
  if (oom_kills_in(read(std::string("/proc/vmstat")))) return {"/proc/vmstat", true};
  return {};
}

/// The source of this process, found once: reading the mount table takes half as long as a fork.
/// Not a static object of a function: its guard may be locked during a fork.
inline std::atomic<const oom_source*> known_oom_source{nullptr};

inline const oom_source& own_oom_source() {
  if (const auto* known = known_oom_source.load(std::memory_order_acquire))
    return *known;  // with its content
  auto fresh = std::make_unique<const oom_source>(find_oom_source(read_small_file));
  const oom_source* known = nullptr;  // release: what it points to; acquire: another thread's
  if (!known_oom_source.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) {
    return *known;
  }
  return *fresh.release();
}

/// Detects kills by comparing the count with an earlier one.
class oom_counter {
 public:
  explicit oom_counter(oom_source source) : source_(std::move(source)), accounted_(now()) {}

  /// Explains the death of a process by a SIGKILL that this library did not send.
  [[nodiscard]] const char* about_a_kill() {
    if (now() <= accounted_) return "often the kernel's out-of-memory killer";
    ++accounted_;  // each kill explains one death
    return source_.whole_system
               ? "probably by the kernel's out-of-memory killer (it has ended a process meanwhile, "
                 "see oom_kill in /proc/vmstat)"
               : "by the kernel's out-of-memory killer (oom_kill of this process's control group "
                 "has risen)";
  }

 private:
  [[nodiscard]] std::uint64_t now() const {
    if (source_.file.empty()) return 0;
    return oom_kills_in(read_small_file(source_.file)).value_or(0);
  }

  oom_source source_;
  std::uint64_t accounted_;
};

}  // namespace procpool::detail::os
