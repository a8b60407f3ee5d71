// SPDX-License-Identifier: MIT
/// @file
/// Continuations whose job is ready, on their way to the service thread.
///
/// Its lock is always the last one that a thread takes, and is held for a few instructions: so the
/// service thread runs continuation after continuation without the lock of the pool, which those
/// who submit and drive want at the same time.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <mutex>
#include <utility>

#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool::detail {

/// A queue. Each continuation in it keeps its job alive.
class continuation_queue {
 public:
  continuation_queue() = default;
  continuation_queue(const continuation_queue&) = delete;
  continuation_queue& operator=(const continuation_queue&) = delete;
  ~continuation_queue() {
    boost::intrusive_ptr<job> of;
    while (continuation* each = take(of)) each->drop();
  }

  /// All that waits for this job, which is ready. With the pool's lock, which guards their list.
  void put(job& ready) {
    continuation* next = ready.continuations().take();
    const std::lock_guard lock(mutex_);
    std::size_t size = size_.load(std::memory_order_relaxed);  // changed under the lock
    while (next != nullptr) {
      continuation* each = std::exchange(next, next->next_);
      each->next_ = nullptr;
      each->link_ = end_;
      intrusive_ptr_add_ref(each->of_ = &ready);
      *end_ = each;
      end_ = &each->next_;
      ++size;
    }
    size_.store(size, std::memory_order_relaxed);  // see size()
  }

  /// The first, which is not in the queue any more, and @p of becomes its job; null: none.
  [[nodiscard]] continuation* take(boost::intrusive_ptr<job>& of) {
    const std::lock_guard lock(mutex_);
    continuation* first = first_;
    if (first == nullptr) return nullptr;
    of = remove(*first);
    return first;
  }

  /// Takes one out of where it waits or is due; with the pool's lock. No effect when it has been
  /// taken by the thread that runs it.
  /// @returns a reference that it held, to be let go without any lock
  [[nodiscard]] boost::intrusive_ptr<job> withdraw(continuation& what) {
    const std::lock_guard lock(mutex_);
    if (what.link_ == nullptr) return nullptr;
    return remove(what);
  }

  /// How many there are. With the pool's lock it is certain that those which were put before are
  /// seen; one may be taken or withdrawn at any time.
  [[nodiscard]] std::size_t size() const noexcept {
    return size_.load(std::memory_order_relaxed);  // put() had the pool's lock
  }

 private:
  // Out of either kind of list.
  [[nodiscard]] boost::intrusive_ptr<job> remove(continuation& what) noexcept {
    if (what.next_ != nullptr) {
      what.next_->link_ = what.link_;
    } else if (end_ == &what.next_) {
      end_ = what.link_;
    }
    *what.link_ = what.next_;
    what.link_ = nullptr;
    job* of = std::exchange(what.of_, nullptr);
    if (of != nullptr) {  // it was due
      size_.store(size_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);  // locked
    }
    return {of, false};
  }

  std::mutex mutex_;
  continuation* first_ = nullptr;
  continuation** end_ = &first_;  ///< where the next one is linked
  std::atomic<std::size_t> size_{0};
};

}  // namespace procpool::detail
