// SPDX-License-Identifier: MIT
/// @file
/// The report of an exception that ends a process.
#pragma once

#include <cstdio>
#include <string>

#include <procpool/detail/codec/exception_text.hpp>

namespace procpool::detail {

/// Writes "Process NAME:" to stderr, then the type and text of the exception being handled and of
/// those nested in it. Called in a catch block; the process ends afterwards.
inline void uncaught(const std::string& name) noexcept {
  try {
    const std::string text = "Process " + name + ":\n" + exception_lines();
    std::fwrite(text.data(), 1, text.size(), stderr);  // in one piece: other processes write too
    std::fflush(stderr);
  } catch (...) {  // no memory for the text; the exit code still shows the failure
  }
}

}  // namespace procpool::detail
