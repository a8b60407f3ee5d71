// SPDX-License-Identifier: MIT
/// @file
/// How single values go to Python and come back: numbers, texts, bytes, None.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <procpool/detail/pickle/document.hpp>
#include <procpool/detail/pickle/writer.hpp>

namespace procpool::detail {

/// How a T is pickled. A specialization has write() and read(), or one of them, and fits(): whether
/// a value of that kind is certainly meant, which decides between the alternatives of a variant.
template <class T>
struct pickled {};

template <class T>
concept can_be_pickled = requires(pickle_writer& out, const T& value) {
  pickled<T>::write(out, value);
};
template <class T>
concept can_be_unpickled = requires(const pickle_view& in) {
  pickled<T>::read(in);
};

/// The integers: not char, which is a letter, nor the types of Unicode's.
template <class T>
concept pickled_integer = std::integral<T> && sizeof(T) <= 8 && !std::same_as<T, bool> &&
                          !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
                          !std::same_as<T, char8_t> && !std::same_as<T, char16_t> &&
                          !std::same_as<T, char32_t>;

template <>
struct pickled<bool> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::boolean; }
  static void write(pickle_writer& out, bool value) {
    out.put(value ? opcode::newtrue : opcode::newfalse);
  }
  static bool read(const pickle_view& in) {
    if (in.kind() != pickle_kind::boolean) in.expected("a bool");
    return in.node().bits != 0;
  }
};

template <pickled_integer T>
struct pickled<T> {
  static bool fits(pickle_kind kind) noexcept {
    return kind == pickle_kind::integer || kind == pickle_kind::big_integer;
  }
  static void write(pickle_writer& out, T value) {
    out.put_integer(static_cast<std::uint64_t>(value), std::signed_integral<T> && value < T{0});
  }
  static T read(const pickle_view& in) {
    if (!fits(in.kind())) in.expected("an int");
    const pickle_node& node = in.node();
    const bool in_range =
        node.kind == pickle_kind::integer &&
        (node.negative ? std::signed_integral<T> && static_cast<std::int64_t>(node.bits) >=
                                                        std::int64_t{std::numeric_limits<T>::min()}
                       : node.bits <= std::uint64_t{std::numeric_limits<T>::max()});
    if (!in_range) in.fail("an int that is out of the range of its C++ type");
    return static_cast<T>(node.bits);
  }
};

/// An int is taken for a float if that is exact, as Python does in calculations.
template <class T>
  requires(std::same_as<T, double> || std::same_as<T, float>)
struct pickled<T> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::real; }
  static void write(pickle_writer& out, T value) { out.put_real(value); }
  static T read(const pickle_view& in) {
    const pickle_node& node = in.node();
    if (node.kind == pickle_kind::real) return static_cast<T>(std::bit_cast<double>(node.bits));
    if (node.kind == pickle_kind::big_integer) in.fail("an int that no float is equal to");
    if (node.kind != pickle_kind::integer) in.expected("a float");
    constexpr std::uint64_t most = std::uint64_t{1} << std::numeric_limits<T>::digits;
    const std::uint64_t magnitude = node.negative ? 0 - node.bits : node.bits;
    if (magnitude > most) in.fail("an int that no float may be equal to");
    return node.negative ? -static_cast<T>(magnitude) : static_cast<T>(magnitude);
  }
};

template <>
struct pickled<std::string_view> {
  static void write(pickle_writer& out, std::string_view text) {
    out.put_text(std::as_bytes(std::span(text.data(), text.size())));
  }
};
template <>
struct pickled<const char*> : pickled<std::string_view> {};
template <std::size_t Size>
struct pickled<char[Size]> : pickled<std::string_view> {};

template <>
struct pickled<std::string> : pickled<std::string_view> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::text; }
  static std::string read(const pickle_view& in) {
    if (!fits(in.kind())) in.expected("a str");
    const auto content = in.content();
    return {reinterpret_cast<const char*>(content.data()), content.size()};
  }
};

template <>
struct pickled<std::span<const std::byte>> {
  static void write(pickle_writer& out, std::span<const std::byte> bytes) { out.put_bytes(bytes); }
};

template <class Allocator>
struct pickled<std::vector<std::byte, Allocator>> : pickled<std::span<const std::byte>> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::bytes; }
  static std::vector<std::byte, Allocator> read(const pickle_view& in) {
    if (!fits(in.kind())) in.expected("a bytes object");
    const auto content = in.content();
    return {content.begin(), content.end()};
  }
};

template <>
struct pickled<std::monostate> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::none; }
  static void write(pickle_writer& out, std::monostate) { out.put(opcode::none); }
  static std::monostate read(const pickle_view& in) {
    if (!fits(in.kind())) in.expected("None");
    return {};
  }
};
template <>
struct pickled<std::nullptr_t> {
  static bool fits(pickle_kind kind) noexcept { return kind == pickle_kind::none; }
  static void write(pickle_writer& out, std::nullptr_t) { out.put(opcode::none); }
  static std::nullptr_t read(const pickle_view& in) {
    if (!fits(in.kind())) in.expected("None");
    return {};
  }
};

}  // namespace procpool::detail
