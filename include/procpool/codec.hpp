// SPDX-License-Identifier: MIT
/// @file
/// Which types can be sent to another process, and as which bytes. Numbers, enums, strings,
/// vectors, arrays and plain structs of these need only this header. Other standard types have
/// codecs in <procpool/codec/...>. A class of your own gets one by specializing procpool::codec.
/// See docs/codec.md. Python: pickle, but the types are known at compile time.
///
/// The encoding is for processes of one program on one kind of machine: native byte order and
/// sizes, no names, no versions.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/codec/limits.hpp>
#include <procpool/codec/sequence.hpp>
#include <procpool/detail/codec/encodable.hpp>
#include <procpool/detail/codec/flat.hpp>
#include <procpool/detail/codec/reflect.hpp>
#include <procpool/detail/codec/type_diagnostics.hpp>

namespace procpool {

/// How values of type `T` are sent: the only point of customization. A specialization has
///
///     static void encode(encoder&, const T&);   // put the parts of the value
///     static T decode(decoder&);                // get the parts in the same order, and check them
///     static constexpr std::size_t min_wire_size = 8;  // optional: the minimum number of bytes
///     static void decode_into(decoder&, T&);           // optional: for objects of many kilobytes
///
/// decode calls decoder::fail for an impossible value. With min_wire_size, a container of `T` is
/// refused before memory is allocated for elements that the message has no room for. Several
/// threads may call a codec at once. Python: __reduce__().
template <class T>
struct codec;

/// Whether values of type `T`, with all their components, can be sent and received.
template <class T>
concept encodable =
    !std::is_reference_v<T> && std::is_same_v<detail::offender_t<T>, detail::type_list<>>;

/// Whether a received `T` is a view: it refers to the message and is valid as long as the message.
template <class T>
inline constexpr bool is_view_v = detail::is_view<std::remove_cv_t<T>>::value;

/// Compiles if `T` is encodable. Otherwise the compiler says which part of `T` is not, why, and
/// what to do about it.
template <class T>
consteval void assert_encodable() {
  if constexpr (!encodable<T>) {
    []<class Bad>(detail::type_list<Bad>) { detail::explain<Bad, T>(); }(detail::offender_t<T>{});
  }
}

/// Base for the codec of a class with constructors whose bytes are nevertheless its value:
///
///     template <> struct procpool::codec<Point> : procpool::flat_codec<Point> {};
///
/// Only for trivially copyable classes in which every pattern of bytes is valid: no pointers, no
/// bool, no padding. Vectors of them are sent in one copy.
template <class T>
struct flat_codec {
  static constexpr bool flat = std::is_trivially_copyable_v<T>;
};

/// Base for the codec of an enum for which not every number is a value:
///
///     constexpr bool is_color(Color c) { return c <= Color::blue; }
///     template <> struct procpool::codec<Color> : procpool::checked_enum<Color, is_color> {};
///
/// A received number for which `Valid` returns false is a DecodeError.
template <class Enum, auto Valid = nullptr>
struct checked_enum : detail::same_level {
  using number = std::underlying_type_t<Enum>;
  static constexpr std::size_t min_wire_size = sizeof(number);

  static void encode(encoder& e, const Enum& value) { e.put(static_cast<number>(value)); }

  static Enum decode(decoder& d) {
    const auto value = static_cast<Enum>(d.get<number>());
    if constexpr (!std::is_null_pointer_v<decltype(Valid)>) {
      if (!Valid(value)) d.fail("a number that is no value of its enum");
    }
    return value;
  }
};

/// Enums are sent as their underlying type. Any number of that type is accepted.
template <detail::enumeration Enum>
struct codec<Enum> : checked_enum<Enum> {};

/// bool is sent as one byte, 0 or 1.
template <>
struct codec<bool> : detail::same_level {
  static constexpr std::size_t min_wire_size = 1;
  static void encode(encoder& e, const bool& value) { detail::put_flag(e, value); }
  static bool decode(decoder& d) { return detail::get_flag(d); }
};

/// A long double of 80 bits in 16 bytes: the other 6 bytes are sent as zeros.
template <detail::padded_scalar T>
struct codec<T> : detail::same_level {
  using bytes = std::array<std::byte, sizeof(T)>;
  static constexpr std::size_t min_wire_size = sizeof(T);

  static void encode(encoder& e, const T& value) {
    bytes raw{};
    std::memcpy(raw.data(), &value, 10);
    e.put(raw);
  }
  static T decode(decoder& d) { return std::bit_cast<T>(d.get<bytes>()); }
};

/// Plain structs are sent member by member.
template <detail::plain_aggregate T>
struct codec<T> : detail::same_level {
  using parts = detail::field_types_t<T>;
  static constexpr bool flat = detail::is_flat_aggregate<T>();
  static constexpr std::size_t min_wire_size = detail::total_wire_size(parts{});

  static void encode(encoder& e, const T& value) {
    detail::for_each_field(value, [&](const auto& field) { e.put(field); });
  }
  static T decode(decoder& d) { return from_fields(d, parts{}); }
  static void decode_into(decoder& d, T& value) requires(std::is_move_assignable_v<T>) {
    detail::for_each_field(value, [&](auto& field) { d.get_to(field); });
  }

 private:
  // Braces: the fields are read in order, and need not be movable.
  template <class... Fields>
  static T from_fields([[maybe_unused]] decoder& d, detail::type_list<Fields...>) {
    return T{d.get<Fields>()...};
  }
};

}  // namespace procpool
