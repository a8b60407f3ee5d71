// SPDX-License-Identifier: MIT
/// @file
/// What runs once a submission is ready: a done callback, or a coroutine.
#pragma once

#include <utility>

namespace procpool::detail {

class job;

/// Waits for one job without a thread. In at most one list at a time. The pool's lock guards the
/// list and its links while it waits, the continuation_queue's lock while it is due.
class continuation {
 public:
  continuation() = default;
  continuation(const continuation&) = delete;
  continuation& operator=(const continuation&) = delete;

  /// The job is ready. Called without any lock, in no list; the object may destroy itself. An
  /// exception is reported and otherwise ignored.
  virtual void run(job& done) = 0;
  /// Called instead of run() when a forked process destroys another process's job.
  virtual void drop() noexcept = 0;

 protected:
  virtual ~continuation() = default;  // not used to delete; friends could

 private:
  friend class continuation_list;
  friend class continuation_queue;

  continuation* next_ = nullptr;
  continuation** link_ = nullptr;  ///< the pointer to this one; null: in no list
  job* job_ = nullptr;             ///< its job while it is due, an owned reference
};

/// The continuations that wait for one job, newest first.
class continuation_list {
 public:
  continuation_list() = default;
  continuation_list(const continuation_list&) = delete;
  continuation_list& operator=(const continuation_list&) = delete;
  ~continuation_list() {
    while (first_ != nullptr) std::exchange(first_, first_->next_)->drop();
  }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  void push(continuation& added) noexcept {
    added.next_ = first_;
    added.link_ = &first_;
    if (first_ != nullptr) first_->link_ = &added.next_;
    first_ = &added;
  }
  /// Removes all of them; returns them oldest first, linked by next_ only.
  [[nodiscard]] continuation* take() noexcept {
    continuation* oldest = nullptr;
    while (first_ != nullptr) {
      continuation* each = std::exchange(first_, first_->next_);
      each->next_ = std::exchange(oldest, each);
    }
    return oldest;
  }

 private:
  continuation* first_ = nullptr;
};

}  // namespace procpool::detail
