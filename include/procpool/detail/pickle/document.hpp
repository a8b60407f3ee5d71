// SPDX-License-Identifier: MIT
/// @file
/// A pickle after it was read: a graph of plain values. Strings lie in the message itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The Python types of plain values. An int of more than 64 bits is a big_integer.
enum class pickle_kind : std::uint8_t {
  none,
  boolean,
  integer,
  big_integer,
  real,
  text,
  bytes,
  list,
  tuple,
  dict,
  set
};

/// As in Python: "int", "str".
[[nodiscard]] constexpr const char* name_of(pickle_kind kind) noexcept {
  constexpr const char* names[] = {"None",  "bool", "int",   "int of more than 64 bits",
                                   "float", "str",  "bytes", "list",
                                   "tuple", "dict", "set"};
  return names[static_cast<int>(kind)];
}

/// The index of a value in its document.
using pickle_index = std::uint32_t;

struct pickle_node {
  using elements = std::vector<pickle_index>;

  std::uint64_t offset = 0;  ///< of its opcode in the message
  pickle_kind kind = pickle_kind::none;
  bool negative = false;   ///< of an integer: its bits are those of a std::int64_t
  std::uint64_t bits = 0;  ///< of numbers; of text and bytes: where they begin in the message
  std::uint64_t size = 0;  ///< of text and bytes
  std::unique_ptr<elements> parts;  ///< null: none. Of a dict: key, value, key, value ...
};

struct pickle_document {
  std::span<const std::byte> message;
  std::vector<pickle_node> nodes;
  pickle_index root = 0;
};

/// What the values made of one document may need. A document refers to the same part as often as
/// it likes, so a short one can stand for very much.
struct pickle_budget {
  static constexpr std::uint64_t least = std::uint64_t{64} << 20;
  explicit pickle_budget(std::size_t message_size) noexcept
      : left(least + 16 * std::uint64_t{message_size}) {}
  std::uint64_t left;  ///< bytes, approximately
};

/// One value of a document that is being converted.
class pickle_view {
 public:
  pickle_view(const pickle_document& of, pickle_index index, pickle_budget& budget) noexcept
      : of_(&of), node_(&of.nodes[index]), budget_(&budget) {}

  [[nodiscard]] pickle_kind kind() const noexcept { return node_->kind; }
  [[nodiscard]] const pickle_node& node() const noexcept { return *node_; }

  /// The content of text or bytes. @throws DecodeError when the budget is spent
  [[nodiscard]] std::span<const std::byte> content() const {
    spend(node_->size);
    return of_->message.subspan(node_->bits, node_->size);
  }

  [[nodiscard]] std::size_t size() const noexcept {
    return node_->parts != nullptr ? node_->parts->size() : 0;
  }
  [[nodiscard]] pickle_view part(std::size_t i) const noexcept {
    return {*of_, (*node_->parts)[i], *budget_};
  }
  /// Before @p count parts are made that take @p each bytes. @throws DecodeError
  void spend(std::uint64_t count, std::uint64_t each = 1) const {
    const std::uint64_t wanted = count * each;  // no overflow: a message has less than 2^40 bytes
    if (wanted > budget_->left) fail("a pickle that repeats its parts too often");
    budget_->left -= wanted;
  }

  [[noreturn]] void fail(std::string_view why) const {
    throw DecodeError(std::string(why), static_cast<std::size_t>(node_->offset));
  }
  [[noreturn]] void expected(std::string_view what) const {
    fail(concat({"a ", name_of(kind()), " where ", what, " was expected"}));
  }

 private:
  const pickle_document* of_;
  const pickle_node* node_;
  pickle_budget* budget_;
};

}  // namespace procpool::detail
