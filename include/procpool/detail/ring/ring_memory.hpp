// SPDX-License-Identifier: MIT
/// @file
/// Copies into and out of a ring of bytes, across its physical end if necessary.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>

namespace procpool::detail {

/// A ring of bytes addressed by cursors that only grow. Byte is const for the reading side.
template <class Byte>
class ring_memory {
 public:
  explicit ring_memory(std::span<Byte> memory) : capacity(memory.size()), memory_(memory.data()) {
    if (!std::has_single_bit(memory.size())) {
      throw std::invalid_argument("the size of a ring must be a power of two");
    }
  }

  const std::uint64_t capacity;  ///< in bytes

  [[nodiscard]] Byte* at(std::uint64_t cursor) const noexcept { return memory_ + index(cursor); }
  /// Bytes from @p cursor to the physical end of the ring.
  [[nodiscard]] std::uint64_t until_end(std::uint64_t cursor) const noexcept {
    return capacity - index(cursor);
  }

  void copy_in(std::uint64_t cursor, const void* from, std::size_t size) const noexcept {
    if (size == 0) return;  // memcpy requires valid pointers even for size 0
    const std::size_t head = std::min<std::size_t>(size, until_end(cursor));
    std::memcpy(at(cursor), from, head);
    if (head < size) {
      std::memcpy(memory_, static_cast<const std::byte*>(from) + head, size - head);
    }
  }

  void copy_out(std::uint64_t cursor, void* to, std::size_t size) const noexcept {
    if (size == 0) return;  // as above
    const std::size_t head = std::min<std::size_t>(size, until_end(cursor));
    std::memcpy(to, at(cursor), head);
    if (head < size) {
      std::memcpy(static_cast<std::byte*>(to) + head, memory_, size - head);
    }
  }

 private:
  [[nodiscard]] std::size_t index(std::uint64_t cursor) const noexcept {
    return cursor & (capacity - 1);
  }

  Byte* memory_;
};

}  // namespace procpool::detail
