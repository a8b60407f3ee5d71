// SPDX-License-Identifier: MIT
/// @file
/// The opcodes of Python's pickle, protocols 2 to 5 (Lib/pickle.py).
#pragma once

#include <cstdint>

namespace procpool::detail {

enum class opcode : std::uint8_t {
  mark = '(',
  stop = '.',
  pop = '0',
  pop_mark = '1',
  dup = '2',
  binbytes = 'B',
  short_binbytes = 'C',
  binfloat = 'G',
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  none = 'N',
  binunicode = 'X',
  empty_list = ']',
  append = 'a',
  dict = 'd',
  appends = 'e',
  binget = 'h',
  long_binget = 'j',
  list = 'l',
  binput = 'q',
  long_binput = 'r',
  setitem = 's',
  tuple = 't',
  setitems = 'u',
  empty_dict = '}',
  empty_tuple = ')',
  proto = 0x80,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8a,
  long4 = 0x8b,
  short_binunicode = 0x8c,
  binunicode8 = 0x8d,
  binbytes8 = 0x8e,
  empty_set = 0x8f,
  additems = 0x90,
  frozenset = 0x91,
  memoize = 0x94,
  frame = 0x95,
  bytearray8 = 0x96,
};

[[nodiscard]] constexpr std::uint8_t op(opcode code) noexcept {
  return static_cast<std::uint8_t>(code);
}

/// Why an opcode that pickle has is not read; null: pickle has none of that number.
[[nodiscard]] constexpr const char* refusal(opcode code) noexcept {
  switch (op(code)) {
    case 'c':   // GLOBAL
    case 'i':   // INST
    case 'o':   // OBJ
    case 'R':   // REDUCE
    case 'b':   // BUILD
    case 0x81:  // NEWOBJ
    case 0x92:  // NEWOBJ_EX
    case 0x93:  // STACK_GLOBAL
    case 0x82:  // EXT1
    case 0x83:  // EXT2
    case 0x84:  // EXT4
      return "a pickle that names a Python class or function: only plain values are read";
    case 'P':   // PERSID
    case 'Q':   // BINPERSID
    case 0x97:  // NEXT_BUFFER
    case 0x98:  // READONLY_BUFFER
      return "a pickle that refers to something outside of it: only plain values are read";
    case 'F':
    case 'I':
    case 'L':
    case 'S':
    case 'T':
    case 'U':
    case 'V':
    case 'g':
    case 'p':
      return "a pickle with an opcode of protocol 0 or 1: protocols 2 to 5 are read";
    default:
      return nullptr;
  }
}

}  // namespace procpool::detail
