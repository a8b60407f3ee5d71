// SPDX-License-Identifier: MIT
/// @file
/// The type of callbacks in options; checks at compile time what they are called with.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include <procpool/detail/task/invoke.hpp>

namespace procpool::detail {

/// A class like std::function, whose objects may hold nothing to call.
template <class F>
concept like_std_function = requires(const F& call) {
  typename F::result_type;
  call == nullptr;
};

/// Holds a copyable callable, or none. Not a std::function: to compile <functional> takes longer
/// than all the rest of the options.
template <class... A>
class callback_function {
 public:
  callback_function() = default;
  // NOLINTBEGIN(google-explicit-constructor, bugprone-forwarding-reference-overload): as
  // std::function
  callback_function(std::nullptr_t) noexcept {}
  template <class F>
    requires(!std::is_same_v<callback_function, std::decay_t<F>>)
  callback_function(F&& call) : held_(checked(std::forward<F>(call))) {}
  // NOLINTEND(google-explicit-constructor, bugprone-forwarding-reference-overload)
  callback_function(const callback_function& other)
      : held_(other.held_ != nullptr ? other.held_->copy() : nullptr) {}
  callback_function(callback_function&&) noexcept = default;
  callback_function& operator=(const callback_function& other) {
    *this = callback_function(other);
    return *this;
  }
  callback_function& operator=(callback_function&&) noexcept = default;
  ~callback_function() = default;

  [[nodiscard]] explicit operator bool() const noexcept { return held_ != nullptr; }
  /// Precondition: it holds a callable.
  void operator()(A... arguments) const { held_->call(std::forward<A>(arguments)...); }

 private:
  struct holder {
    holder() = default;
    holder(const holder&) = delete;
    holder& operator=(const holder&) = delete;
    virtual ~holder() = default;
    virtual void call(A... arguments) = 0;
    [[nodiscard]] virtual std::unique_ptr<holder> copy() const = 0;
  };
  template <class F>
  struct holder_of final : holder {
    F function;

    template <class From>
    explicit holder_of(std::in_place_t, From&& from) : function(std::forward<From>(from)) {}
    void call(A... arguments) override {
      static_cast<void>(detail::invoke(function, std::forward<A>(arguments)...));
    }
    [[nodiscard]] std::unique_ptr<holder> copy() const override {
      return std::make_unique<holder_of>(std::in_place, function);
    }
  };

  template <class F>
  static std::unique_ptr<holder> checked(F&& call) {
    using function = std::decay_t<F>;
    constexpr bool fits = std::is_invocable_v<function&, A...>;
    constexpr bool of_error = (std::is_same_v<A, std::exception_ptr> && ... && (sizeof...(A) == 1));
    static_assert(fits || of_error || sizeof...(A) == 0,
                  "procpool: a callback is called with the result of the task (a map's with the "
                  "vector of all): [](const auto& result) { ... }");
    static_assert(fits || of_error || sizeof...(A) != 0,
                  "procpool: the callback of a task that returns nothing takes no argument");
    static_assert(fits || !of_error, "procpool: an error_callback takes a std::exception_ptr");
    if constexpr (fits) {
      static_assert(std::is_copy_constructible_v<function>,
                    "procpool: a callback in options can be copied");
      constexpr bool may_be_null = std::is_pointer_v<function> ||
                                   std::is_member_pointer_v<function> ||
                                   like_std_function<function>;
      if constexpr (may_be_null && !std::is_function_v<std::remove_reference_t<F>>) {
        if (call == nullptr) return nullptr;
      }
      return std::make_unique<holder_of<function>>(std::in_place, std::forward<F>(call));
    }
    return nullptr;
  }

  std::unique_ptr<holder> held_;
};

}  // namespace procpool::detail
