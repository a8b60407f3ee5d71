// SPDX-License-Identifier: MIT
/// @file
/// Memory for small objects (jobs, tasks) that are made by the hundred thousand and destroyed in
/// about the same order, on any thread. Each thread caches freed pieces and reuses the latest ones
/// first. Surplus pieces return to their slab, which is freed when all its pieces are back. A slab
/// has few pieces, so that one long-lived object (a cached result) pins little memory. Measured:
/// malloc and free of a job cost a fifth of a whole empty task.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include <procpool/detail/base/sanitizers.hpp>

namespace procpool::detail {

inline constexpr bool use_slabs = !address_sanitizer;  // the sanitizer must see each object

/// Any thread. Pieces are aligned like malloc's.
///
/// A thread that returns pieces to another thread's slab counts them and subtracts the sum when it
/// meets the next slab. This avoids one locked instruction per piece.
class slab_memory {
 public:
  [[nodiscard]] static void* allocate(std::size_t size) {
    const std::size_t needed = (sizeof(origin) + size + alignment - 1) / alignment * alignment;
    if (!use_slabs || needed > largest_piece) return allocate_separately(needed);
    stack& kept = local_.kept[needed / alignment];
    if (kept.top == nullptr) return cut_piece(needed);
    origin* const piece = kept.top;
    kept.top = *next_of(piece);
    --kept.count;
    return piece + 1;
  }

  static void deallocate(void* piece) noexcept {
    auto* head = static_cast<origin*>(piece) - 1;
    if (head->from == nullptr) {
      ::operator delete(head);
      return;
    }
    stack& kept = local_.kept[head->length];
    if (kept.count >= local_.max_kept) return return_to_slab(head);
    ::new (piece) origin*(kept.top);
    kept.top = head;
    ++kept.count;
  }

 private:
  static constexpr std::size_t alignment = 16;
  static constexpr std::size_t largest_piece = 512;
  static constexpr std::size_t slab_bytes = 696;  // with malloc's own 8 bytes a multiple of 16
  static constexpr std::uint32_t max_pieces = slab_bytes / alignment;
  static constexpr std::uint32_t kept_per_size = 256;

  struct slab {
    // The number of pieces in use. While the slab is being cut: max_pieces, so that it stays.
    alignas(alignment) std::atomic<std::uint32_t> users;

    void drop_pieces(std::uint32_t pieces) noexcept {
      // acq_rel: the thread that frees the slab must see the end of all use of its pieces.
      if (users.fetch_sub(pieces, std::memory_order_acq_rel) == pieces) ::operator delete(this);
    }
  };
  /// The header in front of each piece. 16 bytes keep the piece aligned.
  struct alignas(alignment) origin {
    slab* from;            ///< null: allocated separately, from no slab
    std::uint32_t length;  ///< including this header, in units of the alignment
  };
  /// A stack of pieces of one length. Each piece begins with the address of the next lower one.
  struct stack {
    origin* top;
    std::uint32_t count;
  };

  // The state of one thread. Trivial, so that destructors of other thread_locals can still use it.
  struct thread_state {
    stack kept[largest_piece / alignment + 1];
    std::uint32_t max_kept;  ///< 0 until thread_exit_cleanup is in place
    slab* current;           ///< the slab that new pieces are cut from
    std::byte* next;         ///< its uncut part: from here to end
    std::byte* end;
    std::uint32_t in_use;    ///< pieces of current that have not come back to it
    std::uint32_t returned;  ///< pieces of returned_slab not yet subtracted from its users
    slab* returned_slab;
    bool ended;  ///< the thread is exiting: it caches nothing any more
  };
  struct thread_exit_cleanup {
    ~thread_exit_cleanup() {
      local_.max_kept = 0;
      for (stack& kept : local_.kept) {
        while (origin* const piece = kept.top) {
          kept.top = *next_of(piece);
          return_to_slab(piece);
        }
        kept.count = 0;
      }
      release_current();
      subtract_returned();
      local_.max_kept = 0;  // return_to_slab() may have set it
      local_.ended = true;
    }
  };

  static origin** next_of(origin* piece) noexcept {
    return std::launder(reinterpret_cast<origin**>(piece + 1));
  }

  static void* allocate_separately(std::size_t needed) {
    origin* const head = ::new (::operator new(needed)) origin{nullptr, 0};
    return head + 1;
  }

  [[gnu::noinline]] static void* cut_piece(std::size_t needed) {
    if (static_cast<std::size_t>(local_.end - local_.next) < needed) {
      if (local_.ended) return allocate_separately(needed);
      start_slab();
    }
    auto* const piece =
        ::new (local_.next) origin{local_.current, static_cast<std::uint32_t>(needed / alignment)};
    local_.next += needed;
    ++local_.in_use;
    return piece + 1;
  }

  static void start_slab() {
    clean_up_at_exit();
    auto* memory = static_cast<std::byte*>(::operator new(slab_bytes));
    release_current();
    local_.current = ::new (memory) slab{max_pieces};
    local_.next = memory + sizeof(slab);
    local_.end = memory + slab_bytes;
  }
  static void release_current() noexcept {
    if (local_.current != nullptr) local_.current->drop_pieces(max_pieces - local_.in_use);
    local_.current = nullptr;
    local_.next = local_.end = nullptr;
    local_.in_use = 0;
  }

  [[gnu::noinline]] static void return_to_slab(origin* piece) noexcept {
    if (piece->from == local_.current) {
      --local_.in_use;
      return;
    }
    if (piece->from != local_.returned_slab) change_returned_slab(piece->from);
    ++local_.returned;
    if (local_.ended) subtract_returned();
  }
  static void change_returned_slab(slab* from) noexcept {
    clean_up_at_exit();
    subtract_returned();
    local_.returned_slab = from;
  }
  static void subtract_returned() noexcept {
    if (local_.returned_slab != nullptr) local_.returned_slab->drop_pieces(local_.returned);
    local_.returned_slab = nullptr;
    local_.returned = 0;
  }

  static void clean_up_at_exit() {
    if (local_.ended) return;
    thread_local const thread_exit_cleanup at_exit;
    static_cast<void>(at_exit);
    local_.max_kept = kept_per_size;
  }

  static inline thread_local constinit thread_state local_{};
};

}  // namespace procpool::detail
