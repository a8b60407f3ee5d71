// SPDX-License-Identifier: MIT
/// @file
/// The bytes of a pickle, read in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <procpool/detail/base/concat.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class pickle_input {
 public:
  explicit pickle_input(std::span<const std::byte> message) noexcept : message_(message) {}

  [[nodiscard]] std::span<const std::byte> next(std::uint64_t count) {
    if (count > left())
      fail(concat({"a pickle that ends early: ", count, " bytes expected, ", left(), " left"}));
    const auto found = message_.subspan(at_, count);
    at_ += count;
    return found;
  }
  [[nodiscard]] std::uint8_t next_byte() { return std::to_integer<std::uint8_t>(next(1)[0]); }
  [[nodiscard]] std::uint8_t next_opcode() {
    opcode_at_ = at_;
    return next_byte();
  }
  /// A little-endian number of @p count bytes, at most 8.
  [[nodiscard]] std::uint64_t next_number(std::size_t count) {
    std::uint64_t number = 0;
    const auto bytes = next(count);
    for (std::size_t i = 0; i < count; ++i)
      number |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
    return number;
  }

  [[nodiscard]] std::size_t offset() const noexcept { return at_; }
  [[nodiscard]] std::size_t opcode_offset() const noexcept { return opcode_at_; }
  [[nodiscard]] std::size_t left() const noexcept { return message_.size() - at_; }

  /// @throws DecodeError with the offset of the present opcode, always
  [[noreturn]] void fail(std::string_view why) const {
    throw DecodeError(std::string(why), opcode_at_);
  }

 private:
  std::span<const std::byte> message_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
};

}  // namespace procpool::detail
