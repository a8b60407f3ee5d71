// SPDX-License-Identifier: MIT
// Level 3: memory and rings.
/// @file
/// What the parent makes of a worker's last words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <procpool/detail/layout.hpp>

namespace procpool::detail {

/// A crash as far as the worker could tell of it.
struct crash_report {
  std::optional<std::uintptr_t> fault_address;
  std::string reason;              ///< "address not mapped", or empty
  std::vector<std::string> stack;  ///< innermost frame first
};

/// Reads the note of a dead worker that died of @p signal; empty if it left none. Believes nothing.
inline crash_report read_crash(const crash_note& note, int signal) {
  static_cast<void>(note);
  static_cast<void>(signal);
  return {};
}

}  // namespace procpool::detail
