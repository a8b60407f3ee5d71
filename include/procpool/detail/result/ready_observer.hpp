// SPDX-License-Identifier: MIT
/// @file
/// Observers that are notified when one of many jobs becomes ready. Nearly all jobs have none,
/// which costs them one null pointer.
///
/// The pool's lock of a job guards its list of entries, also while observers are notified. An entry
/// belongs to its observer, which removes it from the list before it is destroyed. So a notifying
/// thread never meets a destroyed observer. A notified observer takes only its own locks, never a
/// pool's, and runs no user code.
#pragma once

#include <utility>

namespace procpool::detail {

class job;
struct observer_entry;

class ready_observer {
 public:
  /// The job of this entry is ready; the entry is in no list. Pool's lock held.
  virtual void on_ready(observer_entry& entry, const job& what) noexcept = 0;

 protected:
  ~ready_observer() = default;
};

/// The registration of one observer with one job. The job must outlive its time in the list.
struct observer_entry {
  ready_observer* owner = nullptr;
  job* what = nullptr;
  observer_entry* next = nullptr;   ///< in the job's list; afterwards free for the observer
  observer_entry** slot = nullptr;  ///< the pointer to this one in the list; null: in none
};

/// The entries of one job. Pool's lock held.
class observer_list {
 public:
  void add(observer_entry& entry) noexcept {
    entry.next = first_;
    entry.slot = &first_;
    if (first_ != nullptr) first_->slot = &entry.next;
    first_ = &entry;
  }

  /// Removes an entry from its list, if any.
  static void remove(observer_entry& entry) noexcept {
    if (entry.slot == nullptr) return;
    *entry.slot = entry.next;
    if (entry.next != nullptr) entry.next->slot = entry.slot;
    entry.slot = nullptr;
  }

  /// Notifies all of them, once. A notified observer and its entry may be destroyed at once.
  void notify_all(const job& what) noexcept {
    while (first_ != nullptr) {
      observer_entry& entry = *first_;
      remove(entry);
      entry.owner->on_ready(entry, what);
    }
  }

 private:
  observer_entry* first_ = nullptr;
};

}  // namespace procpool::detail
