// SPDX-License-Identifier: MIT
/// @file
/// Builds messages from pieces in one out-of-line function. `"a" + std::to_string(1) + "b"` is
/// expanded at every use, which costs a screen of machine code and much compile time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace procpool::detail {

/// A text or a decimal number. Refers to the text, which must outlive it.
class text_piece {
 public:
  text_piece(std::string_view text) noexcept  // NOLINT(google-explicit-constructor): in braces
      : text_(text) {}
  text_piece(const char* text) noexcept  // NOLINT: the same
      : text_(text != nullptr ? std::string_view(text) : "(null)") {}
  text_piece(const std::string& text) noexcept : text_(text) {}  // NOLINT: the same
  text_piece(char) = delete;
  template <std::integral Int>
  text_piece(Int number) noexcept  // NOLINT: the same
      : is_number_(true),
        negative_(std::signed_integral<Int> && number < Int{0}),
        number_(negative_ ? 0 - static_cast<std::uint64_t>(number)
                          : static_cast<std::uint64_t>(number)) {}

  void append_to(std::string& out) const {
    if (!is_number_) {
      out.append(text_.data(), text_.size());
      return;
    }
    char digits[21];
    std::size_t at = sizeof digits;
    std::uint64_t rest = number_;
    do {
      digits[--at] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    if (negative_) digits[--at] = '-';
    out.append(digits + at, sizeof digits - at);
  }

 private:
  std::string_view text_;
  bool is_number_ = false;
  bool negative_ = false;
  std::uint64_t number_ = 0;
};

/// @returns the pieces, concatenated. For messages only: gnu::cold marks its callers as rare paths.
[[nodiscard, gnu::cold, gnu::noinline]] inline std::string concat(
    std::initializer_list<text_piece> pieces) {
  std::string text;
  for (const text_piece& each : pieces) each.append_to(text);
  return text;
}

}  // namespace procpool::detail
