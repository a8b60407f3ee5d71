// SPDX-License-Identifier: MIT
/// @file
/// Whether bytes are a text.
#pragma once

#include <cstddef>
#include <span>

namespace procpool::detail {

/// The length of the UTF-8 sequence at the front of @p bytes, which are not empty; 0: it is none.
/// @param surrogates whether half a surrogate pair is one, as in Python's pickles
[[nodiscard]] inline std::size_t sequence_length(std::span<const std::byte> bytes,
                                                 bool surrogates) noexcept {
  const auto at = [&](std::size_t i) { return std::to_integer<unsigned>(bytes[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  if ((first == 0xE0 && at(1) < 0xA0) || (first == 0xF0 && at(1) < 0x90)) return 0;  // overlong
  if (first == 0xED && at(1) >= 0xA0 && !surrogates) return 0;
  return first == 0xF4 && at(1) >= 0x90 ? 0 : length;  // above U+10FFFF
}

/// @returns the offset of the first byte that is not UTF-8; the size if there is none
[[nodiscard]] inline std::size_t end_of_utf8(std::span<const std::byte> bytes,
                                             bool surrogates) noexcept {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t length = sequence_length(bytes.subspan(at), surrogates);
    if (length == 0) return at;
    at += length;
  }
  return at;
}

}  // namespace procpool::detail
