// SPDX-License-Identifier: MIT
/// @file
/// Parameters of the scheduler's decisions.
#pragma once

#include <cstdint>
#include <limits>

namespace procpool::detail {

/// Parameters of the scheduler's decisions.
struct scheduling_rules {
  std::uint32_t min_depth = 2;         ///< initial frames in flight per worker: no gap between two
  std::uint32_t max_depth = 256;       ///< maximum, for tasks shorter than a hand-over
  std::uint32_t spinning_workers = 0;  ///< workers below this number are served first: they spin
  std::uint32_t min_wake_depth = 8;  ///< frames for one of these before a sleeping worker is woken
  /// How many workers should be awake at a time for tasks that need a CPU. Further ones get tasks
  /// when tasks turn out to be long.
  std::uint32_t parallel = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t maxtasksperchild = 0;  ///< frames after which a worker is replaced; 0: never
};

}  // namespace procpool::detail
