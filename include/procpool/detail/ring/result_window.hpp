// SPDX-License-Identifier: MIT
/// @file
/// Room in a result ring for the plain results of consecutive items, handed to the code that makes
/// them: an item then costs hardly more than its function.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace procpool::detail {

struct result_window {
  std::byte* at = nullptr;
  std::uint32_t items = 0;                        ///< it has room for; 0: take them one by one
  std::uint64_t mark = 0;                         ///< for `started`, of the first item
  std::uint64_t cursor = 0;                       ///< for `written`, before the first result
  std::atomic<std::uint64_t>* started = nullptr;  ///< see result_control
  std::atomic<std::uint64_t>* written = nullptr;

  /// The item with this number in the window runs from now on.
  void begin(std::uint32_t item) const noexcept {
    started->store(mark + item, std::memory_order_release);  // after the outcome of the last one
    std::atomic_signal_fence(std::memory_order_seq_cst);  // before what the item does, if it traps
  }
  /// So many results, of @p size bytes each, are complete.
  void complete(std::uint32_t items_done, std::size_t size) const noexcept {
    written->store(cursor + items_done * size, std::memory_order_release);  // the outcome before it
  }
};

}  // namespace procpool::detail
