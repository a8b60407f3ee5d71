// SPDX-License-Identifier: MIT
/// @file
/// Overloads for calls that users try and Pool does not have. Pool derives from pool_misuse, so
/// that such a call selects one of these; its static_assert says what to write instead.
#pragma once

#include <concepts>
#include <initializer_list>
#include <ranges>
#include <type_traits>

namespace procpool::detail {

// NOLINTBEGIN(google-explicit-constructor, bugprone-forwarding-reference-overload): members that
// accept any value in the braces of an options argument

struct any_option {
  any_option() = default;
  template <class T>
  any_option(T&&) {}
};
struct given_option {  // no default: only for braces that set it
  template <class T>
  given_option(T&&) {}
};

// NOLINTEND(google-explicit-constructor, bugprone-forwarding-reference-overload)

/// Options of a call after its arguments, where Python has them.
struct trailing_options {
  any_option timeout = {};
  any_option retries = {};
  any_option stop = {};
  any_option callback = {};
  any_option error_callback = {};
};
/// Options of an imap with .stop, which an imap does not have.
struct stopped_imap {
  any_option chunksize = {};
  any_option buffersize = {};
  any_option timeout = {};
  any_option retries = {};
  given_option stop;
};

template <class...>
inline constexpr bool never = false;

template <class F>
void refuse_trailing_options() {
  static_assert(never<F>,
                "procpool: options come first, as in apply_async({.timeout = 2s}, f, 3); an "
                "argument in braces needs its type, as in std::vector{1, 2}");
}
template <class F, class Items>
void refuse_items() {
  constexpr bool swapped = std::ranges::range<F>;
  static_assert(!swapped, "procpool: the function comes first, then the items: map(f, items)");
  static_assert(swapped || never<F>,
                "procpool: map takes the items as one range: map(f, std::vector{1, 2}); for one "
                "call there is apply(f, 1, 2)");
}
template <class F>
void refuse_spread_items() {
  static_assert(never<F>,
                "procpool: starmap takes the items as one range of tuples: "
                "starmap(f, std::vector{std::tuple{1, 2}}); for one call there is apply(f, 1, 2)");
}
template <class F>
void refuse_number() {
  static_assert(never<F>, "procpool: the options of a map are in braces: {.chunksize = 20}");
}

template <class T>
concept no_items = !std::ranges::input_range<T>;

/// Return type for calls that match no other overload, most often because the function is
/// overloaded or a template, so that the compiler cannot deduce its type. Compilers print the
/// type's name.
struct a_function_that_is_overloaded_or_a_template_needs_a_lambda_around_it {};

#ifdef __clang__
#define PROCPOOL_NO_SUCH_CALL(name)                                            \
  [[clang::unavailable(                                                        \
      "procpool: no such call; a function that is overloaded, or a template, " \
      "needs a lambda around it: [](int x) { return f(x); }")]] void           \
  name(...)
#else
#define PROCPOOL_NO_SUCH_CALL(name) \
  a_function_that_is_overloaded_or_a_template_needs_a_lambda_around_it name(...) = delete
#endif

struct pool_misuse {
  template <class F>
  void apply(F&&, trailing_options) {
    refuse_trailing_options<F>();
  }
  template <class F, class A>
  void apply(F&&, A&&, trailing_options) {
    refuse_trailing_options<F>();
  }
  template <class F, class A, class B>
  void apply(F&&, A&&, B&&, trailing_options) {
    refuse_trailing_options<F>();
  }
  template <class F>
  void apply_async(F&&, trailing_options) {
    refuse_trailing_options<F>();
  }
  template <class F, class A>
  void apply_async(F&&, A&&, trailing_options) {
    refuse_trailing_options<F>();
  }
  template <class F, class A, class B>
  void apply_async(F&&, A&&, B&&, trailing_options) {
    refuse_trailing_options<F>();
  }

  template <class F, no_items Items, class... Rest>
  void map(F&&, Items&&, Rest&&...) {
    refuse_items<F, Items>();
  }
  template <class F, no_items Items, class... Rest>
  void map_async(F&&, Items&&, Rest&&...) {
    refuse_items<F, Items>();
  }
  template <class F, class Item>
  void map_async(F&&, std::initializer_list<Item>, any_option = {}) {
    refuse_items<F, Item>();
  }
  template <class F, class Item>
  void starmap_async(F&&, std::initializer_list<Item>, any_option = {}) {
    refuse_spread_items<F>();
  }
  template <class F, no_items Items, class... Rest>
  void imap(F&&, Items&&, Rest&&...) {
    refuse_items<F, Items>();
  }
  template <class F, no_items Items, class... Rest>
  void imap_unordered(F&&, Items&&, Rest&&...) {
    refuse_items<F, Items>();
  }
  template <class F, no_items Items, class... Rest>
  void starmap(F&&, Items&&, Rest&&...) {
    refuse_spread_items<F>();
  }
  template <class F, no_items Items, class... Rest>
  void starmap_async(F&&, Items&&, Rest&&...) {
    refuse_spread_items<F>();
  }

  template <class F, std::ranges::input_range Items, std::integral Size>
  void map(F&&, Items&&, Size) {
    refuse_number<F>();
  }
  template <class F, std::ranges::input_range Items, std::integral Size>
  void map_async(F&&, Items&&, Size) {
    refuse_number<F>();
  }
  template <class F, std::ranges::input_range Items, std::integral Size>
  void imap(F&&, Items&&, Size) {
    refuse_number<F>();
  }
  template <class F, std::ranges::input_range Items, std::integral Size>
  void imap_unordered(F&&, Items&&, Size) {
    refuse_number<F>();
  }
  template <class F, std::ranges::input_range Items, std::integral Size>
  void starmap(F&&, Items&&, Size) {
    refuse_number<F>();
  }

  template <class F, std::ranges::input_range Items>
  void imap(F&&, Items&&, stopped_imap) {
    static_assert(never<F>,
                  "procpool: an imap has no .stop: leave the loop over it, which cancels the rest");
  }
  template <class F, std::ranges::input_range Items>
  void imap_unordered(F&&, Items&&, stopped_imap) {
    static_assert(never<F>,
                  "procpool: an imap has no .stop: leave the loop over it, which cancels the rest");
  }

  PROCPOOL_NO_SUCH_CALL(apply);
  PROCPOOL_NO_SUCH_CALL(apply_async);
  PROCPOOL_NO_SUCH_CALL(map);
  PROCPOOL_NO_SUCH_CALL(map_async);
  PROCPOOL_NO_SUCH_CALL(starmap);
  PROCPOOL_NO_SUCH_CALL(starmap_async);
  PROCPOOL_NO_SUCH_CALL(imap);
  PROCPOOL_NO_SUCH_CALL(imap_unordered);
};

#undef PROCPOOL_NO_SUCH_CALL

}  // namespace procpool::detail
