// SPDX-License-Identifier: MIT
/// @file
/// How much a message may ask of the process that decodes it.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>

namespace procpool {

/// Bounds on what a decoder does on behalf of a message. Memory needs no number here: what a
/// message makes a decoder allocate is at most proportional to the message's own length, except
/// for elements that take no bytes at all.
struct decode_limits {
  /// Containers and pointers inside each other; bounds the stack that recursive types use.
  std::size_t max_depth = 64;
  /// Elements that take no bytes (empty structs) in the whole message, each counted as often as
  /// its size in memory says.
  std::size_t max_elements = std::size_t{1} << 20;
};

namespace detail {

/// Takes one level off a depth budget while it lives.
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
