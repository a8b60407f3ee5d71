// SPDX-License-Identifier: MIT
// Level 1: codec.
/// @file
/// Codecs of std::deque, std::list and std::forward_list.
#pragma once

#include <procpool/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <forward_list>
#include <iterator>
#include <list>
#include <utility>

namespace procpool {

namespace detail {

/// Elements one by one, received with push_back.
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
    get_elements<element>(d, n, [&](element&& next) { value.push_back(std::move(next)); });
    return value;
  }
};

}  // namespace detail

template <class T, class Alloc>
struct codec<std::deque<T, Alloc>> : detail::list_codec<std::deque<T, Alloc>> {};

template <class T, class Alloc>
struct codec<std::list<T, Alloc>> : detail::list_codec<std::list<T, Alloc>> {};

template <class T, class Alloc>
struct codec<std::forward_list<T, Alloc>> {
  using type = std::forward_list<T, Alloc>;
  using parts = detail::type_list<T>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    const auto n = std::distance(value.begin(), value.end());
    detail::put_elements<T>(e, value, static_cast<std::size_t>(n));
  }

  static type decode(decoder& d) {
    const std::size_t n = d.count(detail::min_wire_size_v<T>);
    type value;
    auto last = value.before_begin();
    detail::get_elements<T>(d, n,
                            [&](T&& next) { last = value.insert_after(last, std::move(next)); });
    return value;
  }
};

}  // namespace procpool
