// SPDX-License-Identifier: MIT
/// @file
/// What a process inherits besides memory: environment variables and open descriptors.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <procpool/config.hpp>

namespace procpool::detail::os {

/// Variables by name, to add to those of this process or to replace them.
using environment_changes = std::map<std::string, std::string>;

/// The environment of this process with changes applied, in the form that execve(2) takes.
class environment_block {
 public:
  explicit environment_block(const environment_changes& changes) {
    for (char** each = environ; each != nullptr && *each != nullptr; ++each) {
      const std::string_view text = *each;
      if (!changes.contains(std::string(text.substr(0, text.find('='))))) texts_.emplace_back(text);
    }
    for (const auto& [name, value] : changes) {
      std::string& text = texts_.emplace_back(name);
      text += '=';
      text += value;
    }
    for (std::string& each : texts_) pointers_.push_back(each.data());
    pointers_.push_back(nullptr);
  }
  environment_block(const environment_block&) = delete;
  environment_block& operator=(const environment_block&) = delete;
  ~environment_block() = default;

  [[nodiscard]] char** get() noexcept { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

/// Changes the environment of this process, which is new and has one thread. Not by setenv(3):
/// another thread of the parent may have held its lock at the fork.
inline void change_environment(const environment_changes& changes) {
  if (!changes.empty())
    environ = (new environment_block(changes))->get();  // kept until the process ends
}

/// Closes all descriptors from @p first to @p last.
inline void close_range_of(unsigned first, unsigned last) noexcept {
  if (first > last) return;
  if (PROCPOOL_SYSTEM(syscall(SYS_close_range, first, last, 0U)) == 0) return;
  // The kernel is older than Linux 5.9, or a sandbox refuses the call.
  const long max_open = PROCPOOL_SYSTEM(sysconf(_SC_OPEN_MAX));
  constexpr unsigned max_tried = 65'536;
  const unsigned end = std::min(
      last, max_open > 0 ? std::min(static_cast<unsigned>(max_open), max_tried) : max_tried);
  for (unsigned each = first; each <= end; ++each) {
    PROCPOOL_SYSTEM(close(static_cast<int>(each)));
  }
}

/// Closes all descriptors of this process except the standard streams and @p kept.
inline void close_all_but(std::vector<int> kept) {
  std::ranges::sort(kept);
  unsigned first = STDERR_FILENO + 1;
  for (const int each : kept) {
    if (each < static_cast<int>(first)) continue;
    close_range_of(first, static_cast<unsigned>(each) - 1);
    first = static_cast<unsigned>(each) + 1;
  }
  close_range_of(first, ~0U);
}

}  // namespace procpool::detail::os
