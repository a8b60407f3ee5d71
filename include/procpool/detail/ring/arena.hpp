// SPDX-License-Identifier: MIT
/// @file
/// Memory for large task payloads in the outbound region. Each payload is stored once, however many
/// workers and attempts read it. Only the parent writes here.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <span>

#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// Allocates blocks aligned to frame_alignment. Not thread-safe: used under the lock of its pool.
///
/// Blocks lie one behind the other, each with a head that says how long it and the block before
/// are. Free neighbours are merged. Free blocks are in lists by size, eight lists for each power of
/// two (as in TLSF). The block taken is the first that is large enough of the smallest list that
/// has one, so an allocation fails only if no free block is large enough.
class arena {
 public:
  /// Manages @p memory, zero-filled and page-aligned. Touches its first and last page only.
  explicit arena(std::span<std::byte> memory) noexcept : memory_(memory) {
    first_.fill(none);
    const std::uint64_t whole = memory.size() / unit * unit - unit;
    new (memory.data() + whole) head{unit, whole & most, 0};  // never free: it ends the merging
    insert(0, whole, 0);
  }

  /// A block of @p size bytes, or nullopt when no free block is that large.
  [[nodiscard]] std::optional<std::span<std::byte>> allocate(std::size_t size) noexcept {
    if (size >= memory_.size()) return std::nullopt;
    const std::uint64_t needed =
        std::max(sizeof(free_head), (sizeof(head) + size + unit - 1) / unit * unit);
    head* const found = find(needed);
    if (found == nullptr) return std::nullopt;
    remove(found);
    if (const std::uint64_t rest = found->size - needed; rest >= sizeof(free_head)) {
      behind(found)->before = rest & most;
      found->size = needed;
      insert(offset_of(found) + needed, rest, needed);
    }
    ++live_;
    return std::span(reinterpret_cast<std::byte*>(found + 1), size);
  }

  [[nodiscard]] std::span<const std::byte> memory() const noexcept { return memory_; }

  void release(std::span<std::byte> block) noexcept {
    --live_;
    std::uint64_t where = offset(block) - sizeof(head);
    std::uint64_t size = at(where)->size;
    std::uint64_t before = at(where)->before;
    if (head* const next = at(where + size); next->is_free != 0) {
      remove(next);
      size += next->size;
    }
    if (before != 0 && at(where - before)->is_free != 0) {
      where -= before;
      remove(at(where));
      size += before;
      before = at(where)->before;
    }
    at(where + size)->before = size & most;
    insert(where, size, before);
  }
  /// Number of allocated blocks.
  [[nodiscard]] std::size_t live() const noexcept { return live_; }

  /// Offset of a block in the arena, in bytes.
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> block) const noexcept {
    return static_cast<std::uint64_t>(block.data() - memory_.data());
  }
  /// Whether all of it is one free block again.
  [[nodiscard]] bool all_free() const noexcept {
    return at(0)->is_free != 0 && at(0)->size + unit == memory_.size() / unit * unit;
  }

 private:
  /// In front of each block. Offsets instead of pointers: workers can read them.
  struct head {
    std::uint64_t size;         ///< of the block with this head, in bytes: a multiple of unit
    std::uint64_t before : 63;  ///< size of the block before; 0: this is the first
    std::uint64_t is_free : 1;
  };
  /// The head of a free block.
  struct free_head : head {
    std::uint64_t next;  ///< offset of another block in the same list, or none
    std::uint64_t previous;
  };
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  static constexpr std::uint64_t most = none >> 1;  ///< that fits in head::before
  static constexpr std::uint64_t unit = sizeof(head);
  static_assert(unit % frame_alignment == 0 && sizeof(free_head) % unit == 0);

  static constexpr std::size_t lists = std::size_t{64} * 8;
  /// The list for blocks of this size: by the position of the highest bit and the three bits below.
  static std::size_t list_of(std::uint64_t size) noexcept {
    const auto highest = static_cast<std::size_t>(63 - std::countl_zero(size));
    return highest * 8 + ((size >> (highest - 3)) & 7);
  }

  [[nodiscard]] head* at(std::uint64_t where) const noexcept {
    return std::launder(reinterpret_cast<head*>(memory_.data() + where));
  }
  [[nodiscard]] std::uint64_t offset_of(const head* block) const noexcept {
    return static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(block) - memory_.data());
  }
  [[nodiscard]] head* behind(const head* block) const noexcept {
    return at(offset_of(block) + block->size);
  }
  [[nodiscard]] free_head* free_at(std::uint64_t where) const noexcept {
    return static_cast<free_head*>(at(where));
  }

  void insert(std::uint64_t where, std::uint64_t size, std::uint64_t before) noexcept {
    const std::size_t list = list_of(size);
    const std::uint64_t next = first_[list];
    new (memory_.data() + where) free_head{{size, before & most, 1}, next, none};
    if (next != none) free_at(next)->previous = where;
    first_[list] = where;
    nonempty_[list / 64] |= std::uint64_t{1} << list % 64;
  }
  /// Takes a free block out of its list.
  void remove(head* block) noexcept {
    const free_head taken = *static_cast<free_head*>(block);
    block->is_free = 0;
    if (taken.next != none) free_at(taken.next)->previous = taken.previous;
    if (taken.previous != none) {
      free_at(taken.previous)->next = taken.next;
      return;
    }
    const std::size_t list = list_of(taken.size);
    first_[list] = taken.next;
    if (taken.next == none) nonempty_[list / 64] &= ~(std::uint64_t{1} << list % 64);
  }
  /// A free block of at least @p size bytes, or null.
  [[nodiscard]] head* find(std::uint64_t size) const noexcept {
    const std::size_t list = list_of(size);
    for (std::uint64_t each = first_[list]; each != none; each = free_at(each)->next) {
      if (free_at(each)->size >= size) return at(each);
    }
    // Any block of a later list is large enough.
    std::uint64_t later = nonempty_[list / 64] & (~std::uint64_t{1} << list % 64);
    for (std::size_t word = list / 64;; later = nonempty_[word]) {
      if (later != 0)
        return at(first_[word * 64 + static_cast<std::size_t>(std::countr_zero(later))]);
      if (++word == nonempty_.size()) return nullptr;
    }
  }

  std::span<std::byte> memory_;
  std::array<std::uint64_t, lists> first_;               ///< offset of the first block, or none
  std::array<std::uint64_t, lists / 64> nonempty_ = {};  ///< a bit for each list
  std::size_t live_ = 0;
};

}  // namespace procpool::detail
