// SPDX-License-Identifier: MIT
/// @file
/// What a process says about the exception that ends it.
#pragma once

#include <cstdio>
#include <string>

#include <procpool/detail/codec/exception_text.hpp>

namespace procpool::detail {

/// Tells stderr that the exception being handled ends the process called @p name: "Process NAME:"
/// and the exception's type and text, with what it is nested in. To be called in a catch block.
inline void uncaught(const std::string& name) noexcept {
  try {
    const std::string text = "Process " + name + ":\n" + exception_lines();
    std::fwrite(text.data(), 1, text.size(), stderr);  // in one piece between other processes'
    std::fflush(stderr);
  } catch (...) {  // no memory for the text; the exit code still tells
  }
}

}  // namespace procpool::detail
