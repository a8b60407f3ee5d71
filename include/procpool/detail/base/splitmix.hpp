// SPDX-License-Identifier: MIT
/// @file
/// The splitmix64 generator (Steele, Lea and Flood 2014), in place of the costly <random>.
#pragma once

#include <cstdint>

namespace procpool::detail {

inline constexpr std::uint64_t splitmix_step = 0x9e3779b97f4a7c15;

/// The output of splitmix64 for @p state; the next state is `state + splitmix_step`. Every bit of
/// the output depends on the whole state. Different states give different outputs.
constexpr std::uint64_t splitmix(std::uint64_t state) noexcept {
  std::uint64_t mixed = state + splitmix_step;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

}  // namespace procpool::detail
