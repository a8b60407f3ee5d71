// SPDX-License-Identifier: MIT
/// @file
/// Finds fields that no reference can be bound to: bit-fields, and fields of packed structs.
/// Boost.PFR fails inside its own headers for them; here the answer is false.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace procpool {
template <class T>
struct codec;
}  // namespace procpool

namespace procpool::detail {

// NOLINTBEGIN(google-explicit-constructor)

/// Converts to any union that has no codec; see any_value in reflect.hpp.
struct any_union {
  template <class Type>
    requires(std::is_union_v<Type> && !requires { sizeof(codec<Type>); })
  operator Type() const&& noexcept;
};
/// Converts to any class.
struct any_class {
  template <class Type>
    requires std::is_class_v<Type>
  operator Type() const&& noexcept;
};

// NOLINTEND(google-explicit-constructor)

/// Whether a field of this type is aligned in a T.
template <class Field, class T>
inline constexpr bool is_aligned_in = std::is_reference_v<Field> || alignof(Field) <= alignof(T);

#if !defined(__clang__) || __clang_major__ >= 16
/// std::true_type unless one of the N fields of a T is a bit-field or not aligned. Not checked for
/// more than 6 fields.
template <class T, std::size_t N>
constexpr auto test_fields(T& value) {
  if constexpr (N == 1) {
    auto& [a] = value;
    return std::bool_constant < requires {
      &a;
    }
    &&is_aligned_in < decltype(a), T >> {};
  } else if constexpr (N == 2) {
    auto& [a, b] = value;
    return std::bool_constant < requires {
      &a, &b;
    }
    &&is_aligned_in<decltype(a), T>&&is_aligned_in < decltype(b), T >> {};
  } else if constexpr (N == 3) {
    auto& [a, b, c] = value;
    return std::bool_constant < requires {
      &a, &b, &c;
    }
    &&is_aligned_in<decltype(a), T>&&is_aligned_in<decltype(b), T>&&is_aligned_in < decltype(c),
        T >> {};
  } else if constexpr (N == 4) {
    auto& [a, b, c, d] = value;
    return std::bool_constant < requires {
      &a, &b, &c, &d;
    }
    &&is_aligned_in<decltype(a), T>&&is_aligned_in<decltype(b), T>&&is_aligned_in<decltype(c), T>
            &&is_aligned_in < decltype(d),
        T >> {};
  } else if constexpr (N == 5) {
    auto& [a, b, c, d, e] = value;
    return std::bool_constant < requires {
      &a, &b, &c, &d, &e;
    }
    &&is_aligned_in<decltype(a), T>&&is_aligned_in<decltype(b), T>&&is_aligned_in<decltype(c), T>
            &&is_aligned_in<decltype(d), T>&&is_aligned_in < decltype(e),
        T >> {};
  } else if constexpr (N == 6) {
    auto& [a, b, c, d, e, f] = value;
    return std::bool_constant < requires {
      &a, &b, &c, &d, &e, &f;
    }
    &&is_aligned_in<decltype(a), T>&&is_aligned_in<decltype(b), T>&&is_aligned_in<decltype(c), T>
            &&is_aligned_in<decltype(d), T>&&is_aligned_in<decltype(e), T>&&is_aligned_in <
        decltype(f),
        T >> {};
  } else {
    return std::true_type{};
  }
}
template <class T, std::size_t N>
inline constexpr bool fields_are_addressable =
    decltype(test_fields<T, N>(std::declval<T&>()))::value;
#else
template <class T, std::size_t N>
inline constexpr bool fields_are_addressable = true;  // this compiler cannot tell
#endif

}  // namespace procpool::detail
