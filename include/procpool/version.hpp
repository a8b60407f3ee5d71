// SPDX-License-Identifier: MIT
/// @file
/// The version of the library. CMake and pkg-config read the number from this file.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#define PROCPOOL_VERSION_MAJOR 0
#define PROCPOOL_VERSION_MINOR 1
#define PROCPOOL_VERSION_PATCH 0

#include <compare>

namespace procpool {

/// A semantic version, comparable at compile time.
struct version_number {
  int major_part;
  int minor_part;
  int patch_part;
  friend constexpr auto operator<=>(const version_number&, const version_number&) = default;
};

/// The version of the headers that this translation unit was compiled with. Compare with
/// `version >= version_number{0, 1, 0}`, or test the macros PROCPOOL_VERSION_MAJOR, _MINOR, _PATCH.
inline constexpr version_number version{PROCPOOL_VERSION_MAJOR, PROCPOOL_VERSION_MINOR,
                                        PROCPOOL_VERSION_PATCH};

}  // namespace procpool
