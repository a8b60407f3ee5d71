// SPDX-License-Identifier: MIT
/// @file
/// Jobs in a row: those that have callbacks to run, those that nobody refers to any more, those
/// that an imap_unordered has not handed out.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <cstddef>
#include <utility>

#include <procpool/detail/result/job.hpp>

namespace procpool::detail {

/// A queue with a reference to each of its jobs. Linked through the jobs, each of which is in one
/// list at a time: so putting one in needs no memory and cannot fail. One thread at a time.
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

  void push_back(boost::intrusive_ptr<job> what) noexcept {
    job* last = what.detach();
    last->listed_ = nullptr;
    (last_ != nullptr ? last_->listed_ : first_) = last;
    last_ = last;
    ++size_;
  }
  /// Null: there is none.
  [[nodiscard]] boost::intrusive_ptr<job> pop_front() noexcept {
    return first_ != nullptr ? unlink(nullptr) : nullptr;
  }
  /// Takes this one out; null: it is not there. Looks at all before it.
  [[nodiscard]] boost::intrusive_ptr<job> remove(const job* what) noexcept {
    job* before = nullptr;
    for (job* each = first_; each != nullptr; before = std::exchange(each, each->listed_)) {
      if (each == what) return unlink(before);
    }
    return nullptr;
  }
  /// Runs destructors of the user's: not with a lock.
  void clear() noexcept {
    while (first_ != nullptr) pop_front().reset();
  }

 private:
  [[nodiscard]] boost::intrusive_ptr<job> unlink(job* before) noexcept {
    job*& link = before != nullptr ? before->listed_ : first_;
    job* what = std::exchange(link, link->listed_);
    if (last_ == what) last_ = before;
    what->listed_ = nullptr;
    --size_;
    return {what, false};
  }

  job* first_ = nullptr;
  job* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace procpool::detail
