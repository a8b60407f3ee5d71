// SPDX-License-Identifier: MIT
/// @file
/// Types of numeric options. They accept integers only: `{.processes = true}`,
/// `{.chunksize = 2.5}` and `{.retries = 'x'}` do not compile. An integer that does not fit (-1
/// for a number of bytes) throws instead of wrapping around.
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
/// Types that convert to an integer implicitly, but are rejected here: bool, characters, floats.
template <class T>
concept no_number = std::is_arithmetic_v<T> && !number_type<T>;

/// @throws std::invalid_argument if Int cannot represent @p value
template <class Int, number_type T>
constexpr Int checked_number(T value) {
  if (std::in_range<Int>(value)) return static_cast<Int>(value);
  throw std::invalid_argument("a number in the options is out of range");
}

/// An option with a default value.
template <number_type Int>
class number {
 public:
  template <number_type T>
  constexpr number(T value)  // NOLINT(google-explicit-constructor): it stands for its value
      : value_(checked_number<Int>(value)) {}
  template <no_number T>
  constexpr number(T) = delete;                               // pass an integer
  constexpr operator Int() const noexcept { return value_; }  // NOLINT: the same

 private:
  Int value_;
};

/// An option that may be left out; a std::optional in all other respects.
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
  constexpr optional_number(T) = delete;  // pass an integer
};

}  // namespace procpool::detail
