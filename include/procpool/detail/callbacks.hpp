// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// Calling what the user wants to be called when a job has ended.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include <procpool/detail/death_report.hpp>
#include <procpool/detail/job.hpp>

namespace procpool::detail {

/// Calls the callbacks of a job that has all its outcomes; without any lock. An exception in one of
/// them is reported on stderr and harms nothing.
inline void run_callbacks_of(job& finished) noexcept {
  for (auto each = finished.take_callbacks(); each != nullptr; each = std::move(each->next)) {
    try {
      each->call(finished);
    } catch (...) {
      const std::string what = describe(std::current_exception());
      std::fprintf(stderr, "procpool: a callback failed: %s\n", what.c_str());
    }
  }
}

}  // namespace procpool::detail
