// SPDX-License-Identifier: MIT
/// @file
/// Codec of std::filesystem::path. A path is sent as written, neither resolved nor made absolute.
/// It is recognized by its name and members, so that this header does not include <filesystem>.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>

#include <cstddef>
#include <type_traits>

#include <procpool/detail/base/type_name.hpp>

namespace procpool {

namespace detail {

template <class T>
concept filesystem_path = requires(const T& path) {
  path.native();
  path.root_directory();
}
&&is_std_name(spelled_name<T>(), "filesystem::path", "filesystem::__cxx11::path");

}  // namespace detail

template <detail::filesystem_path Path>
struct codec<Path> : detail::same_level {
  using text = typename Path::string_type;
  static constexpr std::size_t min_wire_size = detail::min_wire_size_v<text>;

  static void encode(encoder& e, const Path& value) { e.put(value.native()); }
  static Path decode(decoder& d) { return d.get<text>(); }
};

}  // namespace procpool
