// SPDX-License-Identifier: MIT
/// @file
/// Naming code so that another process finds it: an address as (module, offset). See
/// module_table.hpp, where the functions are defined.
#pragma once

#include <cstdint>
#include <string>

namespace procpool::detail {

/// A place in the code of the program or of one of its libraries.
struct code_ref {
  std::uint64_t offset = 0;
  std::uint32_t module = 0;
};

/// Where @p address lies. @throws std::invalid_argument when it is no code of any module.
[[nodiscard]] code_ref find_code(std::uintptr_t address);

/// The address of @p code in this process.
[[nodiscard]] std::uintptr_t code_address(code_ref code);

/// The function at an address for messages: its demangled name, or nothing when the program keeps
/// no symbols. Finding out costs a look into the program's file; the last answer is remembered.
[[nodiscard]] std::string symbol_name(std::uintptr_t address);

}  // namespace procpool::detail
