// SPDX-License-Identifier: MIT
/// @file
/// The items that consumers of a JoinableQueue have taken and not finished: a word for each process
/// at the beginning of the queue's extent. A consumer counts an item before it takes it. So what a
/// dead process has not finished is known, and nobody waits for it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <procpool/config.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/queue/shared_queue.hpp>

namespace procpool::detail {

/// Of one process, on a cache line of its own.
struct alignas(64) unfinished_of_process {
  std::atomic<std::uint64_t> word;  ///< the owner_id in the upper half, the number in the lower one
  std::atomic<std::uint64_t> copies;  ///< where copies of the items are, see pending_items.hpp
};

class pending_items;

/// As one process has it. Any thread.
class unfinished_items {
 public:
  /// @throws ProcessError
  unfinished_items(shared_queue& queue, bool is_new);
  unfinished_items(const unfinished_items&) = delete;
  unfinished_items& operator=(const unfinished_items&) = delete;
  ~unfinished_items();

  /// Before items are taken, with the lock of the consumers' end. @throws ProcessError
  void add(std::uint64_t items);
  /// Likewise, for each of them, if the items of dead processes go back. @throws ProcessError
  void keep(std::span<const std::byte> item);
  /// Whether the items of dead processes go back.
  [[nodiscard]] bool keeps() const noexcept { return queue_.returns_items(); }
  /// One is finished: of this process if it has any, else of any other. @returns false: there is
  /// none
  [[nodiscard]] bool finish_one();
  /// Waits until nothing is in the queue, and no living process has an unfinished item.
  /// @returns false: @p until has passed
  [[nodiscard]] bool wait(const os::deadline& until);

 private:
  static constexpr std::size_t bytes = max_processes * sizeof(unfinished_of_process);

  [[nodiscard]] unfinished_of_process& of(std::size_t slot) const noexcept;
  [[nodiscard]] bool take_one(std::size_t slot, owner_id only_of) noexcept;
  [[nodiscard]] bool finish_one_of(std::size_t slot, owner_id only_of);
  [[nodiscard]] bool anything();
  [[nodiscard]] bool has_living_owner(std::size_t slot);

  void drop_copy(std::size_t slot);
  [[nodiscard]] bool give_back();

  shared_queue& queue_;
  extent_mapping mapping_;
  std::unique_ptr<pending_items> pending_;  ///< if the items of dead processes go back
};

}  // namespace procpool::detail
