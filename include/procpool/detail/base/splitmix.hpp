// SPDX-License-Identifier: MIT
/// @file
/// splitmix64 (Steele, Lea and Flood 2014), which spares everybody <random>.
#pragma once

#include <cstdint>

namespace procpool::detail {

inline constexpr std::uint64_t splitmix_step = 0x9e3779b97f4a7c15;

/// What splitmix64 draws in this state, whose next one is greater by the step: a number mixed so
/// that every bit depends on all of the state. Different states give different numbers.
constexpr std::uint64_t splitmix(std::uint64_t state) noexcept {
  std::uint64_t mixed = state + splitmix_step;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

}  // namespace procpool::detail
