// SPDX-License-Identifier: MIT
/// @file
/// Error handling of system calls: retry on EINTR, throw ProcessError.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

#include <procpool/config.hpp>
#include <procpool/error.hpp>

namespace procpool::detail::os {

/// Throws ProcessError for @p error. @param operation the text: "cannot map memory (mmap)"
[[noreturn]] inline void throw_errno(const std::string& operation, int error = errno) {
  throw ProcessError(operation, std::error_code(error, std::generic_category()));
}

/// @returns @p result. @throws ProcessError for errno if it is -1
template <class Result>
Result check(Result result, const char* operation) {
  if (result == static_cast<Result>(-1)) throw_errno(operation);
  return result;
}

/// Repeats a call as long as a signal interrupts it (EINTR).
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

}  // namespace procpool::detail::os
