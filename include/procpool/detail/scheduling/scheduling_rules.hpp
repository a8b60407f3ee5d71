// SPDX-License-Identifier: MIT
/// @file
/// The numbers that shape the scheduler's decisions.
#pragma once

#include <cstdint>
#include <limits>

namespace procpool::detail {

/// Numbers that shape the decisions.
struct scheduling_rules {
  std::uint32_t least_depth = 2;  ///< frames in flight for each worker at first: no gap between two
  std::uint32_t most_depth = 256;      ///< and at most, for tasks shorter than a hand-over
  std::uint32_t spinning_workers = 0;  ///< workers numbered below this are served first: they spin
  std::uint32_t least_wake_depth = 8;  ///< frames that one of these gets before a sleeper is woken
  /// How many are worth being awake at a time for tasks that need a CPU; those beyond get tasks
  /// when it turns out that these take long.
  std::uint32_t parallel = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t maxtasksperchild = 0;  ///< frames after which a worker is replaced; 0: never
};

}  // namespace procpool::detail
