// SPDX-License-Identifier: MIT
/// @file
/// What is to go on when a submission has become ready: a done callback, or a coroutine.
#pragma once

#include <utility>

namespace procpool::detail {

class job;

/// Something that waits for one job, without a thread. It is in at most one list at a time; which
/// one, and its neighbours, are guarded by the lock of the pool (waiting) or of the
/// continuation_queue (due).
class continuation {
 public:
  continuation() = default;
  continuation(const continuation&) = delete;
  continuation& operator=(const continuation&) = delete;

  /// The job is ready. In no list any more, without any lock; the object may be gone afterwards. An
  /// exception is reported and harms nothing.
  virtual void run(job& done) = 0;
  /// It will never be run: the job was forgotten by a forked process that it does not belong to.
  virtual void drop() noexcept = 0;

 protected:
  virtual ~continuation() = default;  // nobody deletes by it, but friends could

 private:
  friend class continuation_list;
  friend class continuation_queue;

  continuation* next_ = nullptr;
  continuation** link_ = nullptr;  ///< the pointer that refers to it; null: in no list
  job* of_ = nullptr;              ///< while it is due: its job, a reference that it owns
};

/// Those that wait for one job, the youngest first.
class continuation_list {
 public:
  continuation_list() = default;
  continuation_list(const continuation_list&) = delete;
  continuation_list& operator=(const continuation_list&) = delete;
  ~continuation_list() {
    while (first_ != nullptr) std::exchange(first_, first_->next_)->drop();
  }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  void push(continuation& what) noexcept {
    what.next_ = first_;
    what.link_ = &first_;
    if (first_ != nullptr) first_->link_ = &what.next_;
    first_ = &what;
  }
  /// All of them, the oldest first, linked by next_ only.
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
