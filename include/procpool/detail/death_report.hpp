// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// The sentences that say how a worker died.
#pragma once

#include <exception>
#include <string>

#include <string.h>

#include <procpool/detail/exception_text.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// "worker process 123 was killed by signal 9 (Killed) while it ran item 4", or the like.
inline std::string describe_death(const worker_death& death, const std::string& violation) {
  std::string text = "worker process " + std::to_string(death.pid);
  if (!violation.empty()) {
    text += " was killed by its pool (" + violation + ")";
  } else if (death.exitcode < 0) {
    const char* name = strsignal(-death.exitcode);
    text += " was killed by signal " + std::to_string(-death.exitcode) + " (" + name + ")";
  } else {
    text += " exited with code " + std::to_string(death.exitcode);
  }
  if (death.item) text += " while it ran item " + std::to_string(*death.item);
  return text;
}

/// One line about an exception: its type and text.
inline std::string describe(const std::exception_ptr& what) {
  try {
    std::rethrow_exception(what);
  } catch (const std::exception& error) {
    return exception_type(error) + ": " + error.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace procpool::detail
