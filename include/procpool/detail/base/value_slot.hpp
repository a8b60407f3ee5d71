// SPDX-License-Identifier: MIT
/// @file
/// A place for a value that comes later, and is then made right there: std::optional would take a
/// copy of an object on the stack, where results of megabytes have no room.
#pragma once

#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace procpool::detail {

/// One thread at a time.
template <class T>
class value_slot {
 public:
  value_slot() noexcept {}  // NOLINT(modernize-use-equals-default): of a union
  value_slot(value_slot&& other) noexcept(std::is_nothrow_move_constructible_v<T>) {
    if (other.there_) make([&]() -> T&& { return std::move(other.value_); });
  }
  value_slot(const value_slot&) = delete;
  value_slot& operator=(const value_slot&) = delete;
  value_slot& operator=(value_slot&&) = delete;
  ~value_slot() { reset(); }

  /// The value becomes what @p source() returns; there is none if that throws.
  template <class Source>
  T& make(Source source) {
    reset();
    T* const made = ::new (static_cast<void*>(std::addressof(value_))) T(source());
    there_ = true;
    return *made;
  }
  T& emplace() {
    return make([] { return T(); });
  }
  void reset() noexcept {
    if (std::exchange(there_, false)) std::destroy_at(std::addressof(value_));
  }

  explicit operator bool() const noexcept { return there_; }
  [[nodiscard]] T& operator*() noexcept { return value_; }

 private:
  union {
    T value_;
  };
  bool there_ = false;
};

}  // namespace procpool::detail
