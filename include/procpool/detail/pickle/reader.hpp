// SPDX-License-Identifier: MIT
/// @file
/// Reads pickles of plain values: Python's protocols 2 to 5 without the opcodes that name classes
/// or call anything. Total: any bytes are a document or a DecodeError, in time and memory
/// proportional to their number. Nothing in a pickle can make it recurse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/pickle/document.hpp>
#include <procpool/detail/pickle/input.hpp>
#include <procpool/detail/pickle/opcodes.hpp>
#include <procpool/detail/pickle/utf8.hpp>

namespace procpool::detail {

class pickle_reader : private pickle_input {
 public:
  explicit pickle_reader(std::span<const std::byte> message) : pickle_input(message) {
    document_.message = message;
  }

  /// Call once. @throws DecodeError; std::bad_alloc
  [[nodiscard]] pickle_document read() {
    for (pickle_kind kind : {pickle_kind::none, pickle_kind::boolean, pickle_kind::boolean}) {
      document_.nodes.emplace_back().kind = kind;
    }
    document_.nodes[true_node].bits = 1;
    if (next_byte() != op(opcode::proto)) fail("not a pickle of protocol 2 to 5");
    check_protocol();
    while (step()) {
    }
    if (left() != 0) fail("bytes after the end of the pickle");
    if (stack_.size() != 1 || !marks_.empty()) fail("a pickle that is not one value");
    document_.root = stack_.back();
    return std::move(document_);
  }

 private:
  // Nodes that need not be made each time: they take one byte in a message.
  static constexpr pickle_index none_node = 0;
  static constexpr pickle_index false_node = 1;
  static constexpr pickle_index true_node = 2;

  /// @returns false at the end
  bool step() {
    const auto code = static_cast<opcode>(next_opcode());
    if (code == opcode::stop) return false;
    if (!read_simple(code) && !read_number(code) && !read_content(code) && !read_container(code) &&
        !read_memo(code)) {
      refuse(code);
    }
    return true;
  }

  [[noreturn]] void refuse(opcode code) const {
    const char* const why = refusal(code);
    if (why != nullptr) fail(why);
    fail(concat({"an unknown opcode ", op(code)}));
  }

  void check_protocol() {
    const unsigned protocol = next_byte();
    if (protocol < 2 || protocol > 5)
      fail(concat({"a pickle of protocol ", protocol, ": 2 to 5 can be read"}));
  }

  // ----------------------------------------------------------------------------- the stack

  pickle_node& push(pickle_kind kind) {
    if (document_.nodes.size() == std::numeric_limits<pickle_index>::max())
      fail("a pickle of too many values");
    stack_.push_back(static_cast<pickle_index>(document_.nodes.size()));
    pickle_node& made = document_.nodes.emplace_back();
    made.kind = kind;
    made.offset = opcode_offset();
    return made;
  }

  /// The lowest position on the stack that belongs to the innermost mark.
  [[nodiscard]] std::size_t bottom() const noexcept { return marks_.empty() ? 0 : marks_.back(); }

  pickle_index pop() {
    if (stack_.size() <= bottom()) fail("a pickle that takes a value where none is");
    const pickle_index top = stack_.back();
    stack_.pop_back();
    return top;
  }

  [[nodiscard]] pickle_index top() const {
    if (stack_.size() <= bottom()) fail("a pickle that takes a value where none is");
    return stack_.back();
  }

  /// Takes all values above the innermost mark, and the mark. In order.
  [[nodiscard]] std::span<const pickle_index> pop_to_mark() {
    if (marks_.empty()) fail("a pickle that goes back to a mark where none is");
    const std::size_t from = marks_.back();
    marks_.pop_back();
    popped_.assign(stack_.begin() + static_cast<std::ptrdiff_t>(from), stack_.end());
    stack_.resize(from);
    return popped_;
  }

  // ----------------------------------------------------------------------------- opcodes

  bool read_simple(opcode code) {
    switch (code) {
      case opcode::none:
        stack_.push_back(none_node);
        return true;
      case opcode::newtrue:
        stack_.push_back(true_node);
        return true;
      case opcode::newfalse:
        stack_.push_back(false_node);
        return true;
      case opcode::proto:
        check_protocol();
        return true;
      case opcode::frame:
        if (next_number(8) > left()) fail("a frame beyond the pickle");
        return true;
      case opcode::mark:
        marks_.push_back(stack_.size());
        return true;
      case opcode::pop:
        pop_value_or_mark();
        return true;
      case opcode::pop_mark:
        static_cast<void>(pop_to_mark());
        return true;
      case opcode::dup:
        stack_.push_back(top());
        return true;
      default:
        return false;
    }
  }

  void pop_value_or_mark() {
    if (!marks_.empty() && stack_.size() == marks_.back()) {
      marks_.pop_back();
    } else {
      static_cast<void>(pop());
    }
  }

  bool read_number(opcode code) {
    switch (code) {
      case opcode::binint:
        push_signed(static_cast<std::int32_t>(next_number(4)));
        return true;
      case opcode::binint1:
        push_signed(static_cast<std::int64_t>(next_number(1)));
        return true;
      case opcode::binint2:
        push_signed(static_cast<std::int64_t>(next_number(2)));
        return true;
      case opcode::long1:
        push_long(next(next_byte()));
        return true;
      case opcode::long4:
        push_long(next(next_number(4)));
        return true;
      case opcode::binfloat: {
        std::uint64_t bits = 0;
        for (std::byte each : next(8)) bits = bits << 8 | std::to_integer<std::uint64_t>(each);
        push(pickle_kind::real).bits = bits;
        return true;
      }
      default:
        return false;
    }
  }

  void push_signed(std::int64_t value) {
    pickle_node& made = push(pickle_kind::integer);
    made.bits = static_cast<std::uint64_t>(value);
    made.negative = value < 0;
  }

  /// A little-endian number in two's complement, of any length.
  void push_long(std::span<const std::byte> bytes) {
    const bool negative = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0};
    const std::byte sign = negative ? std::byte{0xFF} : std::byte{0};
    while (bytes.size() > 8 && bytes.back() == sign) bytes = bytes.first(bytes.size() - 1);
    std::uint64_t bits = negative ? ~std::uint64_t{0} : 0;
    for (std::size_t i = bytes.size(); i-- > 0;)
      bits = bits << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    const bool fits = bytes.size() <= 8 && (!negative || (bits >> 63) != 0);
    pickle_node& made = push(fits ? pickle_kind::integer : pickle_kind::big_integer);
    made.bits = bits;
    made.negative = negative;
  }

  bool read_content(opcode code) {
    switch (code) {
      case opcode::short_binunicode:
        push_content(pickle_kind::text, next_byte());
        return true;
      case opcode::binunicode:
        push_content(pickle_kind::text, next_number(4));
        return true;
      case opcode::binunicode8:
        push_content(pickle_kind::text, next_number(8));
        return true;
      case opcode::short_binbytes:
        push_content(pickle_kind::bytes, next_byte());
        return true;
      case opcode::binbytes:
        push_content(pickle_kind::bytes, next_number(4));
        return true;
      case opcode::binbytes8:
      case opcode::bytearray8:
        push_content(pickle_kind::bytes, next_number(8));
        return true;
      default:
        return false;
    }
  }

  void push_content(pickle_kind kind, std::uint64_t size) {
    const std::size_t from = offset();
    const auto content = next(size);
    if (kind == pickle_kind::text && end_of_utf8(content, true) != size)
      fail("a str that is not UTF-8");
    pickle_node& made = push(kind);
    made.bits = from;
    made.size = size;
  }

  bool read_container(opcode code) {
    switch (code) {
      case opcode::empty_list:
        push(pickle_kind::list);
        return true;
      case opcode::empty_tuple:
        push(pickle_kind::tuple);
        return true;
      case opcode::empty_dict:
        push(pickle_kind::dict);
        return true;
      case opcode::empty_set:
        push(pickle_kind::set);
        return true;
      case opcode::list:
        make(pickle_kind::list, pop_to_mark());
        return true;
      case opcode::tuple:
        make(pickle_kind::tuple, pop_to_mark());
        return true;
      case opcode::dict:
        make(pickle_kind::dict, pop_to_mark());
        return true;
      case opcode::frozenset:
        make(pickle_kind::set, pop_to_mark());
        return true;
      case opcode::tuple1:
      case opcode::tuple2:
      case opcode::tuple3:
        make_tuple(op(code) - op(opcode::tuple1) + 1U);
        return true;
      default:
        return read_addition(code);
    }
  }

  bool read_addition(opcode code) {
    switch (code) {
      case opcode::append:
        take(1);
        add(pickle_kind::list);
        return true;
      case opcode::setitem:
        take(2);
        add(pickle_kind::dict);
        return true;
      case opcode::appends:
        static_cast<void>(pop_to_mark());
        add(pickle_kind::list);
        return true;
      case opcode::setitems:
        static_cast<void>(pop_to_mark());
        add(pickle_kind::dict);
        return true;
      case opcode::additems:
        static_cast<void>(pop_to_mark());
        add(pickle_kind::set);
        return true;
      default:
        return false;
    }
  }

  /// Moves values from the stack to popped_.
  void take(std::size_t count) {
    popped_.resize(count);
    while (count-- > 0) popped_[count] = pop();
  }

  void make_tuple(std::size_t count) {
    take(count);
    make(pickle_kind::tuple, popped_);
  }

  void make(pickle_kind kind, std::span<const pickle_index> parts) {
    if (kind == pickle_kind::dict && parts.size() % 2 != 0) fail("a dict with a key without value");
    pickle_node& made = push(kind);
    if (!parts.empty())
      made.parts = std::make_unique<pickle_node::elements>(parts.begin(), parts.end());
  }

  /// Adds popped_ to the container on top.
  void add(pickle_kind kind) {
    pickle_node& target = document_.nodes[top()];
    if (target.kind != kind)
      fail(concat(
          {"a pickle that adds to a ", name_of(target.kind), " as if it were a ", name_of(kind)}));
    if (kind == pickle_kind::dict && popped_.size() % 2 != 0)
      fail("a dict with a key without value");
    if (popped_.empty()) return;
    if (target.parts == nullptr) target.parts = std::make_unique<pickle_node::elements>();
    target.parts->insert(target.parts->end(), popped_.begin(), popped_.end());
  }

  bool read_memo(opcode code) {
    switch (code) {
      case opcode::memoize:
        memo_[memo_.size()] = top();
        return true;
      case opcode::binput:
        memo_[next_byte()] = top();
        return true;
      case opcode::long_binput:
        memo_[next_number(4)] = top();
        return true;
      case opcode::binget:
        recall(next_byte());
        return true;
      case opcode::long_binget:
        recall(next_number(4));
        return true;
      default:
        return false;
    }
  }

  void recall(std::uint64_t number) {
    const auto found = memo_.find(number);
    if (found == memo_.end())
      fail(concat({"a pickle that refers to value ", number, ", which it has not memorized"}));
    stack_.push_back(found->second);
  }

  pickle_document document_;
  std::vector<pickle_index> stack_;
  std::vector<std::size_t> marks_;
  std::vector<pickle_index> popped_;
  std::unordered_map<std::uint64_t, pickle_index> memo_;
};

}  // namespace procpool::detail
