// SPDX-License-Identifier: MIT
/// @file
/// Codecs of contiguous sequences: std::string of every character type, std::vector, std::array;
/// and of the views std::string_view and std::span<const T>, which are sent like strings and
/// vectors and refer to the message when received. Included by codec.hpp.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/detail/codec/containers.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace procpool {

template <detail::flat_type Char, class Traits, class Alloc>
struct codec<std::basic_string<Char, Traits, Alloc>> : detail::same_level {
  using type = std::basic_string<Char, Traits, Alloc>;
  static constexpr bool block = true;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    detail::put_block(e, value.data(), value.size());
  }
  static type decode(decoder& d) { return detail::get_container<type>(d); }
};

/// Flat elements are sent as one block, others one by one.
template <class T, class Alloc>
struct codec<std::vector<T, Alloc>> {
  using type = std::vector<T, Alloc>;
  using parts = detail::type_list<T>;
  static constexpr bool adds_level = !detail::is_flat_v<T>;
  static constexpr bool block = detail::is_flat_v<T>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    if constexpr (detail::is_flat_v<T>) {
      detail::put_block(e, value.data(), value.size());
    } else {
      detail::put_elements<T>(e, value, value.size());
    }
  }

  static type decode(decoder& d) {
    if constexpr (detail::is_flat_v<T>) {
      return detail::get_container<type>(d);
    } else {
      const std::size_t n = d.count(detail::min_wire_size_v<T>);
      type value;
      value.reserve(d.reserve_hint<T>(n));
      detail::append_elements(d, n, value);
      return value;
    }
  }
};

/// Eight elements to a byte.
template <class Alloc>
struct codec<std::vector<bool, Alloc>> : detail::same_level {
  using type = std::vector<bool, Alloc>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    e.count(value.size());
    detail::put_bits(e, value.size(), [&](std::size_t i) { return value[i]; });
  }

  static type decode(decoder& d) {
    const auto n = d.get<std::uint64_t>();
    if (n / 8 + (n % 8 != 0 ? 1 : 0) > d.remaining()) d.fail("message ends early");
    type value(n);
    detail::get_bits(d, n, [&](std::size_t i) { value[i] = true; });
    return value;
  }
};

/// The number of elements is part of the type and not sent.
template <class T, std::size_t N>
struct codec<std::array<T, N>> : detail::same_level {
  using parts = detail::type_list<T>;
  static constexpr bool flat = detail::is_flat_v<T> && N != 0;
  static constexpr std::size_t min_wire_size = N * detail::min_wire_size_v<T>;

  static void encode(encoder& e, const std::array<T, N>& value) {
    for (const T& element : value) e.put(element);
  }

  static std::array<T, N> decode(decoder& d) {
    if constexpr (std::is_default_constructible_v<T> && std::is_move_assignable_v<T>) {
      return detail::decoded<std::array<T, N>>(d);
    } else {
      return listed(d, std::make_index_sequence<N>{});
    }
  }
  static void decode_into(decoder& d,
                          std::array<T, N>& value) requires(std::is_move_assignable_v<T>) {
    for (T& element : value) d.get_to(element);
  }

 private:
  template <std::size_t... I>
  static std::array<T, N> listed(decoder& d, std::index_sequence<I...>) {
    return {{(static_cast<void>(I), d.get<T>())...}};
  }
};

template <detail::flat_type Char, class Traits>
struct codec<std::basic_string_view<Char, Traits>> : detail::same_level {
  using type = std::basic_string_view<Char, Traits>;
  static constexpr bool view = true;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    detail::put_block(e, value.data(), value.size());
  }
  static type decode(decoder& d) {
    const auto characters = detail::get_view<Char>(d);
    return {characters.data(), characters.size()};
  }
};

/// Only for const elements, because the message is read-only.
template <detail::viewable T, std::size_t Extent>
struct codec<std::span<const T, Extent>> : detail::same_level {
  using type = std::span<const T, Extent>;
  static constexpr bool view = true;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const type& value) {
    detail::put_block(e, value.data(), value.size());
  }
  static type decode(decoder& d) {
    const auto elements = detail::get_view<T>(d);
    if (Extent != std::dynamic_extent && elements.size() != Extent)
      d.fail("wrong number of elements");
    return type(elements.data(), elements.size());
  }
};

}  // namespace procpool
