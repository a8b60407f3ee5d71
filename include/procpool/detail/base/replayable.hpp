// SPDX-License-Identifier: MIT
/// @file
/// A failed task that can be run again in the program, for WorkerDied::replay(). replay.hpp
/// implements it.
#pragma once

#include <cstddef>
#include <memory>

namespace procpool::detail {

class replayable {
 public:
  virtual ~replayable() = default;
  /// Runs the item in the calling thread. @throws whatever the item throws
  virtual void run() const = 0;
};

/// Runs @p record. @throws std::logic_error when it is null, and whatever the item throws
void replay(const std::shared_ptr<const replayable>& record);

}  // namespace procpool::detail
