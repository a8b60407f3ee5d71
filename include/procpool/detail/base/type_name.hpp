// SPDX-License-Identifier: MIT
/// @file
/// Readable names of types, for messages only. They are never sent to another process.
#pragma once

#include <cxxabi.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace procpool::detail {

/// The name of `T` as the compiler spells it, at compile time. g++ writes "... [with T = int]" or
/// "... [with T = int; X = Y]", clang "... [T = int]".
template <class T>
[[nodiscard]] constexpr std::string_view spelled_name() noexcept {
  constexpr std::string_view signature = __PRETTY_FUNCTION__;
  constexpr auto begin = signature.find("T = ") + 4;
  constexpr auto end = signature.find("; std::string_view", begin);
  constexpr auto last = end == std::string_view::npos ? signature.rfind(']') : end;
  return signature.substr(begin, last - begin);
}

/// Whether `name` starts with "std::" and one of `stems`. The stem of a template ends in '<'.
template <class... Stems>
consteval bool is_std_name(std::string_view name, Stems... stems) {
  if (!name.starts_with("std::")) return false;
  name.remove_prefix(5);
  for (const std::string_view inner : {"__debug::", "__cxx11::", "__1::", "_V2::"}) {
    if (name.starts_with(inner)) name.remove_prefix(inner.size());
  }
  return (name.starts_with(std::string_view(stems)) || ...);
}

/// `name` without the standard libraries' inner namespaces, and with std::string spelled short.
[[nodiscard]] inline std::string tidy_name(std::string name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 5> shorter{{
      {"std::__cxx11::", "std::"},
      {"std::__1::", "std::"},
      {"std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"},
      {"std::basic_string<char, std::char_traits<char>, std::allocator<char>>", "std::string"},
      {"std::basic_string<char>", "std::string"},
  }};
  for (const auto& [from, to] : shorter) {
    for (auto at = name.find(from); at != std::string::npos; at = name.find(from, at + to.size())) {
      name.replace(at, from.size(), to);
    }
  }
  return name;
}

/// The readable form of a `std::type_info::name()`; `mangled` itself if it is not a mangled name.
[[nodiscard]] inline std::string demangle(const char* mangled) {
  int status = 0;
  char* readable = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = status == 0 && readable != nullptr ? readable : mangled;
  std::free(readable);
  return tidy_name(std::move(name));
}

/// The readable name of `T`. Works without run-time type information.
template <class T>
[[nodiscard]] std::string type_name() {
  return tidy_name(std::string(spelled_name<T>()));
}

}  // namespace procpool::detail
