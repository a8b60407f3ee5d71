// SPDX-License-Identifier: MIT
/// @file
/// Storage for a value that is constructed later, in place, from a function's return value.
/// std::optional would move it from a temporary on the stack, which has no room for megabytes.
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
    if (other.has_value_) make([&]() -> T&& { return std::move(other.value_); });
  }
  value_slot(const value_slot&) = delete;
  value_slot& operator=(const value_slot&) = delete;
  value_slot& operator=(value_slot&&) = delete;
  ~value_slot() { reset(); }

  /// Replaces the value by the result of @p source(). If it throws, the slot is empty.
  template <class Source>
  T& make(Source source) {
    reset();
    T* const made = ::new (static_cast<void*>(std::addressof(value_))) T(source());
    has_value_ = true;
    return *made;
  }
  T& emplace() {
    return make([] { return T(); });
  }
  void reset() noexcept {
    if (std::exchange(has_value_, false)) std::destroy_at(std::addressof(value_));
  }

  explicit operator bool() const noexcept { return has_value_; }
  [[nodiscard]] T& operator*() noexcept { return value_; }

 private:
  union {
    T value_;
  };
  bool has_value_ = false;
};

}  // namespace procpool::detail
