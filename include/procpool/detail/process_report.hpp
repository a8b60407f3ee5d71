// SPDX-License-Identifier: MIT
// Level 5: processes.
/// @file
/// What a process says about the exception that ends it.
#pragma once

#include <cxxabi.h>

#include <cstdio>
#include <exception>
#include <string>
#include <typeinfo>

#include <procpool/detail/exception_text.hpp>
#include <procpool/detail/type_name.hpp>

namespace procpool::detail {

/// The exception being handled, as lines. To be called inside a catch block.
inline std::string current_exception_lines() {
  try {
    throw;
  } catch (const std::exception& error) {
    return exception_lines(error);
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    return (type != nullptr ? demangle(type->name()) : "exception of unknown type") + "\n";
  }
}

/// Tells stderr that the exception being handled ends the process called @p name: "Process NAME:"
/// and the exception's type and text, with what it is nested in. To be called in a catch block.
inline void uncaught(const std::string& name) noexcept {
  try {
    const std::string text = "Process " + name + ":\n" + current_exception_lines();
    std::fwrite(text.data(), 1, text.size(), stderr);  // in one piece between other processes'
    std::fflush(stderr);
  } catch (...) {  // no memory for the text; the exit code still tells
  }
}

}  // namespace procpool::detail
