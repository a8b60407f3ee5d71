// SPDX-License-Identifier: MIT
// Level 1: codec.
/// @file
/// Codec of std::filesystem::path, which is sent as written: neither resolved nor made absolute.
#pragma once

#include <procpool/codec.hpp>

#include <cstddef>
#include <filesystem>

namespace procpool {

template <>
struct codec<std::filesystem::path> : detail::same_level {
  using text = std::filesystem::path::string_type;
  static constexpr std::size_t min_wire_size = detail::min_wire_size_v<text>;

  static void encode(encoder& e, const std::filesystem::path& value) { e.put(value.native()); }
  static std::filesystem::path decode(decoder& d) { return d.get<text>(); }
};

}  // namespace procpool
