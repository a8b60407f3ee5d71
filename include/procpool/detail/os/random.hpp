// SPDX-License-Identifier: MIT
/// @file
/// Numbers that nobody can foresee.
#pragma once

#include <sys/random.h>

#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// From the kernel's source (getrandom(2)). @throws ProcessError when it gives none
inline std::uint64_t random_number() {
  std::uint64_t number = 0;
  check(retry([&] { return PROCPOOL_SYSTEM(getrandom(&number, sizeof number, 0)); }),
        "cannot draw a random number (getrandom)");  // so few bytes come whole
  return number;
}

}  // namespace procpool::detail::os
