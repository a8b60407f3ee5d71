// SPDX-License-Identifier: MIT
/// @file
/// How system calls report failure here: retried on EINTR, thrown as ProcessError.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

#include <procpool/config.hpp>
#include <procpool/error.hpp>

namespace procpool::detail::os {

/// Throws ProcessError for the current errno; @p what names what was wanted, in plain words.
[[noreturn]] inline void throw_errno(const std::string& what, int error = errno) {
  throw ProcessError(what, std::error_code(error, std::generic_category()));
}

/// Returns @p result unless it is -1, which becomes a ProcessError.
template <class Result>
Result check(Result result, const char* what) {
  if (result == static_cast<Result>(-1)) throw_errno(what);
  return result;
}

/// Repeats a call for as long as a signal interrupts it.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

}  // namespace procpool::detail::os
