// SPDX-License-Identifier: MIT
/// @file
/// The arguments of a call: how they are encoded, decoded and passed.
///
/// Flat arguments lie one after the other and are copied once, into the parameters. Other
/// arguments form a part of the message with its length in front. So the next item is found even if
/// they cannot be decoded, or if a codec reads another length than it wrote.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/invoke.hpp>

namespace procpool::detail {

template <class... P>
inline constexpr bool all_flat_v = (is_flat_v<P> && ...);

// ---- encoding --------------------------------------------------------------------------------

/// Encodes one argument as an S, converted if necessary.
template <class S, class A>
void put_as(encoder& out, A&& argument) {
  if constexpr (std::is_same_v<std::remove_cvref_t<A>, S>) {
    out.put<S>(argument);
  } else {
    const S converted = std::forward<A>(argument);
    out.put<S>(converted);
  }
}

/// Encodes the arguments of one call.
template <class... S, class... A>
void put_arguments(encoder& out, type_list<S...>, A&&... arguments) {
  if constexpr (all_flat_v<S...>) {
    (put_as<S>(out, std::forward<A>(arguments)), ...);
  } else {
    const std::size_t begin = out.begin_part();
    (put_as<S>(out, std::forward<A>(arguments)), ...);
    out.end_part(begin);
  }
}

/// A decoder of the next arguments, of types P, and nothing else.
template <class... P>
[[nodiscard]] decoder next_arguments(decoder& in) {
  if constexpr (all_flat_v<P...>) {
    return in.part((sizeof(P) + ... + 0));
  } else {
    return in.part();
  }
}

// ---- calling ---------------------------------------------------------------------------------

/// Whether a call cannot change the callable, so that the items of a frame can share one object.
template <class F, class... P>
consteval bool calls_as_const() {
  if constexpr (std::is_invocable_v<const F&, P&&...>) {
    return std::is_same_v<std::invoke_result_t<const F&, P&&...>, std::invoke_result_t<F&, P&&...>>;
  }
  return false;
}
template <class F, class... P>
inline constexpr bool is_shareable_v = std::is_empty_v<F> || calls_as_const<F, P...>();

/// The type that is called: const F if a const F gives the same result type.
template <class F, class... P>
using called_t = std::conditional_t<calls_as_const<F, P...>(), const F, F>;

/// The callable of a frame: one object for all items, or, if a call may change it, a fresh one for
/// each. So the result of an item does not depend on earlier items of its chunk.
template <class F, bool shareable>
class frame_callable {
 public:
  /// Decodes it from the start of @p in.
  explicit frame_callable(decoder& in) : callable_(callable_codec<F>::decode(in)) {}

  template <class... P>
  [[nodiscard]] called_t<F, P...>& get() noexcept {
    return callable_;
  }
  [[nodiscard]] callable_label label() const { return label_of(callable_); }

 private:
  F callable_;
};
template <class F>
class frame_callable<F, false> {
 public:
  explicit frame_callable(decoder& in) : bytes_(in.bytes(0).data(), in.remaining()) {
    static_cast<void>(callable_codec<F>::decode(in));
  }

  template <class... P>
  [[nodiscard]] F get() const {
    decoder in(bytes_);
    return callable_codec<F>::decode(in);
  }
  [[nodiscard]] callable_label label() const { return label_of_type<F>(); }

 private:
  std::span<const std::byte> bytes_;
};

/// Calls a function through a pointer to member. Out of line, because inlined code makes g++ 12
/// warn: it takes the lookup of a virtual function, which never runs for other functions, for a
/// read beyond a small object.
template <class F, class... A>
[[gnu::noinline]] decltype(auto) invoke_member(F& member, A&&... arguments) {
  return detail::invoke(member, std::forward<A>(arguments)...);
}

/// Flat arguments of types P, one after the other. Each is copied once, into the parameter.
template <class... P>
struct packed_arguments {
  static constexpr std::size_t size = (sizeof(P) + ... + 0);

  /// Calls @p callable with the arguments at @p from and passes the result to @p take; a byte if
  /// there is no result.
  template <class F, class Take>
  static void call(F& callable, const std::byte* from, Take take) {
    call(callable, from, take, std::index_sequence_for<P...>{});
  }

 private:
  static constexpr std::size_t offset(std::size_t field) noexcept {
    constexpr std::size_t sizes[] = {sizeof(P)..., 0};
    std::size_t sum = 0;
    for (std::size_t i = 0; i < field; ++i) sum += sizes[i];
    return sum;
  }
  // The arguments live until the result is taken: it may refer to one of them.
  template <class F, class Take, std::size_t... I>
  static void call(F& callable, [[maybe_unused]] const std::byte* from, Take& take,
                   std::index_sequence<I...>) {
    constexpr bool returns_void = std::is_void_v<std::invoke_result_t<F&, P&&...>>;
    if constexpr (std::is_member_pointer_v<std::remove_cv_t<F>>) {
      if constexpr (returns_void) {
        invoke_member(callable, load<P>(from + offset(I))...);
        take(std::byte{});
      } else {
        take(invoke_member(callable, load<P>(from + offset(I))...));
      }
    } else if constexpr (returns_void) {
      callable(load<P>(from + offset(I))...);
      take(std::byte{});
    } else {
      take(callable(load<P>(from + offset(I))...));
    }
  }
};

/// The decoded arguments of one call, constructed in place.
template <class... P>
struct argument_list;
template <>
struct argument_list<> {
  static argument_list decode(decoder& /*in*/) { return {}; }
  template <class F, class... Before>
  decltype(auto) pass_to(F& callable, Before&... before) {
    return detail::invoke(callable, std::move(before)...);
  }
};
template <class First, class... Rest>
struct argument_list<First, Rest...> {
  First first;
  argument_list<Rest...> rest;

  // Braces: the arguments are decoded in order.
  static argument_list decode(decoder& in) {
    return {in.template get<First>(), argument_list<Rest...>::decode(in)};
  }
  /// Calls @p callable with all arguments as rvalues.
  template <class F, class... Before>
  decltype(auto) pass_to(F& callable, Before&... before) {
    return rest.pass_to(callable, before..., first);
  }
};

}  // namespace procpool::detail
