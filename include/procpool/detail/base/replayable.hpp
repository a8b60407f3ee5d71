// SPDX-License-Identifier: MIT
/// @file
/// A failed task that can be run once more, here (replay.hpp makes them).
#pragma once

#include <cstddef>
#include <memory>

namespace procpool::detail {

class replayable {
 public:
  virtual ~replayable() = default;
  /// Runs the item in the calling thread. @throws what it throws
  virtual void run() const = 0;
};

/// Runs it. @throws std::logic_error when there is nothing to run
void replay(const std::shared_ptr<const replayable>& what);

}  // namespace procpool::detail
