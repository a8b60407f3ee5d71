// SPDX-License-Identifier: MIT
/// @file
/// How containers of values go to Python and come back: lists, tuples, dicts, sets, what may be
/// None, and alternatives.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/pickle/document.hpp>
#include <procpool/detail/pickle/scalars.hpp>
#include <procpool/detail/pickle/writer.hpp>

namespace procpool::detail {

/// A list goes out; a list or a tuple comes in.
template <class Sequence>
struct pickled_sequence {
  using value_type = typename Sequence::value_type;

  static bool fits(pickle_kind kind) noexcept {
    return kind == pickle_kind::list || kind == pickle_kind::tuple;
  }
  static void write(pickle_writer& out,
                    const Sequence& values) requires can_be_pickled<value_type> {
    out.put(opcode::empty_list);
    out.put(opcode::mark);
    for (const value_type& each : values) pickled<value_type>::write(out, each);
    out.put(opcode::appends);
  }
  static Sequence read(const pickle_view& in) requires can_be_unpickled<value_type> {
    if (!fits(in.kind())) in.expected("a list");
    in.spend(in.size(), sizeof(value_type));
    Sequence made;
    for (std::size_t i = 0; i < in.size(); ++i)
      made.push_back(pickled<value_type>::read(in.part(i)));
    return made;
  }
};
template <class T, class Allocator>
struct pickled<std::vector<T, Allocator>> : pickled_sequence<std::vector<T, Allocator>> {};
template <class T, class Allocator>
struct pickled<std::deque<T, Allocator>> : pickled_sequence<std::deque<T, Allocator>> {};
template <class T, class Allocator>
struct pickled<std::list<T, Allocator>> : pickled_sequence<std::list<T, Allocator>> {};

/// The parts of a tuple of @p size. @throws DecodeError for another size or type
inline void check_tuple(const pickle_view& in, std::size_t size) {
  if (in.kind() != pickle_kind::tuple && in.kind() != pickle_kind::list) in.expected("a tuple");
  if (in.size() != size)
    in.fail(concat({"a tuple of ", in.size(), " values where ", size, " were expected"}));
}

template <class T, std::size_t Size>
struct pickled<std::array<T, Size>> {
  static bool fits(pickle_kind kind) noexcept {
    return kind == pickle_kind::list || kind == pickle_kind::tuple;
  }
  static void write(pickle_writer& out,
                    const std::array<T, Size>& values) requires can_be_pickled<T> {
    if (Size > 3) out.put(opcode::mark);
    for (const T& each : values) pickled<T>::write(out, each);
    out.end_tuple(Size);
  }
  static std::array<T, Size> read(const pickle_view& in) requires can_be_unpickled<T> {
    check_tuple(in, Size);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return std::array<T, Size>{pickled<T>::read(in.part(I))...};
    }
    (std::make_index_sequence<Size>());
  }
};

/// std::tuple and std::pair.
template <class Tuple, class... T>
struct pickled_tuple {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::tuple; }
  static void write(pickle_writer& out, const Tuple& values) requires(can_be_pickled<T>&&...) {
    if (sizeof...(T) > 3) out.put(opcode::mark);
    std::apply([&](const auto&... each) { (pickled<T>::write(out, each), ...); }, values);
    out.end_tuple(sizeof...(T));
  }
  static Tuple read(const pickle_view& in) requires(can_be_unpickled<T>&&...) {
    check_tuple(in, sizeof...(T));
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return Tuple{pickled<T>::read(in.part(I))...};
    }
    (std::index_sequence_for<T...>());
  }
};
template <class... T>
struct pickled<std::tuple<T...>> : pickled_tuple<std::tuple<T...>, T...> {};
template <class First, class Second>
struct pickled<std::pair<First, Second>> : pickled_tuple<std::pair<First, Second>, First, Second> {
};

template <class Map>
struct pickled_map {
  using key_type = typename Map::key_type;
  using mapped_type = typename Map::mapped_type;

  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::dict; }
  static void write(pickle_writer& out, const Map& map) requires(
      can_be_pickled<key_type>&& can_be_pickled<mapped_type>) {
    out.put(opcode::empty_dict);
    out.put(opcode::mark);
    for (const auto& [key, value] : map) {
      pickled<key_type>::write(out, key);
      pickled<mapped_type>::write(out, value);
    }
    out.put(opcode::setitems);
  }
  /// Of a key that occurs twice the last value counts, as in Python.
  static Map read(const pickle_view& in) requires(
      can_be_unpickled<key_type>&& can_be_unpickled<mapped_type>) {
    if (!fits(in.kind())) in.expected("a dict");
    in.spend(in.size() / 2, sizeof(typename Map::value_type) + 32);  // and its node
    Map made;
    for (std::size_t i = 0; i + 1 < in.size(); i += 2) {
      made.insert_or_assign(pickled<key_type>::read(in.part(i)),
                            pickled<mapped_type>::read(in.part(i + 1)));
    }
    return made;
  }
};
template <class... T>
struct pickled<std::map<T...>> : pickled_map<std::map<T...>> {};
template <class... T>
struct pickled<std::unordered_map<T...>> : pickled_map<std::unordered_map<T...>> {};

template <class Set>
struct pickled_set {
  using key_type = typename Set::key_type;

  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::set; }
  static void write(pickle_writer& out, const Set& set) requires can_be_pickled<key_type> {
    out.put(opcode::empty_set);
    out.put(opcode::mark);
    for (const key_type& each : set) pickled<key_type>::write(out, each);
    out.put(opcode::additems);
  }
  static Set read(const pickle_view& in) requires can_be_unpickled<key_type> {
    if (!fits(in.kind())) in.expected("a set");
    in.spend(in.size(), sizeof(key_type) + 32);  // and its node
    Set made;
    for (std::size_t i = 0; i < in.size(); ++i) made.insert(pickled<key_type>::read(in.part(i)));
    return made;
  }
};
template <class... T>
struct pickled<std::set<T...>> : pickled_set<std::set<T...>> {};
template <class... T>
struct pickled<std::unordered_set<T...>> : pickled_set<std::unordered_set<T...>> {};

template <class T>
struct pickled<std::optional<T>> {
  static bool fits(pickle_kind kind) noexcept {
    return kind == pickle_kind::none || pickled<T>::fits(kind);
  }
  static void write(pickle_writer& out, const std::optional<T>& value) requires can_be_pickled<T> {
    value ? pickled<T>::write(out, *value) : out.put(opcode::none);
  }
  static std::optional<T> read(const pickle_view& in) requires can_be_unpickled<T> {
    if (in.kind() == pickle_kind::none) return std::nullopt;
    return pickled<T>::read(in);
  }
};

/// The first alternative that the value's Python type fits comes in. An int is a double only if
/// there is no alternative for ints.
template <class... T>
struct pickled<std::variant<T...>> {
  using variant = std::variant<T...>;

  static bool fits(pickle_kind kind) noexcept { return (pickled<T>::fits(kind) || ...); }
  static void write(pickle_writer& out, const variant& value) requires(can_be_pickled<T>&&...) {
    if (value.valueless_by_exception())
      throw std::invalid_argument("a std::variant without value cannot be pickled");
    std::visit([&]<class Each>(const Each& each) { pickled<Each>::write(out, each); }, value);
  }
  static variant read(const pickle_view& in) requires(can_be_unpickled<T>&&...) {
    std::optional<variant> made;
    const auto read_if = [&]<std::size_t I>(std::in_place_index_t<I> index, bool right) {
      using alternative = std::variant_alternative_t<I, variant>;
      if (right) made.emplace(index, pickled<alternative>::read(in));
      return right;
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      static_cast<void>((read_if(std::in_place_index<I>, pickled<T>::fits(in.kind())) || ...) ||
                        (read_if(std::in_place_index<I>,
                                 std::floating_point<T> && in.kind() == pickle_kind::integer) ||
                         ...));
    }
    (std::index_sequence_for<T...>());
    if (!made) in.expected("one of the types of a std::variant");
    return std::move(*made);
  }
};

}  // namespace procpool::detail
