// SPDX-License-Identifier: MIT
/// @file
/// Codecs of std::pair, std::tuple, std::optional, std::variant, std::unique_ptr, std::bitset.
/// Variants and bitsets are recognized by their names, so that this header does not include theirs.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/codec/containers.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

namespace procpool {

template <class A, class B>
struct codec<std::pair<A, B>> : detail::same_level {
  using parts = detail::type_list<std::remove_cv_t<A>, std::remove_cv_t<B>>;
  static constexpr std::size_t min_wire_size = detail::total_wire_size(parts{});

  static void encode(encoder& e, const std::pair<A, B>& value) {
    e.put(value.first);
    e.put(value.second);
  }
  static std::pair<A, B> decode(decoder& d) {
    if constexpr (detail::decoded_in_place_v<std::pair<A, B>>) {
      return detail::decoded<std::pair<A, B>>(d);
    } else {
      // Braces: the first value is read first.
      return std::pair<A, B>{d.get<std::remove_cv_t<A>>(), d.get<std::remove_cv_t<B>>()};
    }
  }
  static void decode_into(decoder& d, std::pair<A, B>& value) requires(
      std::is_move_assignable_v<A>&& std::is_move_assignable_v<B>) {
    d.get_to(value.first);
    d.get_to(value.second);
  }
};

template <class... Ts>
struct codec<std::tuple<Ts...>> : detail::same_level {
  using parts = detail::type_list<std::remove_cv_t<Ts>...>;
  static constexpr std::size_t min_wire_size = detail::total_wire_size(parts{});

  static void encode(encoder& e, const std::tuple<Ts...>& value) {
    std::apply([&](const auto&... elements) { (e.put(elements), ...); }, value);
  }
  static std::tuple<Ts...> decode([[maybe_unused]] decoder& d) {
    if constexpr (detail::decoded_in_place_v<std::tuple<Ts...>>) {
      return detail::decoded<std::tuple<Ts...>>(d);
    } else {
      return std::tuple<Ts...>{d.get<std::remove_cv_t<Ts>>()...};
    }
  }
  static void decode_into([[maybe_unused]] decoder& d,
                          std::tuple<Ts...>& value) requires((std::is_move_assignable_v<Ts> &&
                                                              ...)) {
    std::apply([&](auto&... elements) { (d.get_to(elements), ...); }, value);
  }
};

template <class T>
struct codec<std::optional<T>> : detail::same_level {
  using parts = detail::type_list<std::remove_cv_t<T>>;
  static constexpr std::size_t min_wire_size = 1;

  static void encode(encoder& e, const std::optional<T>& value) {
    detail::put_flag(e, value.has_value());
    if (value) e.put(*value);
  }
  static std::optional<T> decode(decoder& d) {
    if constexpr (detail::decoded_in_place_v<T>) {
      return detail::decoded<std::optional<T>>(d);
    } else {
      if (!detail::get_flag(d)) return std::nullopt;
      return std::optional<T>(std::in_place, d.get<std::remove_cv_t<T>>());
    }
  }
  static void decode_into(decoder& d, std::optional<T>& value) {
    value.reset();
    if (!detail::get_flag(d)) return;
    if constexpr (detail::decoded_in_place_v<T>) {
      d.get_to(value.emplace());
    } else {
      value.emplace(d.get<std::remove_cv_t<T>>());
    }
  }
};

namespace detail {

template <class T>
concept variant = is_std_name(spelled_name<T>(), "variant<");
template <class T>
concept bitset = is_std_name(spelled_name<T>(), "bitset<");

}  // namespace detail

/// Sends the index of the alternative, then its value. std::monostate is sent as any empty struct.
template <template <class...> class Variant, class... Ts>
  requires(detail::variant<Variant<Ts...>>)
struct codec<Variant<Ts...>> : detail::same_level {
  using type = Variant<Ts...>;
  using parts = detail::type_list<Ts...>;
  using index = std::conditional_t<(sizeof...(Ts) <= 256), std::uint8_t, std::uint32_t>;
  static constexpr std::size_t min_wire_size = sizeof(index);

  static void encode(encoder& e, const type& value) {
    if (value.valueless_by_exception()) {
      throw std::invalid_argument("a std::variant without value cannot be sent");
    }
    e.put(static_cast<index>(value.index()));
    put_alternative(e, value, std::index_sequence_for<Ts...>());
  }
  static type decode(decoder& d) { return alternative<0>(d, d.get<index>()); }

 private:
  template <std::size_t I>
  using alternative_t = std::tuple_element_t<I, std::tuple<Ts...>>;

  template <std::size_t... I>
  static void put_alternative(encoder& e, const type& value, std::index_sequence<I...>) {
    static_cast<void>(((value.index() == I && (e.put(get<I>(value)), true)) || ...));
  }
  template <std::size_t I>
  static type alternative(decoder& d, std::size_t wanted) {
    if constexpr (I == sizeof...(Ts)) {
      d.fail("a std::variant has no alternative " + std::to_string(wanted));
    } else if (wanted == I) {
      return make<I>(d);
    } else {
      return alternative<I + 1>(d, wanted);
    }
  }
  template <std::size_t I>
  static type make(decoder& d) {
    return type(std::in_place_index<I>, d.get<alternative_t<I>>());
  }
  template <std::size_t I>
    requires(detail::decoded_in_place_v<alternative_t<I>>)
  static type make(decoder& d) {
    type value(std::in_place_index<I>);
    d.get_to(get<I>(value));
    return value;
  }
};

namespace detail {

template <class T>
concept single_object = complete<T> && !std::is_array_v<T> && !std::is_polymorphic_v<T>;

}  // namespace detail

/// Sends the pointee by value. Not for classes with virtual functions, which would lose the members
/// of a derived class, nor for arrays, whose length is unknown.
template <detail::single_object T>
struct codec<std::unique_ptr<T>> {
  using parts = detail::type_list<std::remove_cv_t<T>>;
  static constexpr std::size_t min_wire_size = 1;

  static void encode(encoder& e, const std::unique_ptr<T>& value) {
    detail::put_flag(e, value != nullptr);
    if (value) e.put(*value);
  }
  static std::unique_ptr<T> decode(decoder& d) {
    if (!detail::get_flag(d)) return nullptr;
    if constexpr (detail::decoded_in_place_v<T>) {
      auto value = std::make_unique<T>();
      d.get_to(*value);
      return value;
    } else {
      return std::make_unique<T>(d.get<std::remove_cv_t<T>>());
    }
  }
};

/// Eight bits to a byte.
template <template <std::size_t> class Bitset, std::size_t N>
  requires(detail::bitset<Bitset<N>>)
struct codec<Bitset<N>> : detail::same_level {
  static constexpr std::size_t min_wire_size = (N + 7) / 8;

  static void encode(encoder& e, const Bitset<N>& value) {
    detail::put_bits(e, N, [&](std::size_t i) { return value[i]; });
  }
  static Bitset<N> decode(decoder& d) {
    Bitset<N> value;
    detail::get_bits(d, N, [&](std::size_t i) { value[i] = true; });
    return value;
  }
};

}  // namespace procpool
