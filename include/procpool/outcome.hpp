// SPDX-License-Identifier: MIT
/// @file
/// Outcome: the value or the exception of one item of a map.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <variant>

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
  [[nodiscard]] bool has_value() const noexcept { return held_.index() == 1; }
  explicit operator bool() const noexcept { return has_value(); }

  /// @returns the value. @throws the item's exception; std::logic_error if there is neither
  [[nodiscard]] const stored& value() const& {
    require();
    return std::get<1>(held_);
  }
  [[nodiscard]] stored& value() & {
    require();
    return std::get<1>(held_);
  }
  [[nodiscard]] stored&& value() && {
    require();
    return std::get<1>(std::move(held_));
  }
  [[nodiscard]] const stored& operator*() const& { return value(); }
  [[nodiscard]] stored& operator*() & { return value(); }
  [[nodiscard]] stored&& operator*() && { return std::move(*this).value(); }
  [[nodiscard]] const stored* operator->() const { return &value(); }
  [[nodiscard]] stored* operator->() { return &value(); }

  /// @returns the item's exception; null if there is none
  [[nodiscard]] std::exception_ptr error() const noexcept {
    const auto* error = std::get_if<2>(&held_);
    return error != nullptr ? *error : nullptr;
  }

  // ---- for the pool --------------------------------------------------------------------------

  /// @returns whether there is a value or an exception
  [[nodiscard]] bool decided() const noexcept { return held_.index() != 0; }
  template <class... A>
  stored& emplace(A&&... arguments) {
    return held_.template emplace<1>(std::forward<A>(arguments)...);
  }
  void fail(std::exception_ptr error) noexcept { held_.template emplace<2>(std::move(error)); }
  /// Removes the value or exception.
  void reset() noexcept { held_.template emplace<0>(); }

 private:
  void require() const {
    if (const auto* error = std::get_if<2>(&held_)) std::rethrow_exception(*error);
    if (held_.index() == 0) throw std::logic_error("an Outcome without value or exception");
  }

  std::variant<std::monostate, stored, std::exception_ptr> held_;
};

}  // namespace procpool
