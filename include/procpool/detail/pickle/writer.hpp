// SPDX-License-Identifier: MIT
/// @file
/// Writes pickles of protocol 4, which Python reads since 3.4.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/pickle/opcodes.hpp>
#include <procpool/detail/pickle/utf8.hpp>

namespace procpool::detail {

class pickle_writer {
 public:
  pickle_writer() {
    put(opcode::proto);
    put_number(4, 1);
  }

  void put(opcode code) { out_.push_back(std::byte{op(code)}); }

  void put_integer(std::uint64_t bits, bool negative) {
    if (!negative && bits <= 0xFF) {
      put(opcode::binint1);
      put_number(bits, 1);
    } else if (!negative && bits <= 0xFFFF) {
      put(opcode::binint2);
      put_number(bits, 2);
    } else if (!negative ? bits <= 0x7FFFFFFF : bits >= ~std::uint64_t{0x7FFFFFFF}) {
      put(opcode::binint);
      put_number(bits, 4);
    } else {
      const bool nine = !negative && bits >> 63 != 0;  // one byte more for the sign
      put(opcode::long1);
      put_number(nine ? 9 : 8, 1);
      put_number(bits, 8);
      if (nine) put_number(0, 1);
    }
  }

  void put_real(double value) {
    put(opcode::binfloat);
    const auto bits = std::bit_cast<std::uint64_t>(value);
    for (int shift = 56; shift >= 0; shift -= 8)
      out_.push_back(static_cast<std::byte>(bits >> shift));
  }

  /// @throws std::invalid_argument when it is not UTF-8
  void put_text(std::span<const std::byte> text) {
    if (const std::size_t end = end_of_utf8(text, false); end != text.size()) {
      throw std::invalid_argument(concat({"a text for Python that is not UTF-8 at byte ", end,
                                          ": send it as std::vector<std::byte>"}));
    }
    put_content(text, opcode::short_binunicode, opcode::binunicode, opcode::binunicode8);
  }

  void put_bytes(std::span<const std::byte> bytes) {
    put_content(bytes, opcode::short_binbytes, opcode::binbytes, opcode::binbytes8);
  }

  /// After put(opcode::mark) and the elements of a tuple, or for up to 3 without the mark.
  void end_tuple(std::size_t count) {
    constexpr opcode codes[] = {opcode::empty_tuple, opcode::tuple1, opcode::tuple2,
                                opcode::tuple3};
    put(count <= 3 ? codes[count] : opcode::tuple);
  }

  [[nodiscard]] std::vector<std::byte> finish() && {
    put(opcode::stop);
    return std::move(out_);
  }

 private:
  void put_number(std::uint64_t number, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i)
      out_.push_back(static_cast<std::byte>(number >> (8 * i)));
  }

  void put_content(std::span<const std::byte> content, opcode up_to_1, opcode up_to_4,
                   opcode up_to_8) {
    const std::uint64_t size = content.size();
    const bool tiny = size <= 0xFF;
    const bool fits = size <= 0xFFFFFFFF;
    put(tiny ? up_to_1 : fits ? up_to_4 : up_to_8);
    put_number(size, tiny ? 1 : fits ? 4 : 8);
    out_.insert(out_.end(), content.begin(), content.end());
  }

  std::vector<std::byte> out_;
};

}  // namespace procpool::detail
