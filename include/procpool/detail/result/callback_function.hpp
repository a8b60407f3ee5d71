// SPDX-License-Identifier: MIT
/// @file
/// The type of callbacks in options; checks at compile time what they are called with.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <type_traits>
#include <utility>

namespace procpool::detail {

/// Converts to a std::function. It is not derived from std::function: then an empty one would count
/// as a callable and be wrapped.
template <class... A>
class callback_function {
  using base = std::function<void(A...)>;

 public:
  callback_function() = default;
  // NOLINTBEGIN(google-explicit-constructor, bugprone-forwarding-reference-overload): as
  // std::function
  callback_function(std::nullptr_t) noexcept {}
  template <class F>
    requires(!std::is_same_v<callback_function, std::decay_t<F>>)
  callback_function(F&& call) : function_(checked(std::forward<F>(call))) {}
  operator base() const& { return function_; }
  operator base() && noexcept { return std::move(function_); }
  // NOLINTEND(google-explicit-constructor, bugprone-forwarding-reference-overload)

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(function_); }

 private:
  template <class F>
  static base checked(F&& call) {
    constexpr bool fits = std::is_invocable_v<std::decay_t<F>&, A...>;
    constexpr bool of_error = (std::is_same_v<A, std::exception_ptr> && ... && (sizeof...(A) == 1));
    static_assert(fits || of_error || sizeof...(A) == 0,
                  "procpool: a callback is called with the result of the task (a map's with the "
                  "vector of all): [](const auto& result) { ... }");
    static_assert(fits || of_error || sizeof...(A) != 0,
                  "procpool: the callback of a task that returns nothing takes no argument");
    static_assert(fits || !of_error, "procpool: an error_callback takes a std::exception_ptr");
    if constexpr (fits) return base(std::forward<F>(call));
    return base();
  }

  base function_;
};

}  // namespace procpool::detail
