// SPDX-License-Identifier: MIT
/// @file
/// How messages lie in a stream, byte for byte as in Python's multiprocessing.connection: a length
/// of 4 bytes, big-endian and signed, then the message; for a message of 2 GiB or more the length
/// is -1, and 8 bytes with the length follow it.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace procpool::detail {

/// The most bytes that stand before a message.
inline constexpr std::size_t max_head_size = 12;

inline constexpr std::size_t max_short_message = std::numeric_limits<std::int32_t>::max();

/// The bytes before a message.
struct message_head {
  std::array<std::byte, max_head_size> bytes{};
  std::size_t size = 0;
};

/// @p bits with the most significant byte first, on a machine that has it last, and back.
template <class Bits>
[[nodiscard]] constexpr Bits big_endian(Bits bits) noexcept {
  if constexpr (std::endian::native == std::endian::big) return bits;
  return sizeof(Bits) == 4 ? static_cast<Bits>(__builtin_bswap32(static_cast<std::uint32_t>(bits)))
                           : static_cast<Bits>(__builtin_bswap64(bits));
}

[[nodiscard]] inline message_head head_of(std::size_t message_size) noexcept {
  message_head head;
  const auto put = [&](auto bits) {
    bits = big_endian(bits);
    std::memcpy(head.bytes.data() + head.size, &bits, sizeof bits);
    head.size += sizeof bits;
  };
  if (message_size <= max_short_message) {
    put(static_cast<std::uint32_t>(message_size));
  } else {
    put(~std::uint32_t{0});
    put(std::uint64_t{message_size});
  }
  return head;
}

/// The first 4 bytes before a message, as the length that they say; -1: 8 more bytes have it.
[[nodiscard]] inline std::int64_t short_length(const std::byte* bytes) noexcept {
  std::uint32_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return static_cast<std::int32_t>(big_endian(bits));
}

/// The 8 bytes that follow a -1.
[[nodiscard]] inline std::int64_t long_length(const std::byte* bytes) noexcept {
  std::uint64_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return static_cast<std::int64_t>(big_endian(bits));
}

}  // namespace procpool::detail
