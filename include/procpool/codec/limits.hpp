// SPDX-License-Identifier: MIT
/// @file
/// decode_limits: what a message may demand from the process that decodes it.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>

namespace procpool {

/// Limits for the decoding of one message. Memory needs no limit: what a decoder allocates is at
/// most proportional to the length of the message, except for elements that take no bytes.
struct decode_limits {
  /// Levels of containers and pointers inside each other. Bounds the stack of recursive types.
  std::size_t max_depth = 64;
  /// Elements that take no bytes (empty structs) in the whole message, each multiplied by its size
  /// in memory.
  std::size_t max_elements = std::size_t{1} << 20;
};

namespace detail {

/// Uses one level of a depth budget during its lifetime.
class level_guard {
 public:
  explicit level_guard(std::size_t& levels_left) noexcept : levels_left_(levels_left) {
    --levels_left_;
  }
  ~level_guard() { ++levels_left_; }
  level_guard(const level_guard&) = delete;
  level_guard& operator=(const level_guard&) = delete;

 private:
  std::size_t& levels_left_;
};

}  // namespace detail
}  // namespace procpool
