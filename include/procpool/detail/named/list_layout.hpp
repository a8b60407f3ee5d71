// SPDX-License-Identifier: MIT
/// @file
/// The bytes of a list in shared memory, as Python's ShareableList has them. All numbers are
/// native, and nothing is padded:
///
///     int64     number of items, n
///     int64     offset of each item in the data, and the size of the data: n + 1 numbers
///     data      8 bytes for a number, bool or None; for a text or bytes a multiple of 8
///     char[8]   how each item is stored, in the language of Python's struct module
///     int8      what each item is: 0 number or bool, 1 text, 2 bytes, 3 None
///
/// Python may have written it, and any process that has the memory may write at any time. So all
/// that is read is copied first and then checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <procpool/config.hpp>

namespace procpool::detail {

using list_value =
    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, std::vector<std::byte>>;

/// Errors of reading an item as one type. @throws std::invalid_argument, std::out_of_range
[[noreturn]] void wrong_kind(std::size_t index, const list_value& found);
[[noreturn]] void does_not_fit(std::size_t index, std::int64_t found);

/// Where the items of one list are. What it knows is private to this process.
class list_layout {
 public:
  /// For a new list. @throws std::invalid_argument for a text or bytes of 10 MB or more, which
  /// the format has no room to describe
  explicit list_layout(std::span<const list_value> values);

  /// Of a list in memory. @throws DecodeError if there is none
  explicit list_layout(std::span<const std::byte> memory);

  [[nodiscard]] std::size_t count() const noexcept { return offsets_.size() - 1; }
  /// Of the whole list, in bytes.
  [[nodiscard]] std::size_t size() const noexcept { return codes_at() + count(); }

  /// Writes a new list into memory of size() bytes that are all zero.
  void write(std::span<const list_value> values, std::span<std::byte> memory) const;

  /// @throws std::out_of_range for the index; DecodeError if the item's bytes are no value
  [[nodiscard]] list_value get(std::span<const std::byte> memory, std::size_t index) const;

  /// @throws std::out_of_range for the index; std::invalid_argument if the value has more bytes
  /// than its place. Then nothing is changed.
  void set(std::span<std::byte> memory, std::size_t index, const list_value& value) const;

  /// How an item is stored: "q", "d", "xxxxxxx?", "xxxxxx?x" or "16s".
  /// @throws std::out_of_range for the index
  [[nodiscard]] std::string format(std::span<const std::byte> memory, std::size_t index) const;

 private:
  [[nodiscard]] std::size_t data_at() const noexcept { return (count() + 2) * 8; }
  [[nodiscard]] std::size_t formats_at() const noexcept { return data_at() + offsets_.back(); }
  [[nodiscard]] std::size_t codes_at() const noexcept { return formats_at() + count() * 8; }
  void check(std::size_t index) const;
  [[nodiscard]] std::span<const std::byte> place(std::span<const std::byte> memory,
                                                 std::size_t index) const noexcept;
  void store(std::span<std::byte> memory, std::size_t index, const list_value& value,
             std::string_view format) const;

  std::vector<std::size_t> offsets_;  ///< in the data; one more than items
};

}  // namespace procpool::detail
