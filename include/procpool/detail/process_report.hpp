// SPDX-License-Identifier: MIT
// Level 5: processes.
/// @file
/// What a process says about the exception that ends it.
#pragma once

#include <cxxabi.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <typeinfo>

#include <procpool/detail/type_name.hpp>

namespace procpool::detail {

/// The type of an exception as its author wrote it: std::throw_with_nested of libstdc++ throws a
/// type of its own, with the author's as template argument.
inline std::string exception_type(const std::exception& error) {
  const std::string name = demangle(typeid(error).name());
  constexpr std::string_view wrapper = "std::_Nested_exception<";
  if (!name.starts_with(wrapper)) return name;
  return name.substr(wrapper.size(), name.size() - wrapper.size() - 1);
}

/// One line for @p error and one for each exception nested in it, the deeper the further right.
inline std::string exception_lines(const std::exception& error, const std::string& lead = "") {
  std::string text = lead + exception_type(error) + ": " + error.what() + "\n";
  const std::string next = lead.empty() ? "  caused by " : "  " + lead;
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    text += exception_lines(cause, next);
  } catch (...) {
    text += next + "an exception that is no std::exception\n";
  }
  return text;
}

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
