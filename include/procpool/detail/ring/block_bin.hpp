// SPDX-License-Identifier: MIT
/// @file
/// Blocks of the arena that were given back and are not free yet: whoever drops the last reference
/// to a shared one may hold the lock of the pool, which guards the arena, or not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <span>
#include <vector>

namespace procpool::detail {

/// Any thread; its lock is the last one that a thread takes.
class block_bin {
 public:
  /// There are at most so many blocks: put() has room for each. @throws std::bad_alloc
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
