// SPDX-License-Identifier: MIT
/// @file
/// The functions of list_layout.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include <procpool/codec/decoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/named/list_layout.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What an item is, as the last part of the list says it.
enum class list_code : std::int8_t { number = 0, text = 1, bytes = 2, none = 3 };

/// The bytes of a text or of bytes; null for other values.
inline const std::byte* long_bytes(const list_value& value, std::size_t& size) noexcept {
  if (const auto* text = std::get_if<std::string>(&value)) {
    size = text->size();
    return reinterpret_cast<const std::byte*>(text->data());
  }
  if (const auto* bytes = std::get_if<std::vector<std::byte>>(&value)) {
    size = bytes->size();
    return bytes->data();
  }
  size = 0;
  return nullptr;
}

inline bool is_long(const list_value& value) noexcept {
  return std::holds_alternative<std::string>(value) ||
         std::holds_alternative<std::vector<std::byte>>(value);
}

inline list_code code_of(const list_value& value) noexcept {
  if (std::holds_alternative<std::nullptr_t>(value)) return list_code::none;
  if (std::holds_alternative<std::string>(value)) return list_code::text;
  return is_long(value) ? list_code::bytes : list_code::number;
}

/// @param room of the item's place, in bytes
inline std::string format_of(const list_value& value, std::size_t room) {
  if (std::holds_alternative<std::nullptr_t>(value)) return "xxxxxx?x";
  if (std::holds_alternative<bool>(value)) return "xxxxxxx?";
  if (std::holds_alternative<std::int64_t>(value)) return "q";
  if (std::holds_alternative<double>(value)) return "d";
  return concat({room, "s"});
}

/// The room that a new list gives to an item. A text has one byte more than it needs, at least.
inline std::size_t room_for(const list_value& value) {
  constexpr std::size_t most = 9'999'999UL / 8 * 8;  // "9999992s" has 8 characters
  std::size_t size = 0;
  long_bytes(value, size);
  if (size >= most) {
    throw std::invalid_argument(
        concat({"an item of ", size, " bytes is too long for a ShareableList (", most - 1, ")"}));
  }
  return is_long(value) ? 8 * (size / 8 + 1) : 8;
}

/// The number of an "8s" format; more than any place has if it is none.
inline std::size_t length_in(std::string_view format) noexcept {
  std::size_t length = 0;
  const auto parsed = std::from_chars(format.data(), format.data() + format.size(), length);
  const bool right = parsed.ec == std::errc() && parsed.ptr == format.data() + format.size() - 1 &&
                     *parsed.ptr == 's';
  return right ? length : ~std::size_t{0};
}

[[noreturn, gnu::cold]] inline void no_list(const char* what, std::size_t offset) {
  throw DecodeError(concat({"the shared memory has no ShareableList: ", what}), offset);
}

PROCPOOL_FUNCTION void wrong_kind(std::size_t index, const list_value& found) {
  constexpr std::array names{"None", "a bool", "an int", "a float", "a str", "bytes"};
  throw std::invalid_argument(
      concat({"item ", index, " of the ShareableList is ", names.at(found.index())}));
}

PROCPOOL_FUNCTION void does_not_fit(std::size_t index, std::int64_t found) {
  throw std::out_of_range(
      concat({"item ", index, " of the ShareableList is ", found, ", which does not fit"}));
}

PROCPOOL_FUNCTION list_layout::list_layout(std::span<const list_value> values) : offsets_{0} {
  offsets_.reserve(values.size() + 1);
  for (const list_value& each : values) offsets_.push_back(offsets_.back() + room_for(each));
}

PROCPOOL_FUNCTION list_layout::list_layout(std::span<const std::byte> memory) {
  if (memory.size() < 16) no_list("it is too small", memory.size());
  const std::size_t most = (memory.size() - 16) / 17;  // 17 bytes of each item are not data
  const auto count = load<std::int64_t>(memory.data());
  if (count < 0 || static_cast<std::uint64_t>(count) > most) {
    no_list("the number of items is impossible", 0);
  }
  const auto n = static_cast<std::size_t>(count);
  const std::size_t room = memory.size() - 16 - n * 17;  // for the data
  offsets_.reserve(n + 1);
  for (std::size_t i = 0; i <= n; ++i) {
    const auto offset = load<std::int64_t>(memory.data() + 8 + i * 8);
    const bool possible =
        offset >= 0 && static_cast<std::uint64_t>(offset) <= room &&
        (i == 0 ? offset == 0 : static_cast<std::size_t>(offset) >= offsets_.back());
    if (!possible) no_list("the offset of an item is impossible", 8 + i * 8);
    offsets_.push_back(static_cast<std::size_t>(offset));
  }
}

PROCPOOL_FUNCTION void list_layout::write(std::span<const list_value> values,
                                          std::span<std::byte> memory) const {
  const auto number = static_cast<std::int64_t>(count());
  std::memcpy(memory.data(), &number, sizeof number);
  for (std::size_t i = 0; i < offsets_.size(); ++i) {
    const auto offset = static_cast<std::int64_t>(offsets_[i]);
    std::memcpy(memory.data() + 8 + i * 8, &offset, sizeof offset);
  }
  for (std::size_t i = 0; i < count(); ++i) {
    store(memory, i, values[i], format_of(values[i], offsets_[i + 1] - offsets_[i]));
  }
}

PROCPOOL_FUNCTION list_value list_layout::get(std::span<const std::byte> memory,
                                              std::size_t index) const {
  const std::string how = format(memory, index);
  const auto room = place(memory, index);
  const std::size_t at = data_at() + offsets_[index];
  const auto code = static_cast<list_code>(load<std::int8_t>(memory.data() + codes_at() + index));
  if (code == list_code::none) return nullptr;
  if (code == list_code::text || code == list_code::bytes) {
    const std::size_t length = length_in(how);
    if (length > room.size()) no_list("the length of an item is impossible", at);
    std::vector<std::byte> bytes(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(length));
    while (!bytes.empty() && bytes.back() == std::byte{0}) bytes.pop_back();  // as Python does
    if (code == list_code::bytes) return bytes;
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  if (code != list_code::number) no_list("the type of an item is unknown", codes_at() + index);
  if (room.size() < 8) no_list("the place of an item is too small", at);
  if (how == "q") return load<std::int64_t>(room.data());
  if (how == "d") return load<double>(room.data());
  if (how == "xxxxxxx?") return load<std::uint8_t>(room.data() + 7) != 0;
  no_list("the format of an item is unknown", formats_at() + index * 8);
}

PROCPOOL_FUNCTION void list_layout::set(std::span<std::byte> memory, std::size_t index,
                                        const list_value& value) const {
  const std::string how = format(memory, index);
  const std::size_t room = place(memory, index).size();
  std::size_t size = is_long(value) ? 0 : 8;
  if (is_long(value)) long_bytes(value, size);
  if (size > room) {
    throw std::invalid_argument(concat(
        {"item ", index, " of the ShareableList has room for ", room, " bytes, not for ", size}));
  }
  // As Python does: the place of a text keeps the length in its format.
  const bool keep = is_long(value) && length_in(how) <= room && size <= length_in(how);
  store(memory, index, value, keep ? how : format_of(value, room));
}

PROCPOOL_FUNCTION std::string list_layout::format(std::span<const std::byte> memory,
                                                  std::size_t index) const {
  check(index);
  const auto text = load<std::array<char, 8>>(memory.data() + formats_at() + index * 8);
  const auto end = std::find(text.begin(), text.end(), '\0');
  return std::string(text.begin(), end);
}

PROCPOOL_FUNCTION void list_layout::check(std::size_t index) const {
  if (index < count()) return;
  throw std::out_of_range(
      concat({"there is no item ", index, " in a ShareableList of ", count(), " items"}));
}

PROCPOOL_FUNCTION std::span<const std::byte> list_layout::place(std::span<const std::byte> memory,
                                                                std::size_t index) const noexcept {
  return memory.subspan(data_at() + offsets_[index], offsets_[index + 1] - offsets_[index]);
}

/// The place has room for the value.
PROCPOOL_FUNCTION void list_layout::store(std::span<std::byte> memory, std::size_t index,
                                          const list_value& value, std::string_view format) const {
  const auto code = code_of(value);
  std::memcpy(memory.data() + codes_at() + index, &code, sizeof code);
  std::array<char, 8> how{};
  std::copy_n(format.begin(), std::min(format.size(), how.size()), how.begin());
  std::memcpy(memory.data() + formats_at() + index * 8, how.data(), how.size());

  std::byte* const at = memory.data() + data_at() + offsets_[index];
  std::array<std::byte, 8> number{};
  if (const auto* truth = std::get_if<bool>(&value)) number[7] = std::byte{*truth};
  if (const auto* whole = std::get_if<std::int64_t>(&value)) std::memcpy(&number, whole, 8);
  if (const auto* real = std::get_if<double>(&value)) std::memcpy(&number, real, 8);
  std::size_t size = 0;
  const std::byte* const bytes = long_bytes(value, size);
  if (!is_long(value)) {
    std::memcpy(at, number.data(), number.size());
  } else {
    const std::size_t end = length_in(format);
    if (size != 0) std::memcpy(at, bytes, size);
    std::memset(at + size, 0, end - size);
  }
}

}  // namespace procpool::detail
