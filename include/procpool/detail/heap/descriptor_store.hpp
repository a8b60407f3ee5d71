// SPDX-License-Identifier: MIT
/// @file
/// How a descriptor reaches any process of the family: a socket that all have inherited keeps it
/// until it is taken. The kernel frees it all when the last process ends.
#pragma once

#include <cstdint>
#include <memory>

#include <procpool/config.hpp>
#include <procpool/detail/os/fd.hpp>

namespace procpool::detail {

/// A descriptor that waits for its receiver, as it travels.
struct descriptor_wire {
  std::uint64_t heap;
  std::uint64_t ticket;
  std::uint64_t counted;  ///< 1: it is received once, and leaves the store then
};
static_assert(sizeof(descriptor_wire) == 24);

/// Deposits a copy of @p descriptor. Inside a handle_scope it stays until what the scope keeps is
/// released, and can be received many times; otherwise until it is received once.
/// @throws ProcessError when about 250 descriptors are on their way already, or the system refuses
[[nodiscard]] descriptor_wire send_descriptor(int descriptor);

/// A copy of the descriptor. @throws std::invalid_argument: it is of another program, or was
/// received before; ProcessError when the system refuses
[[nodiscard]] os::fd receive_descriptor(const descriptor_wire& wire);

}  // namespace procpool::detail
