// SPDX-License-Identifier: MIT
/// @file
/// How somebody is told that one of many jobs has become ready. Nearly all jobs are watched by
/// nobody: then it costs them one null pointer.
///
/// The list of a job's watch points is changed, and its watchers are told, under the lock of the
/// job's pool. A point belongs to its ready_observer, who takes it out of the list before it goes,
/// so the one who tells never meets a ready_observer that is gone. Who is told has only locks of
/// its own to take, none of a pool, and runs no code of the user's.
#pragma once

#include <utility>

namespace procpool::detail {

class job;
struct observer_entry;

class ready_observer {
 public:
  /// The job of this point is ready; the point is in no list any more. Pool's lock held.
  virtual void told(observer_entry& at, const job& what) noexcept = 0;

 protected:
  ~ready_observer() = default;
};

/// One ready_observer's interest in one job. The job must not end before the point is out of its
/// list.
struct observer_entry {
  ready_observer* owner = nullptr;
  job* what = nullptr;
  observer_entry* next = nullptr;   ///< in the list of the job; afterwards the ready_observer's own
  observer_entry** slot = nullptr;  ///< what points to this one in the list; null: it is in none
};

/// The watch points of one job. Pool's lock held.
class observer_list {
 public:
  void add(observer_entry& point) noexcept {
    point.next = first_;
    point.slot = &first_;
    if (first_ != nullptr) first_->slot = &point.next;
    first_ = &point;
  }

  /// From the list that it is in, if any.
  static void remove(observer_entry& point) noexcept {
    if (point.slot == nullptr) return;
    *point.slot = point.next;
    if (point.next != nullptr) point.next->slot = point.slot;
    point.slot = nullptr;
  }

  /// Tells all of them, once. A ready_observer that was told may be gone at once, and its point
  /// with it.
  void tell(const job& what) noexcept {
    while (first_ != nullptr) {
      observer_entry& point = *first_;
      remove(point);
      point.owner->told(point, what);
    }
  }

 private:
  observer_entry* first_ = nullptr;
};

}  // namespace procpool::detail
