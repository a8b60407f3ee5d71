// SPDX-License-Identifier: MIT
/// @file
/// Code addresses that another process understands: (module, offset) pairs. module_table.hpp
/// defines the functions.
#pragma once

#include <cstdint>
#include <string>

namespace procpool::detail {

/// An address in the code of the program or of one of its libraries.
struct code_ref {
  std::uint64_t offset = 0;
  std::uint32_t module = 0;
};

/// The module and offset of @p address. @throws std::invalid_argument if it is not in any module's
/// code.
[[nodiscard]] code_ref find_code(std::uintptr_t address);

/// The address of @p code in this process. @throws std::invalid_argument if it is not loaded here
[[nodiscard]] std::uintptr_t code_address(code_ref code);

/// The demangled name of the function at @p address, for messages; empty if the file has no
/// symbols. Reads the module's file; each thread caches its last result.
[[nodiscard]] std::string symbol_name(std::uintptr_t address);

}  // namespace procpool::detail
