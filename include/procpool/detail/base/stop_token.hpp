// SPDX-License-Identifier: MIT
/// @file
/// std::stop_token, or what stands in for it where the standard library has none: libc++ before 20
/// has it with -fexperimental-library only.
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

/// No stop is ever requested: nobody can make one that belongs to a source.
class stop_token {
 public:
  [[nodiscard]] bool stop_requested() const noexcept { return false; }
  [[nodiscard]] bool stop_possible() const noexcept { return false; }
  friend bool operator==(const stop_token&, const stop_token&) = default;
};

/// Is never called.
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
