// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// Calling what the user wants to be called when a job has ended.
#pragma once

#include <cstdio>
#include <exception>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/continuation.hpp>
#include <procpool/detail/death_report.hpp>
#include <procpool/detail/job.hpp>

namespace procpool::detail {

inline void report_callback_error(const std::exception_ptr& what) noexcept {
  std::fprintf(stderr, "procpool: a callback failed: %s\n", describe(what).c_str());
}

PROCPOOL_FUNCTION void driver::run_now(continuation& then, job& done) noexcept {
  try {
    then.run(done);
  } catch (...) {
    report_callback_error(std::current_exception());
  }
}

/// Calls the callbacks of a job that has all its outcomes; without any lock. An exception in one of
/// them is reported on stderr and harms nothing.
inline void run_callbacks_of(job& finished) noexcept {
  for (auto each = finished.take_callbacks(); each != nullptr; each = std::move(each->next)) {
    try {
      each->call(finished);
    } catch (...) {
      report_callback_error(std::current_exception());
    }
  }
}

}  // namespace procpool::detail
