// SPDX-License-Identifier: MIT
/// @file
/// Running processes and open descriptors, read from /proc, for tests that count them.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace support {

/// One line of the process table.
struct process_info {
  pid_t pid = 0;
  pid_t parent = 0;
  char state = '?';  ///< as in proc(5): R, S, D, T, Z ...
  std::string name;

  [[nodiscard]] bool zombie() const noexcept { return state == 'Z' || state == 'X'; }
};

/// "1234 (name, state S, child of 1200)".
[[nodiscard]] std::string describe(const process_info& process);

/// Every visible process, in unspecified order.
[[nodiscard]] std::vector<process_info> all_processes();

/// The direct children of @p pid, zombies included.
[[nodiscard]] std::vector<process_info> children_of(pid_t pid);

/// Children, grandchildren and so on of @p pid, zombies included.
[[nodiscard]] std::vector<process_info> descendants_of(pid_t pid);

/// Whether @p pid is a process that is not a zombie.
[[nodiscard]] bool is_running(pid_t pid);

/// The open descriptors of this process and the target of each link in /proc/self/fd.
[[nodiscard]] std::map<int, std::string> open_fds();

/// The number of open descriptors of this process.
[[nodiscard]] std::size_t count_fds();

/// The names in a directory; empty if it cannot be read.
[[nodiscard]] std::vector<std::string> names_in(const std::string& directory);

}  // namespace support
