// SPDX-License-Identifier: MIT
/// @file
/// Words that name processes: who has a token of a BoundedSemaphore, who waits at a Barrier. In the
/// object's record if there are few, else in its extent.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include <procpool/config.hpp>
#include <procpool/detail/bulk/bulk_memory.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/layout.hpp>

namespace procpool::detail {

using owner_cell = std::atomic<owner_id>;

/// The end of the body of an object with cells.
inline constexpr std::size_t cells_in_record = 58;
struct cell_state {
  std::atomic<std::uint32_t> count;  ///< of cells; never changes
  std::atomic<std::uint32_t> hint;   ///< BoundedSemaphore: a cell that may be free
  std::array<owner_cell, cells_in_record> few;
};

/// The cells of one object, in this process.
class owner_cells {
 public:
  /// @param bulk keeps the mapping; null: the cells are in the record
  owner_cells(cell_state& state, bulk_ptr bulk) noexcept;
  owner_cells(const owner_cells&) noexcept = default;  // as handles, to move is to copy
  owner_cells& operator=(const owner_cells&) noexcept = default;
  ~owner_cells() = default;

  [[nodiscard]] std::span<owner_cell> all() const noexcept { return all_; }

 private:
  bulk_ptr bulk_;
  std::span<owner_cell> all_;
};

/// Makes the cells of a new object. @throws ProcessError when the system refuses memory
[[nodiscard]] owner_cells make_cells(const object_ref& object, cell_state& state,
                                     std::uint32_t count, const char* what);
/// The cells of an object that was received. @param most no object has more
[[nodiscard]] owner_cells find_cells(const object_ref& object, cell_state& state,
                                     std::uint32_t most);

}  // namespace procpool::detail
