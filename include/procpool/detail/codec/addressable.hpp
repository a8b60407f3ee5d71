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

/// The answer for a T whose fields have these types.
template <class T, bool all_have_addresses, class... Fields>
using fields_answer = std::bool_constant<all_have_addresses && (is_aligned_in<Fields, T> && ...)>;

#if !defined(__clang__) || __clang_major__ >= 16
/// std::true_type unless one of the N fields of a T is a bit-field or not aligned. Not checked for
/// more than 16 fields: a structured binding names each of them.
template <class T, std::size_t N>
constexpr auto test_fields(T& value) {
  if constexpr (N == 1) {
    auto& [a] = value;
    constexpr bool all = requires {
      &a;
    };
    return fields_answer<T, all, decltype(a)>{};
  } else if constexpr (N == 2) {
    auto& [a, b] = value;
    constexpr bool all = requires {
      &a, &b;
    };
    return fields_answer<T, all, decltype(a), decltype(b)>{};
  } else if constexpr (N == 3) {
    auto& [a, b, c] = value;
    constexpr bool all = requires {
      &a, &b, &c;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c)>{};
  } else if constexpr (N == 4) {
    auto& [a, b, c, d] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d)>{};
  } else if constexpr (N == 5) {
    auto& [a, b, c, d, e] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e)>{};
  } else if constexpr (N == 6) {
    auto& [a, b, c, d, e, f] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f)>{};
  } else if constexpr (N == 7) {
    auto& [a, b, c, d, e, f, g] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g)>{};
  } else if constexpr (N == 8) {
    auto& [a, b, c, d, e, f, g, h] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h)>{};
  } else if constexpr (N == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i)>{};
  } else if constexpr (N == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j)>{};
  } else if constexpr (N == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k)>{};
  } else if constexpr (N == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k), decltype(l)>{};
  } else if constexpr (N == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l, &m;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k), decltype(l), decltype(m)>{};
  } else if constexpr (N == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l, &m, &n;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k), decltype(l), decltype(m), decltype(n)>{};
  } else if constexpr (N == 15) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l, &m, &n, &o;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k), decltype(l), decltype(m), decltype(n), decltype(o)>{};
  } else if constexpr (N == 16) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = value;
    constexpr bool all = requires {
      &a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l, &m, &n, &o, &p;
    };
    return fields_answer<T, all, decltype(a), decltype(b), decltype(c), decltype(d), decltype(e),
                         decltype(f), decltype(g), decltype(h), decltype(i), decltype(j),
                         decltype(k), decltype(l), decltype(m), decltype(n), decltype(o),
                         decltype(p)>{};
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
