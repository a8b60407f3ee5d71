// SPDX-License-Identifier: MIT
/// @file
/// Outcome: the value or the exception of one item of a map.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>
#include <exception>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace procpool {

/// The value or the exception of one item, as Pool::map_outcomes returns it; similar to
/// std::expected<T, std::exception_ptr> of C++23. An item whose worker died holds WorkerDied. For
/// void, value() only tells that there is no exception. One thread at a time, like a std::variant.
/// Python: asyncio.gather with return_exceptions=True.
template <class T>
class Outcome {
  using stored = std::conditional_t<std::is_void_v<T>, std::byte, T>;

 public:
  /// Holds neither value nor exception.
  Outcome() = default;

  /// @returns whether there is a value
  [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }

  /// @returns the value. @throws the item's exception; std::logic_error if there is neither
  [[nodiscard]] const stored& value() const& {
    require();
    return *value_;
  }
  [[nodiscard]] stored& value() & {
    require();
    return *value_;
  }
  [[nodiscard]] stored&& value() && {
    require();
    return *std::move(value_);
  }
  [[nodiscard]] const stored& operator*() const& { return value(); }
  [[nodiscard]] stored& operator*() & { return value(); }
  [[nodiscard]] stored&& operator*() && { return std::move(*this).value(); }
  [[nodiscard]] const stored* operator->() const { return &value(); }
  [[nodiscard]] stored* operator->() { return &value(); }

  /// @returns the item's exception; null if there is none
  [[nodiscard]] std::exception_ptr error() const noexcept { return error_; }

  // ---- for the pool --------------------------------------------------------------------------

  /// @returns whether there is a value or an exception
  [[nodiscard]] bool decided() const noexcept { return value_.has_value() || error_ != nullptr; }
  template <class... A>
  stored& emplace(A&&... arguments) {
    error_ = nullptr;
    return value_.emplace(std::forward<A>(arguments)...);
  }
  void fail(std::exception_ptr error) noexcept {
    value_.reset();
    error_ = std::move(error);
  }
  /// Removes the value or exception.
  void reset() noexcept {
    value_.reset();
    error_ = nullptr;
  }

 private:
  void require() const {
    if (value_.has_value()) [[likely]]
      return;
    if (error_ != nullptr) std::rethrow_exception(error_);
    throw std::logic_error("an Outcome without value or exception");
  }

  std::optional<stored> value_;
  std::exception_ptr error_;  ///< null if there is a value
};

}  // namespace procpool
