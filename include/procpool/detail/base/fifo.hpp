// SPDX-License-Identifier: MIT
/// @file
/// A queue in one contiguous ring. Unlike std::deque it does not allocate once it has grown.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace procpool::detail {

/// A queue of trivial values. Lives in private memory; one thread at a time.
template <class T>
class fifo {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == end_; }
  [[nodiscard]] std::size_t size() const noexcept { return end_ - first_; }
  /// The element @p i places behind the front. Precondition of all access: the element exists.
  [[nodiscard]] T& operator[](std::size_t i) noexcept { return at(first_ + i); }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return at(first_ + i); }
  [[nodiscard]] T& front() noexcept { return at(first_); }
  [[nodiscard]] const T& front() const noexcept { return at(first_); }
  [[nodiscard]] T& back() noexcept { return at(end_ - 1); }
  [[nodiscard]] const T& back() const noexcept { return at(end_ - 1); }

  /// Afterwards the next push_back() cannot fail. @throws std::bad_alloc
  void make_room() {
    if (size() == capacity_) grow();
  }
  /// The same, but returns false when there is no memory.
  [[nodiscard]] bool may_have_room() noexcept {
    if (size() != capacity_) return true;
    try {
      grow();
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  void push_back(const T& value) {
    make_room();
    at(end_++) = value;
  }
  void pop_front() noexcept { ++first_; }

 private:
  [[nodiscard]] T& at(std::size_t cursor) const noexcept {
    return memory_[cursor & (capacity_ - 1)];
  }

  [[gnu::noinline]] void grow() {
    const std::size_t new_capacity = capacity_ == 0 ? 16 : capacity_ * 2;  // a power of two
    auto moved = std::make_unique<T[]>(new_capacity);
    const std::size_t count = size();
    for (std::size_t i = 0; i < count; ++i) moved[i] = (*this)[i];
    memory_ = std::move(moved);
    capacity_ = new_capacity;
    first_ = 0;
    end_ = count;
  }

  std::unique_ptr<T[]> memory_;
  std::size_t capacity_ = 0;
  std::size_t first_ = 0;  ///< first_ and end_ only grow; at() masks them
  std::size_t end_ = 0;
};

}  // namespace procpool::detail
