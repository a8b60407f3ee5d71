// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// Calling what the user wants to be called when a job has ended.
#pragma once

#include <cstdio>
#include <exception>
#include <memory>
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
/// @param each taken from the job, under the lock that guards them
inline void run_callbacks_of(job& finished, std::unique_ptr<done_callback> each) noexcept {
  for (; each != nullptr; each = std::move(each->next)) {
    try {
      each->call(finished);
    } catch (...) {
      report_callback_error(std::current_exception());
    }
  }
}

}  // namespace procpool::detail
