// SPDX-License-Identifier: MIT
/// @file
/// Calls the user's callbacks of a job that has ended, without any lock.
#pragma once

#include <cstdio>
#include <exception>
#include <memory>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/try_catch.hpp>
#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/detail/result/continuation.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool::detail {

/// Reports the exception being handled.
inline void report_callback_error() noexcept {
  try {
    std::fprintf(stderr, "procpool: a callback failed: %s\n", describe_current_exception().c_str());
  } catch (...) {  // no memory for the text
    std::fputs("procpool: a callback failed\n", stderr);
  }
}

PROCPOOL_FUNCTION void driver::run_now(continuation& then, job& done) noexcept {
  try_catch([&] { then.run(done); }, report_callback_error);
}

/// Calls the callbacks of a job that has all its outcomes, without any lock. An exception in one is
/// reported on stderr and otherwise ignored.
/// @param each taken from the job under the lock that guards them
inline void run_callbacks_of(job& finished, std::unique_ptr<done_callback> each) noexcept {
  for (; each != nullptr; each = std::move(each->next)) {
    try_catch([&] { each->call(finished); }, report_callback_error);
  }
}

}  // namespace procpool::detail
