// SPDX-License-Identifier: MIT
/// @file
/// Outcome: what became of one item of a map, a value or an exception.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <variant>

namespace procpool {

/// The outcome of one item, as Pool::map_outcomes gives it: in Python asyncio.gather with
/// return_exceptions, in later C++ std::expected<T, std::exception_ptr>. For void there is no value
/// to be had, only the absence of an exception.
template <class T>
class Outcome {
  using stored = std::conditional_t<std::is_void_v<T>, std::byte, T>;

 public:
  /// Nothing yet: neither value nor error.
  Outcome() = default;

  /// Whether there is a value.
  [[nodiscard]] bool has_value() const noexcept { return held_.index() == 1; }
  explicit operator bool() const noexcept { return has_value(); }

  /// The value. @throws the exception that the item ended with
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

  /// The exception; null when there is a value.
  [[nodiscard]] std::exception_ptr error() const noexcept {
    const auto* error = std::get_if<2>(&held_);
    return error != nullptr ? *error : nullptr;
  }

  // ---- for the pool --------------------------------------------------------------------------

  /// Whether there is a value or an exception.
  [[nodiscard]] bool decided() const noexcept { return held_.index() != 0; }
  template <class... A>
  stored& emplace(A&&... arguments) {
    return held_.template emplace<1>(std::forward<A>(arguments)...);
  }
  void fail(std::exception_ptr error) noexcept { held_.template emplace<2>(std::move(error)); }
  /// Becomes as it was at first.
  void reset() noexcept { held_.template emplace<0>(); }

 private:
  void require() const {
    if (const auto* error = std::get_if<2>(&held_)) std::rethrow_exception(*error);
    if (held_.index() == 0) throw std::logic_error("an Outcome without value or exception");
  }

  std::variant<std::monostate, stored, std::exception_ptr> held_;
};

}  // namespace procpool
