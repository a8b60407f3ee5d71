// SPDX-License-Identifier: MIT
/// @file
/// Flat types: those whose bytes are their value, so that one memcpy sends them. Every pattern of
/// bytes is a valid value and every byte belongs to the value: no padding, pointer, bool or enum.
#pragma once

#include <procpool/detail/codec/reflect.hpp>

#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace procpool {

template <class T>
struct codec;

namespace detail {

/// A codec says `flat = true` to have its type copied as bytes.
template <class T>
inline constexpr bool is_flat_v = requires {
  requires codec<std::remove_cv_t<T>>::flat;
};

template <class T>
concept flat_type = is_flat_v<T>;

/// The minimum number of bytes that an encoded `T` takes; 0 if its codec does not say.
template <class T>
consteval std::size_t min_wire_size() {
  using type = std::remove_cv_t<T>;
  if constexpr (is_flat_v<type>) {
    return sizeof(type);
  } else if constexpr (requires { codec<type>::min_wire_size; }) {
    return codec<type>::min_wire_size;
  } else {
    return 0;
  }
}

template <class T>
inline constexpr std::size_t min_wire_size_v = min_wire_size<T>();

template <class... Fields>
consteval std::size_t total_size(type_list<Fields...>) {
  return (sizeof(Fields) + ... + 0);
}

template <class... Fields>
consteval std::size_t total_wire_size(type_list<Fields...>) {
  return (min_wire_size_v<Fields> + ... + 0);
}

template <class... Fields>
consteval bool are_flat(type_list<Fields...>) {
  return (is_flat_v<Fields> && ... && (sizeof...(Fields) != 0));
}

/// Whether the fields are flat and fill the aggregate without a gap.
template <class T>
consteval bool is_flat_aggregate() {
  if constexpr (!std::is_trivially_copyable_v<T>) {
    return false;
  } else {
    using fields = field_types_t<T>;
    return are_flat(fields{}) && total_size(fields{}) == sizeof(T);
  }
}

// Not an arithmetic type under -std=c++20, which has no extensions.
__extension__ using int128 = __int128;
__extension__ using uint128 = unsigned __int128;

/// Numbers and characters. Not bool, of which only two byte values are valid, and not a long double
/// of 80 bits, which has padding.
template <class T>
concept flat_scalar =
    (std::is_arithmetic_v<T> && !std::same_as<T, bool> &&
     !(std::same_as<T, long double> && std::numeric_limits<long double>::digits == 64)) ||
    std::same_as<T, int128> || std::same_as<T, uint128> || std::same_as<T, std::byte>;

/// A long double of 80 bits, on platforms that have it.
template <class T>
concept padded_scalar = std::same_as<T, long double> && !flat_scalar<T>;

template <class T>
concept enumeration = std::is_enum_v<T> && !flat_scalar<T>;

}  // namespace detail

template <detail::flat_scalar T>
struct codec<T> {
  static constexpr bool flat = true;
};

}  // namespace procpool
