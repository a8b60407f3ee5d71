// SPDX-License-Identifier: MIT
/// @file
/// Reading small files of /proc and /sys, and parsing their text.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// A small file of /proc or /sys as text; empty if it cannot be read.
inline std::string read_small_file(const std::string& path) {
  const fd file(retry([&] { return PROCPOOL_SYSTEM(open(path.c_str(), O_RDONLY | O_CLOEXEC)); }));
  std::string text;
  std::array<char, 4096> buffer;
  while (file) {
    const auto got =
        retry([&] { return PROCPOOL_SYSTEM(read(file.get(), buffer.data(), buffer.size())); });
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

/// Removes the text up to the first @p separator from @p rest and returns it without the separator;
/// all of it if there is no separator.
inline std::string_view next_field(std::string_view& rest, char separator) {
  const auto end = rest.find(separator);
  if (end >= rest.size()) return std::exchange(rest, {});
  const auto field = rest.substr(0, end);
  rest = rest.substr(end + 1);
  return field;
}

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  while (!text.empty()) fields.push_back(next_field(text, separator));
  return fields;
}

/// The number that @p text begins with; -1, which means no limit, for "max", "-1" and garbage.
inline std::int64_t leading_number(std::string_view text) {
  std::int64_t number = -1;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace procpool::detail::os
