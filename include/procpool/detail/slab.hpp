// SPDX-License-Identifier: MIT
// Level 3: memory and rings.
/// @file
/// Memory for small objects that are made by the hundred thousand and destroyed in about the same
/// order, on any thread: a slab is cut into pieces from front to back, and given back as a whole
/// when all of its pieces are. A piece that stays for long keeps its slab, a few dozen times its
/// size. Measured: malloc and free of a job cost a fifth of a whole empty task.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace procpool::detail {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool use_slabs = false;  // so that it sees the single objects
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool use_slabs = false;
#else
inline constexpr bool use_slabs = true;
#endif
#else
inline constexpr bool use_slabs = true;
#endif

/// Any thread. Pieces are aligned like malloc's.
class slab_memory {
 public:
  [[nodiscard]] static void* allocate(std::size_t size) {
    const std::size_t needed = (sizeof(origin) + size + alignment - 1) / alignment * alignment;
    if (!use_slabs || needed > largest_piece) return alone(needed);
    thread_local cutter current;
    return current.cut(needed);
  }

  static void deallocate(void* piece) noexcept {
    auto* where = static_cast<origin*>(piece) - 1;
    if (where->from == nullptr) {
      ::operator delete(where);
    } else {
      where->from->let_go(1);
    }
  }

 private:
  static constexpr std::size_t alignment = 16;
  static constexpr std::size_t largest_piece = 512;
  static constexpr std::size_t slab_bytes = 8192;

  struct slab {
    // Pieces in use, and while it is being cut as many as there can ever be.
    alignas(alignment) std::atomic<std::uint32_t> users;

    void let_go(std::uint32_t pieces) noexcept {
      // Whoever frees the slab comes after all that used its pieces.
      if (users.fetch_sub(pieces, std::memory_order_acq_rel) == pieces) ::operator delete(this);
    }
  };
  /// In front of each piece. 16 bytes, so that the piece is aligned.
  struct alignas(alignment) origin {
    slab* from;  ///< null: it has memory of its own
  };

  static void* alone(std::size_t needed) {
    return static_cast<origin*>(::new (::operator new(needed)) origin{nullptr}) + 1;
  }

  /// The slab that a thread cuts pieces from.
  class cutter {
   public:
    cutter() = default;
    cutter(const cutter&) = delete;
    cutter& operator=(const cutter&) = delete;
    ~cutter() { leave(); }

    void* cut(std::size_t needed) {
      if (static_cast<std::size_t>(end_ - next_) < needed) begin();
      auto* piece = ::new (next_) origin{current_};
      next_ += needed;
      ++cut_;
      return piece + 1;
    }

   private:
    static constexpr std::uint32_t most_pieces = slab_bytes / alignment;

    void begin() {
      auto* memory = static_cast<std::byte*>(::operator new(slab_bytes));
      leave();
      current_ = ::new (memory) slab{most_pieces};
      next_ = memory + sizeof(slab);
      end_ = memory + slab_bytes;
    }
    void leave() noexcept {
      if (current_ != nullptr) std::exchange(current_, nullptr)->let_go(most_pieces - cut_);
      next_ = end_ = nullptr;
      cut_ = 0;
    }

    slab* current_ = nullptr;
    std::byte* next_ = nullptr;
    std::byte* end_ = nullptr;
    std::uint32_t cut_ = 0;
  };
};

}  // namespace procpool::detail
