// SPDX-License-Identifier: MIT
/// @file
/// Memory for large task payloads in the outbound region. Each payload is stored once, however many
/// workers and attempts read it. Best fit by Boost.Interprocess; only the parent writes here.
#pragma once

#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/offset_ptr.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// Allocates blocks aligned to frame_alignment. Not thread-safe: used under the lock of its pool.
class arena {
 public:
  /// Manages @p memory, zero-filled and page-aligned. Touches its first and last page only.
  explicit arena(std::span<std::byte> memory)
      : memory_(memory), fit_(new (memory.data()) best_fit(memory.size(), 0)) {}

  /// A block of @p size bytes, or nullopt when no free block is that large.
  [[nodiscard]] std::optional<std::span<std::byte>> allocate(std::size_t size) {
    void* block = fit_->allocate(size);
    if (block == nullptr) return std::nullopt;
    ++live_;
    return std::span(static_cast<std::byte*>(block), size);
  }

  [[nodiscard]] std::span<const std::byte> memory() const noexcept { return memory_; }

  void release(std::span<std::byte> block) noexcept {
    --live_;
    fit_->deallocate(block.data());
  }
  /// Number of allocated blocks.
  [[nodiscard]] std::size_t live() const noexcept { return live_; }

  /// Offset of a block in the arena, in bytes.
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> block) const noexcept {
    return static_cast<std::uint64_t>(block.data() - memory_.data());
  }
  [[nodiscard]] bool all_free() const { return fit_->all_memory_deallocated(); }

 private:
  using best_fit = boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family,
                                                        boost::interprocess::offset_ptr<void>>;
  static_assert(best_fit::Alignment % frame_alignment == 0);

  std::span<std::byte> memory_;
  best_fit* fit_;
  std::size_t live_ = 0;
};

}  // namespace procpool::detail
