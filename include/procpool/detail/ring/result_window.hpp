// SPDX-License-Identifier: MIT
/// @file
/// Room in a result ring for the plain results of consecutive items. The task's code writes there
/// directly, on the worker's own thread, so an item costs hardly more than its function.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace procpool::detail {

struct result_window {
  std::byte* at = nullptr;
  std::uint32_t items = 0;                        ///< that fit; 0: run items one by one
  std::uint64_t mark = 0;                         ///< `started` for the first item
  std::uint64_t cursor = 0;                       ///< `written` before the first result
  std::atomic<std::uint64_t>* started = nullptr;  ///< see result_control
  std::atomic<std::uint64_t>* written = nullptr;

  /// The item with this number in the window starts now.
  void begin(std::uint32_t item) const noexcept {
    started->store(mark + item, std::memory_order_release);  // after the previous outcome
    std::atomic_signal_fence(std::memory_order_seq_cst);  // before the item's code, which may trap
  }
  /// The first @p items_done results, of @p size bytes each, are complete.
  void complete(std::uint32_t items_done, std::size_t size) const noexcept {
    written->store(cursor + items_done * size, std::memory_order_release);  // after the outcome
  }
};

}  // namespace procpool::detail
