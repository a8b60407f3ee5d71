// SPDX-License-Identifier: MIT
/// @file
/// Exceptions as text. They come from the user: what() may be a null pointer, a
/// std::nested_exception may be empty, a chain of causes may have thousands of links or no end.
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/type_name.hpp>

namespace procpool::detail {

/// The text of an exception, also of one whose what() is a null pointer.
inline std::string what_of(const std::exception& error) {
  const char* text = error.what();
  return text != nullptr ? text : "(its what() is a null pointer)";
}

/// The mangled name of an exception's own type, without the wrapper that std::throw_with_nested of
/// libstdc++ or libc++ puts around it.
inline std::string exception_key(std::string_view name) {
  for (const std::string_view wrapper : {"St17_Nested_exceptionI", "NSt3__18__nestedI"}) {
    const std::string_view end = wrapper.starts_with('N') ? "EE" : "E";
    if (!name.starts_with(wrapper) || !name.ends_with(end)) continue;
    name.remove_prefix(wrapper.size());
    name.remove_suffix(end.size());
    break;
  }
  return std::string(name);
}
inline std::string exception_key(const std::exception& error) {
  return exception_key(typeid(error).name());
}

/// The type of an exception as its author wrote it.
inline std::string exception_type(const std::exception& error) {
  return demangle(exception_key(error).c_str());
}

/// The same for the exception being handled, which may be of any type.
inline std::string current_exception_type() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  return type != nullptr ? demangle(exception_key(type->name()).c_str())
                         : "an exception of unknown type";
}

/// One line about the exception being handled: its type and text.
inline std::string describe_current_exception() {
  try {
    throw;
  } catch (const std::exception& error) {
    return concat({exception_type(error), ": ", what_of(error)});
  } catch (...) {
    return concat({current_exception_type(), ": an exception that is no std::exception"});
  }
}
inline std::string describe(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (...) {
    return describe_current_exception();
  }
}

/// One exception of a chain.
struct chained_exception {
  const void* object = nullptr;        ///< its address, to detect a circle; null: unknown
  std::exception_ptr cause = nullptr;  ///< what is nested in it; null: nothing
};

/// The exception being handled, as part of a chain. Appends its line to @p text unless that is
/// null. Without std::rethrow_if_nested, which ends the process for an empty std::nested_exception.
inline chained_exception inspect_current_exception(std::string* text) {
  try {
    throw;
  } catch (const std::exception& error) {
    if (text != nullptr) *text += concat({exception_type(error), ": ", what_of(error), "\n"});
    const auto* nested = dynamic_cast<const std::nested_exception*>(&error);
    return {&error, nested != nullptr ? nested->nested_ptr() : nullptr};
  } catch (const std::nested_exception& error) {
    if (text != nullptr) *text += concat({current_exception_type(), "\n"});
    return {&error, error.nested_ptr()};
  } catch (...) {
    if (text != nullptr) *text += concat({current_exception_type(), "\n"});
    return {};
  }
}
inline chained_exception inspect(const std::exception_ptr& error, std::string* text) {
  try {
    std::rethrow_exception(error);
  } catch (...) {
    return inspect_current_exception(text);
  }
}

/// 2980 as "2,980".
inline std::string grouped(std::size_t number) {
  std::string digits = concat({number});
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

/// Number of exceptions from this one on. Counting stops above @p max_length.
inline std::size_t chain_length(std::exception_ptr first, std::size_t max_length) {
  std::size_t length = 0;
  for (; first != nullptr && length <= max_length; ++length) first = inspect(first, nullptr).cause;
  return length;
}

/// The exception being handled and its chain of causes, one line for each, at most 20. To be called
/// inside a catch block. @param lead begins each line
inline std::string exception_lines(std::string_view lead = "") {
  constexpr std::size_t max_lines = 20;
  constexpr std::size_t max_counted = 10'000;  // a circle of more than 20 has no end
  std::vector<const void*> seen;
  std::string text(lead);
  chained_exception last = inspect_current_exception(&text);
  while (last.cause != nullptr) {
    seen.push_back(last.object);
    text += concat({lead, "  "});
    if (seen.size() == max_lines) {
      const std::size_t more = chain_length(last.cause, max_counted);
      return text + concat({"... ", more > max_counted ? "more than " : "",
                            grouped(more > max_counted ? max_counted : more), " more\n"});
    }
    const std::size_t before = text.size();
    text += "caused by ";
    last = inspect(last.cause, &text);
    for (const void* each : seen) {
      if (each == nullptr || each != last.object) continue;
      text.resize(before);
      return text + "... and so on in a circle\n";
    }
  }
  return text;
}

}  // namespace procpool::detail
