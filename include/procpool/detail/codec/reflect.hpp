// SPDX-License-Identifier: MIT
/// @file
/// The fields of plain aggregates. The only file that uses Boost.PFR, and the one to change for
/// another kind of reflection. Fields are counted here and not by Boost.PFR, where a base class, a
/// C array or a move-only std::optional member is a hard error inside its headers. Here such a type
/// must work, or be rejected without an error.
#pragma once

#include <boost/pfr/core.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

#include <procpool/detail/codec/addressable.hpp>

namespace procpool::detail {

template <class... Types>
struct type_list {};

template <class T>
concept complete = requires {
  sizeof(T);
};

/// Whether the fields of a type can be read, and if not, why.
enum class shape {
  plain,
  incomplete,
  not_an_aggregate,
  is_union,
  has_base,
  has_array,
  has_constant,
  has_too_many,
  has_bit_field,
  has_union
};

/// Boost.PFR can bind this many fields at once.
inline constexpr std::size_t max_fields = 100;

// Stand-ins that test whether a braced list initializes an aggregate. They are never called, so
// they have no bodies: a body would be instantiated, and fail, for some members.
// NOLINTBEGIN(google-explicit-constructor)

/// Converts to any type, but not to an lvalue: a copy constructor is never considered, so members
/// that only claim to be copyable (a vector of unique_ptr) do no harm.
struct any_value {
  template <class Type>
  operator Type() const&& noexcept;
};

template <class Base, class Derived>
concept proper_base_of = std::is_base_of_v<Base, Derived> && !std::is_same_v<Base, Derived>;

/// Converts to any base class of `Derived` and to nothing else.
template <class Derived>
struct any_base_of {
  template <proper_base_of<Derived> Base>
  operator Base() const noexcept;
};

// NOLINTEND(google-explicit-constructor)

template <std::size_t>
using any_at = any_value;

/// Whether `T{a, b, ...}` compiles with as many values as there are indices.
template <class T, std::size_t... I>
consteval bool takes(std::index_sequence<I...>) {
  return requires {
    T{any_at<I>{}...};
  };
}

/// Whether `T{a, ..., {}, b, ...}` compiles with as many values before and after the braces.
template <class T, std::size_t... Before, std::size_t... After>
consteval bool takes_braces(std::index_sequence<Before...>, std::index_sequence<After...>) {
  return requires {
    T{any_at<Before>{}..., {}, any_at<After>{}...};
  };
}

/// The largest count that `T` takes, when it takes every count below that: `Low` is taken and
/// `High` is not.
template <class T, std::size_t Low, std::size_t High>
consteval std::size_t bisect_count() {
  constexpr std::size_t middle = Low + (High - Low) / 2;
  if constexpr (middle == Low) {
    return Low;
  } else if constexpr (takes<T>(std::make_index_sequence<middle>{})) {
    return bisect_count<T, middle, High>();
  } else {
    return bisect_count<T, Low, middle>();
  }
}

/// The same when `T` needs a value for some of its members, so that small counts are refused too.
template <class T, std::size_t N, bool Found = false>
consteval std::size_t scan_count() {
  if constexpr (N > max_fields + 1) {
    return Found ? N - 1 : 0;
  } else if constexpr (takes<T>(std::make_index_sequence<N>{})) {
    return scan_count<T, N + 1, true>();
  } else {
    return Found ? N - 1 : scan_count<T, N + 1, false>();
  }
}

/// How many values initialize a `T`; each element of a C array counts, as braces may be left out.
template <class T>
consteval std::size_t count_values() {
  if constexpr (requires { T{}; }) {
    return bisect_count<T, 0, max_fields + 2>();
  } else {
    return scan_count<T, 1>();
  }
}

/// Whether `{}` at position `At` of `N` stands for several values, which only a C array allows.
/// `After` counts down from the number of positions that a single value would leave after it.
template <class T, std::size_t N, std::size_t At, std::size_t After = N - At - 1>
consteval bool is_array_at() {
  if constexpr (takes_braces<T>(std::make_index_sequence<At>{},
                                std::make_index_sequence<After>{})) {
    return After != N - At - 1;
  } else if constexpr (After == 0) {
    return false;  // a member without default constructor
  } else {
    return is_array_at<T, N, At, After - 1>();
  }
}

template <class T, std::size_t N, std::size_t At = 0>
consteval bool has_array() {
  if constexpr (At == N) {
    return false;
  } else if constexpr (is_array_at<T, N, At>()) {
    return true;
  } else {
    return has_array<T, N, At + 1>();
  }
}

template <class T>
inline constexpr std::size_t value_count_v = count_values<T>();

/// Whether the field after the `Before` ones is an anonymous union, which cannot be bound. A named
/// union is a field like others.
template <class T, std::size_t... Before>
consteval bool has_union_behind(std::index_sequence<Before...>) {
  return requires {
    T{any_at<Before>{}..., any_union{}};
  }
  &&!requires {
    T{any_at<Before>{}..., any_class{}};
  };
}
template <class T, std::size_t... I>
consteval bool has_union_among(std::index_sequence<I...>) {
  return (has_union_behind<T>(std::make_index_sequence<I>{}) || ...);
}

/// References to the fields of `value`, in Boost.PFR's own tuple.
template <class T>
constexpr auto tie_fields(T& value) noexcept {
#if (defined(BOOST_PFR_USE_CPP26) && BOOST_PFR_USE_CPP26) || \
    (defined(BOOST_PFR_USE_CPP26_REFLECTION) && BOOST_PFR_USE_CPP26_REFLECTION)
  return boost::pfr::detail::tie_as_tuple(value);
#else
  return boost::pfr::detail::tie_as_tuple(
      value, boost::pfr::detail::size_t_<value_count_v<std::remove_const_t<T>>>{});
#endif
}

template <class T>
using tied_fields_t = decltype(tie_fields(std::declval<T&>()));

template <class T, std::size_t I>
using field_t = std::remove_cvref_t<
    typename boost::pfr::detail::sequence_tuple::tuple_element<I, tied_fields_t<T>>::type>;

/// A reference member looks like a plain one to structured bindings, but makes the aggregate
/// unassignable; so does a const member. Neither can be told from a member whose type is
/// unassignable. If there is one of those, the aggregate is accepted.
template <class T, std::size_t... I>
consteval bool has_constant_among(std::index_sequence<I...>) {
  return !std::is_move_assignable_v<T> && (std::is_move_assignable_v<field_t<T, I>> && ...);
}

/// The shape of an aggregate without base class whose fields can be bound.
template <class T, std::size_t... I>
consteval shape shape_of_fields(std::index_sequence<I...> indices) {
  if ((std::is_array_v<field_t<T, I>> || ...)) return shape::has_array;  // of one element
  return has_constant_among<T>(indices) ? shape::has_constant : shape::plain;
}

/// Base classes are initialized before fields. A first field that accepts any value, as std::any
/// does, is not a base.
template <class T>
consteval bool has_base() {
  if constexpr (requires { T{any_base_of<any_value>{}}; }) {
    return false;
  } else {
    return requires {
      T{any_base_of<T>{}};
    };
  }
}

template <class T>
consteval shape shape_of_aggregate() {
  if constexpr (has_base<T>()) {
    return shape::has_base;
  } else if constexpr (value_count_v<T> == 0) {
    return std::is_empty_v<T> ? shape::plain : shape::has_constant;
  } else if constexpr (has_array<T, value_count_v<T>>()) {
    return shape::has_array;
  } else if constexpr (value_count_v<T> > max_fields) {
    return shape::has_too_many;
  } else if constexpr (has_union_among<T>(std::make_index_sequence<value_count_v<T>>{})) {
    return shape::has_union;
  } else if constexpr (!fields_are_addressable<T, value_count_v<T>>) {
    return shape::has_bit_field;
  } else {
    return shape_of_fields<T>(std::make_index_sequence<value_count_v<T>>{});
  }
}

template <class T>
consteval shape shape_of() {
  if constexpr (!complete<T>) {
    return shape::incomplete;
  } else if constexpr (std::is_union_v<T>) {
    return shape::is_union;
  } else if constexpr (!std::is_class_v<T> || !std::is_aggregate_v<T> ||
                       requires { std::tuple_size<T>::value; }) {
    return shape::not_an_aggregate;  // std::array is one, but has a codec of its own
  } else {
    return shape_of_aggregate<T>();
  }
}

/// A class that is nothing but its public fields: no constructor, base class, C array, reference.
template <class T>
concept plain_aggregate = (shape_of<T>() == shape::plain);

template <class T, class = std::make_index_sequence<value_count_v<T>>>
struct fields_of;

template <class T, std::size_t... I>
struct fields_of<T, std::index_sequence<I...>> {
  using types = type_list<field_t<T, I>...>;
};

/// The types of the fields in their order, without const.
template <class T>
using field_types_t = typename fields_of<T>::types;

template <class Fields, class Visit, std::size_t... I>
constexpr void visit_fields(const Fields& fields, Visit& visit, std::index_sequence<I...>) {
  (visit(boost::pfr::detail::sequence_tuple::get<I>(fields)), ...);
}

/// Calls `visit` with each field of `value`, const or not, in turn.
template <class T, class Visit>
constexpr void for_each_field(T& value, Visit&& visit) {
  constexpr std::size_t count = value_count_v<std::remove_const_t<T>>;
  visit_fields(tie_fields(value), visit, std::make_index_sequence<count>{});
}

}  // namespace procpool::detail
