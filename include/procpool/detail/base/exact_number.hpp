// SPDX-License-Identifier: MIT
/// @file
/// Numbers in options, which take nothing else: `{.processes = true}`, `{.chunksize = 2.5}` and
/// `{.retries = 'x'}` do not compile, and -1 for a number of bytes is no huge one.
#pragma once

#include <concepts>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace procpool::detail {

template <class T>
inline constexpr bool is_character = false;
template <>
inline constexpr bool is_character<char> = true;
template <>
inline constexpr bool is_character<wchar_t> = true;
template <>
inline constexpr bool is_character<char8_t> = true;
template <>
inline constexpr bool is_character<char16_t> = true;
template <>
inline constexpr bool is_character<char32_t> = true;

template <class T>
concept number_type = std::integral<T> && !std::same_as<T, bool> && !is_character<T>;
/// What C++ would make a number of, though nobody means one.
template <class T>
concept no_number = std::is_arithmetic_v<T> && !number_type<T>;

/// @throws std::invalid_argument for a number that Int cannot hold
template <class Int, number_type T>
constexpr Int checked_number(T value) {
  if (std::in_range<Int>(value)) return static_cast<Int>(value);
  throw std::invalid_argument("a number in the options is out of range");
}

/// A number that has a default.
template <number_type Int>
class number {
 public:
  template <number_type T>
  constexpr number(T value)  // NOLINT(google-explicit-constructor): it stands for its value
      : value_(checked_number<Int>(value)) {}
  template <no_number T>
  constexpr number(T) = delete;                               // a number is wanted
  constexpr operator Int() const noexcept { return value_; }  // NOLINT: the same

 private:
  Int value_;
};

/// A number that need not be given. Otherwise a std::optional.
template <number_type Int>
class optional_number : public std::optional<Int> {
 public:
  constexpr optional_number() noexcept = default;
  constexpr optional_number(std::nullopt_t) noexcept {}  // NOLINT(google-explicit-constructor)
  constexpr optional_number(const std::optional<Int>& other) noexcept  // NOLINT: the same
      : std::optional<Int>(other) {}
  template <number_type T>
  constexpr optional_number(T value)  // NOLINT: the same
      : std::optional<Int>(checked_number<Int>(value)) {}
  template <no_number T>
  constexpr optional_number(T) = delete;  // a number is wanted
};

}  // namespace procpool::detail
