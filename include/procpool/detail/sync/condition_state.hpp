// SPDX-License-Identifier: MIT
/// @file
/// A Condition: its lock, and a cell for each thread that waits.
///
/// free -> claimed (owner is written) -> waiting -> marked -> free. A thread claims a cell and goes
/// to `waiting` while it has the lock. notify(), which has the lock, marks the oldest that wait.
/// Who was marked frees its cell only when it has the lock again: if it dies before, its mark is
/// still there, and another one that waits passes it on. See docs/design/shared_objects.md.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <procpool/config.hpp>
#include <procpool/detail/bulk/bulk_memory.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/lock_state.hpp>

namespace procpool::detail {

/// The threads that can wait on one Condition at the same time.
inline constexpr std::uint32_t max_waiters = 4096;

struct waiter_cell {
  static constexpr std::uint32_t waiting = 1;
  static constexpr std::uint32_t marked = 2;  ///< notified

  std::atomic<owner_id> owner;        ///< 0: the cell is free
  std::atomic<std::uint32_t> state;   ///< its owner sleeps on it; 0: neither of the above
  std::atomic<std::uint64_t> ticket;  ///< the order of waiting
};
static_assert(sizeof(waiter_cell) == 16);

/// The body of a Condition. The cells are in its extent.
struct condition_state {
  lock_state lock;                         ///< unless the Condition was made with another lock
  std::atomic<std::uint64_t> next_ticket;  ///< changed by the lock's owner
  std::atomic<std::uint32_t> cell_end;     ///< cells from here on were never used
};

/// A Condition in this process. A value: it refers to the objects. Any thread.
class condition_access {
 public:
  condition_access(const bulk_memory& cells, record_lock lock) noexcept
      : record_(&cells.object()->record()),
        object_(cells.object().get()),
        cells_(reinterpret_cast<waiter_cell*>(cells.data())),
        lock_(lock) {}

  /// Gives the lock back, waits for a notification, takes the lock. @returns false: the time is
  /// over
  /// @throws std::logic_error: this thread does not have the lock; ProcessError: 4096 wait already,
  /// or there is no memory
  bool wait(const os::deadline& until);

  /// Marks up to @p count, the oldest first. @throws std::logic_error: as above
  void notify(std::uint64_t count);

  /// How many wait and are not notified.
  [[nodiscard]] std::uint32_t waiting() const noexcept;

 private:
  [[nodiscard]] condition_state& state() const noexcept {
    return body_as<condition_state>(*record_);
  }
  [[nodiscard]] std::uint32_t cell_end() const noexcept;
  void require_lock(const char* what) const;
  waiter_cell& claim(owner_id self);
  bool claim_used(owner_id self, waiter_cell*& cell) const noexcept;
  void grow();
  bool sleep(waiter_cell& cell, const os::deadline& until);
  [[nodiscard]] waiter_cell* oldest_waiting() const noexcept;
  static bool mark(waiter_cell& cell) noexcept;
  void pass_marks_on();
  void pass_on(waiter_cell& dead, owner_id owner);

  object_record* record_;
  const held_object* object_;
  waiter_cell* cells_;
  record_lock lock_;
};

/// The cells of a new Condition. @throws ProcessError when the system refuses memory
[[nodiscard]] bulk_ptr make_waiter_cells(object_ref condition);
/// Those of one that was received. @throws ProcessError
[[nodiscard]] bulk_ptr find_waiter_cells(object_ref condition);

}  // namespace procpool::detail
