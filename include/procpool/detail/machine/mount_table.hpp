// SPDX-License-Identifier: MIT
/// @file
/// The mounts of this process, parsed from /proc/self/mountinfo (proc(5)).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <procpool/detail/machine/small_file.hpp>

namespace procpool::detail::os {

/// Decodes a path of mountinfo, where the kernel writes a space as \040.
inline std::string unescape_path(std::string_view text) {
  std::string path;
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  while (!text.empty()) {
    if (text[0] == '\\' && text.size() >= 4 && is_octal(text[1]) && is_octal(text[2]) &&
        is_octal(text[3])) {
      path += static_cast<char>((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
      text.remove_prefix(4);
    } else {
      path += text[0];
      text.remove_prefix(1);
    }
  }
  return path;
}

/// The part of @p path below @p directory, "" or "/a/b"; @p outside if it is not below it.
inline std::string_view path_under(std::string_view directory, std::string_view path,
                                   std::string_view outside) {
  if (directory == "/") return path == "/" ? std::string_view() : path;
  if (!path.starts_with(directory)) return outside;
  path.remove_prefix(directory.size());
  return path.empty() || path[0] == '/' ? path : outside;
}

inline bool is_under(std::string_view directory, std::string_view path) {
  return path_under(directory, path, "outside") != "outside";
}

struct mount_entry {
  std::int64_t id;
  std::int64_t parent;
  std::string root;   ///< the directory of the file system that is mounted
  std::string point;  ///< the mount point
  std::string type;
  std::string options;  ///< of the file system
  bool outermost;       ///< its parent mount is not in the table
};

/// The mounts of this process. A later mount can hide an earlier one, wholly or in part.
class mount_table {
 public:
  /// @param text of mountinfo: "36 35 98:0 root mount-point options [tags] - type source options"
  explicit mount_table(std::string_view text) {
    for (const auto line : split(text, '\n')) add(line);
    std::vector<std::int64_t> ids;
    for (const mount_entry& each : entries_) ids.push_back(each.id);
    std::ranges::sort(ids);
    for (mount_entry& each : entries_) {
      each.outermost = each.parent == each.id || !std::ranges::binary_search(ids, each.parent);
    }
  }

  [[nodiscard]] const std::vector<mount_entry>& entries() const noexcept { return entries_; }

  /// The mount that contains @p path. Resolved as the kernel does: at each directory along the
  /// path, enter the mount on it, if any. Null: unknown.
  [[nodiscard]] const mount_entry* at(std::string_view path) const {
    const mount_entry* here = nullptr;
    for (std::size_t steps = 0; steps <= entries_.size(); ++steps) {
      const mount_entry* next = next_on_path(here, path);
      if (next == nullptr) return here;
      here = next;
    }
    return nullptr;  // a cycle, which the kernel never produces
  }

 private:
  void add(std::string_view line) {
    const auto dash = line.find(" - ");
    if (dash == std::string_view::npos) return;
    const auto before = split(line.substr(0, dash), ' ');
    const auto after = split(line.substr(dash + 3), ' ');
    if (before.size() < 6 || after.size() < 3) return;
    entries_.push_back({leading_number(before[0]), leading_number(before[1]),
                        unescape_path(before[3]), unescape_path(before[4]), std::string(after[0]),
                        std::string(after[2]), false});
  }

  /// The first mount on @p here along @p path. With a null @p here: among the outermost mounts.
  [[nodiscard]] const mount_entry* next_on_path(const mount_entry* here,
                                                std::string_view path) const {
    const mount_entry* first = nullptr;
    for (const mount_entry& each : entries_) {
      const bool is_on_it =
          here != nullptr ? each.parent == here->id && &each != here : each.outermost;
      if (!is_on_it || !is_under(each.point, path)) continue;
      if (first == nullptr || each.point.size() <= first->point.size()) first = &each;
    }
    return first;
  }

  std::vector<mount_entry> entries_;
};

}  // namespace procpool::detail::os
