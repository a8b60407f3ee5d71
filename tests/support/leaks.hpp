// SPDX-License-Identifier: MIT
/// @file
/// The leak guard: finds processes, descriptors, threads and shared memory that a test leaves
/// behind.
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace support {

/// The resources that the guard compares, at one moment.
struct snapshot {
  std::map<int, std::string> fds;
  std::set<std::string> shared_memory;  ///< names in /dev/shm
  std::set<pid_t> processes;            ///< started by the tests, zombies included
  std::size_t threads = 0;
  std::size_t mappings = 0;  ///< of memory files
};

[[nodiscard]] snapshot take_snapshot();

/// One line for each resource that exists now and did not in @p before. Looks again for up to 2 s,
/// because a killed process needs some time to end.
[[nodiscard]] std::vector<std::string> leaks_since(const snapshot& before);

/// Kills and reaps the processes that are not in @p before, so that a leak is reported only once.
void kill_leaked(const snapshot& before);

}  // namespace support
