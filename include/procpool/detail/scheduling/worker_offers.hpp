// SPDX-License-Identifier: MIT
/// @file
/// The workers that can get a task now, in the order in which they get one. A part of the
/// scheduler: no system call, no lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace procpool::detail {

inline constexpr std::uint32_t no_worker = std::numeric_limits<std::uint32_t>::max();

/// A list of workers. Each worker is in one list at most.
struct worker_list {
  std::uint32_t first = no_worker;
  std::uint32_t last = no_worker;
};

/// Lists linked by the numbers of workers. Only reserve() and grow() allocate.
class worker_offers {
 public:
  worker_offers() = default;
  worker_offers(const worker_offers&) = delete;  // entries point to the lists
  worker_offers& operator=(const worker_offers&) = delete;

  worker_list idle;            ///< no task; served first, from the back
  worker_list lightly_loaded;  ///< spinning workers with few tasks; served in turn
  worker_list busy;            ///< with room for more; served in turn

  void reserve(std::uint32_t workers) { entries_.reserve(workers); }
  /// There are this many workers; the new ones are in no list.
  void grow(std::uint32_t workers) { entries_.resize(workers); }

  /// Moves the worker to one end of a list, from where it is. The last of a list stays there.
  void put(std::uint32_t worker, worker_list& list, bool at_front) noexcept {
    entry& at = entries_[worker];
    if (at.list == &list && list.last == worker) return;
    remove(worker);
    at.list = &list;
    at.previous = at_front ? no_worker : list.last;
    at.next = at_front ? list.first : no_worker;
    (at.previous != no_worker ? entries_[at.previous].next : list.first) = worker;
    (at.next != no_worker ? entries_[at.next].previous : list.last) = worker;
  }
  /// The worker gets nothing now.
  void remove(std::uint32_t worker) noexcept {
    entry& at = entries_[worker];
    if (at.list == nullptr) return;
    (at.previous != no_worker ? entries_[at.previous].next : at.list->first) = at.next;
    (at.next != no_worker ? entries_[at.next].previous : at.list->last) = at.previous;
    at.list = nullptr;
  }

 private:
  struct entry {
    worker_list* list = nullptr;
    std::uint32_t previous = no_worker;  ///< neighbours in that list
    std::uint32_t next = no_worker;
  };

  std::vector<entry> entries_;
};

}  // namespace procpool::detail
