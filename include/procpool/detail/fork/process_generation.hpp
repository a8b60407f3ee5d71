// SPDX-License-Identifier: MIT
/// @file
/// Tells a process from those it was forked from.
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// How often the line of processes that leads to this one has forked.
inline std::atomic<std::uint32_t>& fork_depth() {
  static auto& depth = os::one_per_process<std::atomic<std::uint32_t>>("fork depth");
  return depth;
}
/// Made before main, as the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline const auto& fork_depth_made_early = fork_depth();

/// Differs between a process and each process that was forked from it or from which it was forked.
/// An object that remembers it knows later whether it is still in the process that made it.
inline std::uint32_t process_generation() noexcept {
  return fork_depth().load(std::memory_order_relaxed);  // written only while there is one thread
}

}  // namespace procpool::detail
