// SPDX-License-Identifier: MIT
/// @file
/// std::stop_token, or a stub where the standard library lacks it: libc++ before 20 has it with
/// -fexperimental-library only.
#pragma once

#include <version>

#ifdef __cpp_lib_jthread
#include <stop_token>
#endif

namespace procpool {

#ifdef __cpp_lib_jthread

using std::stop_callback;
using std::stop_token;

#else

/// A token without a stop source: no stop is ever requested.
class stop_token {
 public:
  [[nodiscard]] bool stop_requested() const noexcept { return false; }
  [[nodiscard]] bool stop_possible() const noexcept { return false; }
  friend bool operator==(const stop_token&, const stop_token&) = default;
};

/// A callback that never runs.
template <class F>
class stop_callback {
 public:
  stop_callback(const stop_token&, const F&) noexcept {}
  stop_callback(const stop_callback&) = delete;
  stop_callback& operator=(const stop_callback&) = delete;
  ~stop_callback() {}
};

#endif

}  // namespace procpool
