// SPDX-License-Identifier: MIT
/// @file
/// A file descriptor with one owner.
#pragma once

#include <unistd.h>

#include <utility>

#include <procpool/config.hpp>

namespace procpool::detail::os {

/// Owns one descriptor and closes it; -1 is empty. Move-only.
class fd {
 public:
  fd() noexcept = default;
  explicit fd(int number) noexcept : number_(number) {}
  fd(fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  fd& operator=(fd&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = other.release();
    }
    return *this;
  }
  ~fd() { reset(); }

  [[nodiscard]] int get() const noexcept { return number_; }
  explicit operator bool() const noexcept { return number_ >= 0; }
  [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }

  /// Closes now. Not retried on EINTR: on Linux the descriptor is closed in any case (close(2)).
  void reset() noexcept {
    if (number_ >= 0) PROCPOOL_SYSTEM(close(std::exchange(number_, -1)));
  }

 private:
  int number_ = -1;
};

}  // namespace procpool::detail::os
