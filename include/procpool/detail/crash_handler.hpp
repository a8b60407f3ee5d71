// SPDX-License-Identifier: MIT
// Level 3: memory and rings.
/// @file
/// A worker's last words: what its signal handler notes when it crashes.
#pragma once

#include <procpool/detail/layout.hpp>

namespace procpool::detail {

/// Has crashes of this process noted from now on.
class crash_handler {
 public:
  explicit crash_handler(crash_note& note) : note_(&note) {}
  crash_handler(const crash_handler&) = delete;
  crash_handler& operator=(const crash_handler&) = delete;

 private:
  [[maybe_unused]] crash_note* note_;
};

}  // namespace procpool::detail
