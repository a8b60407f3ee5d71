// SPDX-License-Identifier: MIT
/// @file
/// What a scenario says about itself, and how it finds out what it left behind.
#pragma once

#include "failing_calls.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace scenario {

/// What it says about itself, in memory that the test sees.
struct report {
  bool finished = false;
  int errors = 0;   ///< exceptions as documented
  int unnamed = 0;  ///< of these: the text names none of the errors that were injected
  std::atomic<bool> strange_exit{false};  ///< a handler at exit ran in a process it is not for
  int wrong = 0;                          ///< other exceptions, wrong results
  int leaks = 0;
  std::atomic<const char*> step{"none"};  ///< what it is at
  std::array<char, 4096> text{};          ///< a line for each

  void add(int report::*kind, const std::string& line) noexcept {
    ++(this->*kind);
    const std::size_t used = std::strlen(text.data());
    std::snprintf(text.data() + used, text.size() - used, "      %s\n", line.c_str());
  }
};

inline std::vector<int> open_descriptors() {
  std::vector<int> open;
  for (int number = 0; number < 128; ++number) {
    if (::fcntl(number, F_GETFD) != -1) open.push_back(number);
  }
  return open;
}

inline long count_memory_files() {
  std::ifstream maps("/proc/self/maps");
  long count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("/memfd:") != line.npos;
  return count;
}

inline long count_threads() {
  struct stat tasks {};
  return ::stat("/proc/self/task", &tasks) == 0 ? static_cast<long>(tasks.st_nlink) - 2 : 0;
}

/// All processes come to this one as orphans, so that it sees those that nobody waits for. The
/// orphans' end is nobody's duty, but end they must. A dead child of our own is a missing wait.
inline void look_for_processes(report& told) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  const auto end = failing::children.begin() + static_cast<std::ptrdiff_t>(failing::child_count);
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid == -1) return;
    if (pid > 0) {
      if (WIFSIGNALED(status)) failing::note_death_by(WTERMSIG(status));
      if (std::find(failing::children.begin(), end, pid) == end) continue;
      told.add(&report::leaks, "a child that was not waited for: " + std::to_string(pid));
    } else if (std::chrono::steady_clock::now() > until) {
      return told.add(&report::leaks, "a process that lives on");
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

struct inventory {
  std::vector<int> descriptors = open_descriptors();
  long memory_files = count_memory_files();
  long threads = count_threads();
};

inline void look_for_leaks(const inventory& before, report& told) {
  look_for_processes(told);
  const inventory now;
  for (const int number : now.descriptors) {
    if (std::ranges::count(before.descriptors, number) > 0) continue;
    told.add(&report::leaks, "descriptor " + std::to_string(number));
  }
  if (now.memory_files > before.memory_files) told.add(&report::leaks, "mappings of memory files");
  if (now.threads > before.threads) told.add(&report::leaks, "threads");
}

}  // namespace scenario
