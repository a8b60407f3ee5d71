// SPDX-License-Identifier: MIT
/// @file
/// A number that distinguishes a process from its forked ancestors and descendants.
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// The number of forks between the program that exec started and this process.
inline std::atomic<std::uint32_t>& fork_depth() {
  static auto& depth = os::one_per_process<std::atomic<std::uint32_t>>("fork depth");
  return depth;
}
/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline const auto& fork_depth_made_early = fork_depth();

/// Differs between a process and its forked ancestors and descendants. An object that stores it can
/// check later whether it is still in the process that made it.
inline std::uint32_t process_generation() noexcept {
  return fork_depth().load(std::memory_order_relaxed);  // written while there is one thread
}

}  // namespace procpool::detail
