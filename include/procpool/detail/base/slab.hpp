// SPDX-License-Identifier: MIT
/// @file
/// Memory for small objects that are made by the hundred thousand and destroyed in about the same
/// order, on any thread. A thread uses again the pieces that it got back last; what it has too many
/// of goes back to the slabs they were cut from, each of which is freed when all its pieces are
/// there. A slab is a few pieces: one that is kept for long (a result in a cache) keeps no more
/// than that. Measured: malloc and free of a job cost a fifth of a whole empty task.
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
/// Of pieces that go back to another slab than the last one a thread counts those of one slab, and
/// says so when it gets one of yet another: no locked instruction for each.
class slab_memory {
 public:
  [[nodiscard]] static void* allocate(std::size_t size) {
    const std::size_t needed = (sizeof(origin) + size + alignment - 1) / alignment * alignment;
    if (!use_slabs || needed > largest_piece) return alone(needed);
    stack& kept = mine_.kept[needed / alignment];
    if (kept.top == nullptr) return cut(needed);
    origin* const piece = kept.top;
    kept.top = *next_of(piece);
    --kept.count;
    return piece + 1;
  }

  static void deallocate(void* piece) noexcept {
    auto* where = static_cast<origin*>(piece) - 1;
    if (where->from == nullptr) {
      ::operator delete(where);
      return;
    }
    stack& kept = mine_.kept[where->length];
    if (kept.count >= mine_.most_kept) return give_back(where);
    ::new (piece) origin*(kept.top);
    kept.top = where;
    ++kept.count;
  }

 private:
  static constexpr std::size_t alignment = 16;
  static constexpr std::size_t largest_piece = 512;
  static constexpr std::size_t slab_bytes = 696;  // with malloc's own 8 bytes a multiple of 16
  static constexpr std::uint32_t most_pieces = slab_bytes / alignment;
  static constexpr std::uint32_t keep_pieces = 256;  // of each size

  struct slab {
    // Pieces in use, and while it is being cut as many as there can ever be.
    alignas(alignment) std::atomic<std::uint32_t> users;

    void drop_pieces(std::uint32_t pieces) noexcept {
      // Whoever frees the slab comes after all that used its pieces.
      if (users.fetch_sub(pieces, std::memory_order_acq_rel) == pieces) ::operator delete(this);
    }
  };
  /// In front of each piece. 16 bytes, so that the piece is aligned.
  struct alignas(alignment) origin {
    slab* from;            ///< null: it has memory of its own
    std::uint32_t length;  ///< with this head, in units of the alignment
  };
  /// Pieces of one length, each of which begins with the address of the one below.
  struct stack {
    origin* top;
    std::uint32_t count;
  };

  // What a thread has. Trivial, so that it can be used while its other objects are destroyed.
  struct workplace {
    stack kept[largest_piece / alignment + 1];
    std::uint32_t most_kept;  ///< none before it is known that they are given back in the end
    slab* current;            ///< is cut from here
    std::byte* next;          ///< what is left of it
    std::byte* end;
    std::uint32_t cut;    ///< pieces of it that have not come back to it
    std::uint32_t known;  ///< pieces of @c other that have come back, and it does not know yet
    slab* other;
    bool ended;  ///< the thread ends: it keeps nothing any more
  };
  struct thread_exit_cleanup {
    ~thread_exit_cleanup() {
      mine_.most_kept = 0;
      for (stack& kept : mine_.kept) {
        while (origin* const piece = kept.top) {
          kept.top = *next_of(piece);
          give_back(piece);
        }
        kept.count = 0;
      }
      leave();
      tell();
      mine_.most_kept = 0;  // giving back may have set it
      mine_.ended = true;
    }
  };

  static origin** next_of(origin* piece) noexcept {
    return std::launder(reinterpret_cast<origin**>(piece + 1));
  }

  static void* alone(std::size_t needed) {
    origin* const head = ::new (::operator new(needed)) origin{nullptr, 0};
    return head + 1;
  }

  [[gnu::noinline]] static void* cut(std::size_t needed) {
    if (static_cast<std::size_t>(mine_.end - mine_.next) < needed) {
      if (mine_.ended) return alone(needed);
      begin();
    }
    auto* const piece =
        ::new (mine_.next) origin{mine_.current, static_cast<std::uint32_t>(needed / alignment)};
    mine_.next += needed;
    ++mine_.cut;
    return piece + 1;
  }

  static void begin() {
    clean_up_at_exit();
    auto* memory = static_cast<std::byte*>(::operator new(slab_bytes));
    leave();
    mine_.current = ::new (memory) slab{most_pieces};
    mine_.next = memory + sizeof(slab);
    mine_.end = memory + slab_bytes;
  }
  static void leave() noexcept {
    if (mine_.current != nullptr) mine_.current->drop_pieces(most_pieces - mine_.cut);
    mine_.current = nullptr;
    mine_.next = mine_.end = nullptr;
    mine_.cut = 0;
  }

  [[gnu::noinline]] static void give_back(origin* piece) noexcept {
    if (piece->from == mine_.current) {
      --mine_.cut;
      return;
    }
    if (piece->from != mine_.other) change_to(piece->from);
    ++mine_.known;
    if (mine_.ended) tell();
  }
  static void change_to(slab* from) noexcept {
    clean_up_at_exit();
    tell();
    mine_.other = from;
  }
  static void tell() noexcept {
    if (mine_.other != nullptr) mine_.other->drop_pieces(mine_.known);
    mine_.other = nullptr;
    mine_.known = 0;
  }

  static void clean_up_at_exit() {
    if (mine_.ended) return;
    thread_local const thread_exit_cleanup at_exit;
    static_cast<void>(at_exit);
    mine_.most_kept = keep_pieces;
  }

  static inline thread_local constinit workplace mine_{};
};

}  // namespace procpool::detail
