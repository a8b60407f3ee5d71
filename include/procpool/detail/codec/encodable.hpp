// SPDX-License-Identifier: MIT
/// @file
/// Whether a type has a codec, and all its components have one.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <procpool/detail/codec/flat.hpp>

namespace procpool {

class encoder;
class decoder;

namespace detail {

/// Whether `codec<T>` can be used; says nothing about the components of `T`.
template <class T>
concept has_codec = is_flat_v<T> || requires(encoder& e, decoder& d, const T& value) {
  codec<T>::encode(e, value);
  { codec<T>::decode(d) } -> std::same_as<T>;
};

/// Base of codecs whose types cannot contain themselves except through another codec. All others
/// count against the depth limit.
struct same_level {
  static constexpr bool adds_level = false;
};

template <class T>
inline constexpr bool adds_level_v = !requires {
  requires !codec<T>::adds_level;
};

// The search goes through `codec<T>::parts`, a type_list of the types that the codec of T puts
// and gets. A type found again inside itself (struct node { std::vector<node> kids; }) is already
// being examined, so it is skipped.

template <template <class> class Wanted, class T, class... Seen>
consteval auto search();

template <template <class> class Wanted, class... Seen>
consteval auto search_parts(type_list<>, type_list<Seen...>) {
  return type_list<>{};
}

template <template <class> class Wanted, class First, class... Rest, class... Seen>
consteval auto search_parts(type_list<First, Rest...>, type_list<Seen...> seen) {
  constexpr auto found = search<Wanted, First, Seen...>();
  if constexpr (std::same_as<decltype(found), const type_list<>>) {
    return search_parts<Wanted>(type_list<Rest...>{}, seen);
  } else {
    return found;
  }
}

template <template <class> class Wanted, class T, class... Seen>
consteval auto search() {
  if constexpr ((std::same_as<T, Seen> || ...)) {
    return type_list<>{};
  } else if constexpr (Wanted<T>::value) {
    return type_list<T>{};
  } else if constexpr (requires { typename codec<T>::parts; }) {
    return search_parts<Wanted>(typename codec<T>::parts{}, type_list<T, Seen...>{});
  } else {
    return type_list<>{};
  }
}

/// Whether the codec of T, and not only that of a base of T, fills in an existing object.
template <class T>
concept decodes_into = requires {
  { &codec<T>::decode_into } -> std::same_as<void (*)(decoder&, T&)>;
};

template <class T>
struct lacks_codec : std::bool_constant<!has_codec<T>> {};

template <class T>
concept view_type = requires {
  requires codec<T>::view;
};

template <class T>
struct is_view : std::bool_constant<view_type<T>> {};

/// A type_list with `T`, or its first component, that has no codec; empty if all have one.
template <class T>
using offender_t = decltype(search<lacks_codec, std::remove_cv_t<T>>());

/// Whether a decoded `T` is, or contains, a view into the message.
template <class T>
inline constexpr bool contains_view_v =
    !std::same_as<decltype(search<is_view, std::remove_cv_t<T>>()), type_list<>>;

}  // namespace detail
}  // namespace procpool
