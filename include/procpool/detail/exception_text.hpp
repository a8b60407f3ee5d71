// SPDX-License-Identifier: MIT
// Level 1: codec.
/// @file
/// Exceptions in words.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <typeinfo>

#include <procpool/detail/concat.hpp>
#include <procpool/detail/type_name.hpp>

namespace procpool::detail {

/// The mangled name of an exception's own type: without the wrapper that std::throw_with_nested of
/// libstdc++ puts round it.
inline std::string exception_key(const std::exception& error) {
  std::string name = typeid(error).name();
  constexpr std::string_view wrapper = "St17_Nested_exceptionI";
  if (!name.starts_with(wrapper) || !name.ends_with('E')) return name;
  return name.substr(wrapper.size(), name.size() - wrapper.size() - 1);
}

/// The type of an exception as its author wrote it.
inline std::string exception_type(const std::exception& error) {
  return demangle(exception_key(error).c_str());
}

/// One line for @p error and one for each exception nested in it, the deeper the further right.
inline std::string exception_lines(const std::exception& error, const std::string& lead = "") {
  std::string text = concat({lead, exception_type(error), ": ", error.what(), "\n"});
  const std::string next = concat({"  ", lead.empty() ? "caused by " : lead});
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    text += exception_lines(cause, next);
  } catch (...) {
    text = concat({text, next, "an exception that is no std::exception\n"});
  }
  return text;
}

}  // namespace procpool::detail
