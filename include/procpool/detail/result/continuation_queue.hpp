// SPDX-License-Identifier: MIT
/// @file
/// Continuations whose job is ready, queued for the service thread.
///
/// Its lock is always the last one that a thread takes, and is held for a few instructions. So the
/// service thread can run continuations without the pool's lock, which submitting and driving
/// threads need at the same time.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <utility>

#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// Each continuation in the queue keeps its job alive.
class continuation_queue {
 public:
  continuation_queue() = default;
  continuation_queue(const continuation_queue&) = delete;
  continuation_queue& operator=(const continuation_queue&) = delete;
  ~continuation_queue() {
    intrusive_ptr<job> owner;
    while (continuation* each = take(owner)) each->drop();
  }

  /// Adds all continuations of a ready job. Pool's lock held, which guards the job's list.
  void put(job& ready) {
    continuation* next = ready.continuations().take();
    const std::lock_guard lock(mutex_);
    std::size_t size = size_.load(std::memory_order_relaxed);  // changed under the lock
    while (next != nullptr) {
      continuation* each = std::exchange(next, next->next_);
      each->next_ = nullptr;
      each->link_ = end_;
      intrusive_ptr_add_ref(each->job_ = &ready);
      *end_ = each;
      end_ = &each->next_;
      ++size;
    }
    size_.store(size, std::memory_order_relaxed);  // see size()
  }

  /// Removes and returns the first, and sets @p owner to its job; null: the queue is empty.
  [[nodiscard]] continuation* take(intrusive_ptr<job>& owner) {
    const std::lock_guard lock(mutex_);
    continuation* first = first_;
    if (first == nullptr) return nullptr;
    owner = remove(*first);
    return first;
  }

  /// Removes one from the list of its job or from this queue. Pool's lock held. No effect if the
  /// thread that runs it has taken it.
  /// @returns the reference that it held, to be released without any lock
  [[nodiscard]] intrusive_ptr<job> withdraw(continuation& target) {
    const std::lock_guard lock(mutex_);
    if (target.link_ == nullptr) return nullptr;
    return remove(target);
  }

  /// How many there are. With the pool's lock, everything put before is counted; one may be taken
  /// or withdrawn at any time.
  [[nodiscard]] std::size_t size() const noexcept {
    return size_.load(std::memory_order_relaxed);  // put() needs the pool's lock
  }

 private:
  // Removes one from either kind of list.
  [[nodiscard]] intrusive_ptr<job> remove(continuation& target) noexcept {
    if (target.next_ != nullptr) {
      target.next_->link_ = target.link_;
    } else if (end_ == &target.next_) {
      end_ = target.link_;
    }
    *target.link_ = target.next_;
    target.link_ = nullptr;
    job* owner = std::exchange(target.job_, nullptr);
    if (owner != nullptr) {  // it was due
      size_.store(size_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);  // locked
    }
    return {owner, false};
  }

  std::mutex mutex_;
  continuation* first_ = nullptr;
  continuation** end_ = &first_;  ///< the link for the next one
  std::atomic<std::size_t> size_{0};
};

}  // namespace procpool::detail
