// SPDX-License-Identifier: MIT
/// @file
/// Codecs of std::deque, std::list and std::forward_list. They are recognized by their names and
/// members, so that this header includes none of theirs.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include <procpool/detail/base/type_name.hpp>

namespace procpool {

namespace detail {

/// Sends elements one by one; received with push_back().
template <class Container>
struct list_codec {
  using element = typename Container::value_type;
  using parts = type_list<element>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const Container& value) {
    put_elements<element>(e, value, value.size());
  }

  static Container decode(decoder& d) {
    const std::size_t n = d.count(min_wire_size_v<element>);
    Container value;
    append_elements(d, n, value);
    return value;
  }
};

template <class T>
concept sequence_list = requires(T& list, typename T::value_type value) {
  list.push_back(std::move(value));
}
&&is_std_name(spelled_name<T>(), "deque<", "list<");

template <class T>
concept forward_sequence = requires(T& list) {
  list.before_begin();
}
&&is_std_name(spelled_name<T>(), "forward_list<");

}  // namespace detail

template <detail::sequence_list List>
struct codec<List> : detail::list_codec<List> {};

template <detail::forward_sequence List>
struct codec<List> {
  using element = typename List::value_type;
  using parts = detail::type_list<element>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const List& value) {
    const auto n = std::distance(value.begin(), value.end());
    detail::put_elements<element>(e, value, static_cast<std::size_t>(n));
  }

  static List decode(decoder& d) {
    const std::size_t n = d.count(detail::min_wire_size_v<element>);
    List value;
    auto last = value.before_begin();
    detail::get_elements<element>(
        d, n, [&](element&& next) { last = value.insert_after(last, std::move(next)); });
    return value;
  }
};

}  // namespace procpool
