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
///
/// Of the slab that a thread cuts, it counts the pieces that it takes back itself for itself; for
/// another one it counts them until it gets one of yet another slab: no locked instruction for
/// each.
class slab_memory {
 public:
  [[nodiscard]] static void* allocate(std::size_t size) {
    const std::size_t needed = (sizeof(origin) + size + alignment - 1) / alignment * alignment;
    if (!use_slabs || needed > largest_piece) return alone(needed);
    if (static_cast<std::size_t>(mine_.end - mine_.next) < needed) {
      if (mine_.ended) return alone(needed);
      begin();
    }
    mine_.last = ::new (mine_.next) origin{mine_.current};
    mine_.next += needed;
    ++mine_.cut;
    return mine_.last + 1;
  }

  static void deallocate(void* piece) noexcept {
    auto* where = static_cast<origin*>(piece) - 1;
    if (where->from == nullptr) {
      ::operator delete(where);
    } else if (where->from == mine_.current) {
      put_back(where);
    } else {
      collect(where->from);
    }
  }

 private:
  static constexpr std::size_t alignment = 16;
  static constexpr std::size_t largest_piece = 512;
  static constexpr std::size_t slab_bytes = 8192;
  static constexpr std::uint32_t most_pieces = slab_bytes / alignment;

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

  // What a thread has. Trivial, so that it can be used while its other objects are destroyed.
  struct workplace {
    slab* current;    ///< is cut from here
    std::byte* next;  ///< what is left of it
    std::byte* end;
    origin* last;         ///< the last piece that was cut
    std::uint32_t cut;    ///< pieces of it that have not come back to this thread
    std::uint32_t known;  ///< pieces of @c other that have come back, and it does not know yet
    slab* other;
    bool ended;  ///< the thread ends: it keeps nothing any more
  };
  struct sweeper {
    ~sweeper() {
      leave();
      tell();
      mine_.ended = true;
    }
  };

  static void* alone(std::size_t needed) {
    return static_cast<origin*>(::new (::operator new(needed)) origin{nullptr}) + 1;
  }

  [[gnu::noinline]] static void begin() {
    sweep_at_exit();
    auto* memory = static_cast<std::byte*>(::operator new(slab_bytes));
    leave();
    mine_.current = ::new (memory) slab{most_pieces};
    mine_.next = memory + sizeof(slab);
    mine_.end = memory + slab_bytes;
  }
  static void leave() noexcept {
    if (mine_.current != nullptr) mine_.current->let_go(most_pieces - mine_.cut);
    mine_.current = nullptr;
    mine_.next = mine_.end = nullptr;
    mine_.last = nullptr;
    mine_.cut = 0;
  }

  // The youngest piece, as of one call after the other, is cut again: its memory is in the cache.
  static void put_back(origin* piece) noexcept {
    --mine_.cut;
    if (piece != mine_.last) return;
    mine_.next = reinterpret_cast<std::byte*>(piece);
    mine_.last = nullptr;
  }
  static void collect(slab* from) noexcept {
    if (from != mine_.other) change_to(from);
    ++mine_.known;
    if (mine_.ended) tell();
  }
  [[gnu::noinline]] static void change_to(slab* from) noexcept {
    sweep_at_exit();
    tell();
    mine_.other = from;
  }
  static void tell() noexcept {
    if (mine_.other != nullptr) mine_.other->let_go(mine_.known);
    mine_.other = nullptr;
    mine_.known = 0;
  }

  static void sweep_at_exit() {
    if (mine_.ended) return;
    thread_local const sweeper at_exit;
    static_cast<void>(at_exit);
  }

  static inline thread_local constinit workplace mine_{};
};

}  // namespace procpool::detail
