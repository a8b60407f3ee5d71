// SPDX-License-Identifier: MIT
/// @file
/// Finds addresses of local variables in a closure that is to be sent (callable.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include <procpool/config.hpp>
#include <procpool/detail/machine/stack.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION void reject_captured_references(const void* closure, std::size_t size) {
  const auto stack = os::thread_stack();
  const auto low = reinterpret_cast<std::uintptr_t>(stack.data());
  for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= size; at += sizeof(std::uintptr_t)) {
    std::uintptr_t word = 0;
    std::memcpy(&word, static_cast<const std::byte*>(closure) + at, sizeof word);
    if (word - low < stack.size()) {
      throw std::invalid_argument(
          "the lambda captures a local variable, or the `this` of one, by reference or pointer, "
          "which a worker process cannot follow; capture it by value");
    }
  }
}

}  // namespace procpool::detail
