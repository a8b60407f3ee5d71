// SPDX-License-Identifier: MIT
/// @file
/// An intrusive queue of jobs: those with callbacks to run, those without other references, those
/// that an imap_unordered has not returned.
#pragma once

#include <cstddef>
#include <utility>

#include <procpool/detail/result/job.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// Holds a reference to each of its jobs. Linked through the jobs, so adding one allocates nothing
/// and cannot fail. A job is in one list at a time. For one thread at a time.
class job_list {
 public:
  job_list() noexcept = default;
  job_list(job_list&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)),
        last_(std::exchange(other.last_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  job_list& operator=(job_list&& other) noexcept {
    std::swap(first_, other.first_);
    std::swap(last_, other.last_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~job_list() { clear(); }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  void push_back(intrusive_ptr<job> target) noexcept {
    job* last = target.detach();
    last->listed_ = nullptr;
    (last_ != nullptr ? last_->listed_ : first_) = last;
    last_ = last;
    ++size_;
  }
  /// Null: the list is empty.
  [[nodiscard]] intrusive_ptr<job> pop_front() noexcept {
    return first_ != nullptr ? unlink(nullptr) : nullptr;
  }
  /// Removes this job; null: it is not in the list. Linear in its position.
  [[nodiscard]] intrusive_ptr<job> remove(const job* target) noexcept {
    job* before = nullptr;
    for (job* each = first_; each != nullptr; before = std::exchange(each, each->listed_)) {
      if (each == target) return unlink(before);
    }
    return nullptr;
  }
  /// Runs users' destructors: call it without locks.
  void clear() noexcept {
    while (first_ != nullptr) pop_front().reset();
  }

 private:
  [[nodiscard]] intrusive_ptr<job> unlink(job* before) noexcept {
    job*& link = before != nullptr ? before->listed_ : first_;
    job* target = std::exchange(link, link->listed_);
    if (last_ == target) last_ = before;
    target->listed_ = nullptr;
    --size_;
    return {target, false};
  }

  job* first_ = nullptr;
  job* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace procpool::detail
