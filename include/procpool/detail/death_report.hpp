// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// The sentences that say how a worker died.
#pragma once

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <string.h>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/exception_text.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// "was killed by signal 11 (Segmentation fault, address not mapped, at 0x10)", or the like.
inline std::string describe_end(const worker_death& death, const std::string& reason = "") {
  if (!death.cause.empty()) return "was killed by its pool (" + death.cause + ")";
  if (death.exitcode >= 0) return "exited with code " + std::to_string(death.exitcode);
  std::string text = "was killed by signal " + std::to_string(-death.exitcode) + " (";
  text += strsignal(-death.exitcode);
  if (!reason.empty()) text += ", " + reason;
  return text + ")";
}

/// "worker process 123 (PoolWorker-2) was killed by signal 9 (Killed) while it ran item 4 of f".
inline std::string describe_death(const worker_death& death, const std::string& reason = "") {
  std::string text = "worker process " + std::to_string(death.pid);
  if (!death.worker.empty()) text += " (" + death.worker + ")";
  text += " " + describe_end(death, reason);
  if (!death.item) return text;
  text += " while it ran item " + std::to_string(*death.item);
  if (!death.callable.empty()) text += " of " + death.callable;
  return text;
}

inline std::string describe_stack(const std::vector<std::string>& stack) {
  std::string text;
  for (std::size_t i = 0; i < stack.size(); ++i) {
    text += "\n  #" + std::to_string(i) + " " + stack[i];
  }
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
