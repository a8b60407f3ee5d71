// SPDX-License-Identifier: MIT
/// @file
/// What a test may leave behind: nothing.
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace support {

/// Everything the guard counts, at one moment.
struct snapshot {
  std::map<int, std::string> fds;
  std::set<std::string> shared_memory;  ///< names in /dev/shm
  std::set<pid_t> processes;            ///< started by the tests, zombies included
  std::size_t threads = 0;
  std::size_t mappings = 0;  ///< of memory files
};

[[nodiscard]] snapshot take_snapshot();

/// One sentence for each thing that is there now and was not in @p before. Looks again for up to
/// two seconds before it says anything, since a killed process takes a moment to go.
[[nodiscard]] std::vector<std::string> leaks_since(const snapshot& before);

/// Kills and reaps what @p before did not have, so that one leak is reported once.
void kill_leaked(const snapshot& before);

}  // namespace support
