// SPDX-License-Identifier: MIT
/// @file
/// fmt formatters of the library's errors, outcomes and states: `fmt::print("{}\n", error)` writes
/// the text of what(), for a WorkerDied a report of several lines. procpool.hpp does not include
/// this header, and no other header of the library needs fmt.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <fmt/format.h>

#include <exception>
#include <string_view>
#include <type_traits>

#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/error.hpp>
#include <procpool/outcome.hpp>
#include <procpool/pool.hpp>

namespace procpool::detail {

/// Formats an exception as the text of what(), with the format specifications of strings (width,
/// fill, alignment).
template <class E>
struct error_formatter : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const E& error, Context& context) const {
    return fmt::formatter<std::string_view>::format(std::string_view(error.what()), context);
  }
};

}  // namespace procpool::detail

// A specialization for each type: one for all types derived from Error would be ambiguous with that
// for std::exception in fmt/std.h.
template <>
struct fmt::formatter<procpool::Error> : procpool::detail::error_formatter<procpool::Error> {};
template <>
struct fmt::formatter<procpool::TimeoutError>
    : procpool::detail::error_formatter<procpool::TimeoutError> {};
template <>
struct fmt::formatter<procpool::CancelledError>
    : procpool::detail::error_formatter<procpool::CancelledError> {};
template <>
struct fmt::formatter<procpool::BrokenPool>
    : procpool::detail::error_formatter<procpool::BrokenPool> {};
template <>
struct fmt::formatter<procpool::PoolClosed>
    : procpool::detail::error_formatter<procpool::PoolClosed> {};
template <>
struct fmt::formatter<procpool::ProcessError>
    : procpool::detail::error_formatter<procpool::ProcessError> {};
template <>
struct fmt::formatter<procpool::EOFError> : procpool::detail::error_formatter<procpool::EOFError> {
};
template <>
struct fmt::formatter<procpool::BrokenPipeError>
    : procpool::detail::error_formatter<procpool::BrokenPipeError> {};
template <>
struct fmt::formatter<procpool::BufferTooShort>
    : procpool::detail::error_formatter<procpool::BufferTooShort> {};
template <>
struct fmt::formatter<procpool::AuthenticationError>
    : procpool::detail::error_formatter<procpool::AuthenticationError> {};
template <>
struct fmt::formatter<procpool::DecodeError>
    : procpool::detail::error_formatter<procpool::DecodeError> {};
template <>
struct fmt::formatter<procpool::RemoteError>
    : procpool::detail::error_formatter<procpool::RemoteError> {};
template <>
struct fmt::formatter<procpool::RemoteTraceback>
    : procpool::detail::error_formatter<procpool::RemoteTraceback> {};
template <>
struct fmt::formatter<procpool::MemoryLimitError>
    : procpool::detail::error_formatter<procpool::MemoryLimitError> {};
template <>
struct fmt::formatter<procpool::WorkerDied>
    : procpool::detail::error_formatter<procpool::WorkerDied> {};

/// "active", "closed", "broken", "terminated".
template <>
struct fmt::formatter<procpool::pool_state> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(procpool::pool_state state, Context& context) const {
    constexpr std::string_view names[] = {"active", "closed", "broken", "terminated"};
    return fmt::formatter<std::string_view>::format(names[static_cast<int>(state)], context);
  }
};

/// The value with the format specifications of its type, or the exception's text in brackets.
template <class T>
  requires(!std::is_void_v<T> && fmt::is_formattable<T>::value)
struct fmt::formatter<procpool::Outcome<T>> : fmt::formatter<T> {
  template <class Context>
  auto format(const procpool::Outcome<T>& outcome, Context& context) const {
    try {
      return fmt::formatter<T>::format(outcome.value(), context);
    } catch (const std::exception& error) {
      return fmt::format_to(context.out(), "[{}]", procpool::detail::what_of(error));
    } catch (...) {
      return fmt::format_to(context.out(), "[an exception that is no std::exception]");
    }
  }
};
