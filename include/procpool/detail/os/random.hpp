// SPDX-License-Identifier: MIT
/// @file
/// Unpredictable random numbers.
#pragma once

#include <sys/random.h>

#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// 64 random bits from the kernel (getrandom(2)). @throws ProcessError when the call fails
inline std::uint64_t random_number() {
  std::uint64_t number = 0;
  check(retry([&] { return PROCPOOL_SYSTEM(getrandom(&number, sizeof number, 0)); }),
        "cannot draw a random number (getrandom)");  // reads up to 256 bytes are never partial
  return number;
}

}  // namespace procpool::detail::os
