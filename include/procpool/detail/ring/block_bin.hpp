// SPDX-License-Identifier: MIT
/// @file
/// Arena blocks that were given back but are not free yet. The pool's lock guards the arena, and
/// the thread that drops the last reference to a shared block may or may not hold that lock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <span>
#include <vector>

namespace procpool::detail {

/// Any thread. A thread that holds its lock takes no other lock.
class block_bin {
 public:
  /// Reserves room, so that put() does not allocate for @p blocks blocks. @throws std::bad_alloc
  void make_room(std::size_t blocks) {
    const std::lock_guard lock(mutex_);
    if (blocks > blocks_.capacity()) blocks_.reserve(std::max(blocks, 2 * blocks_.capacity()));
  }
  void put(std::span<std::byte> block) noexcept {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  /// Empties it: calls @p free(block) for each.
  template <class Free>
  void empty(Free free) noexcept {
    const std::lock_guard lock(mutex_);
    for (const auto& block : blocks_) free(block);
    blocks_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<std::span<std::byte>> blocks_;
};

}  // namespace procpool::detail
