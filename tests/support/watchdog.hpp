// SPDX-License-Identifier: MIT
/// @file
/// The watchdog: a process that enforces time limits of tests and reaps their orphans.
///
/// start_watchdog() forks. The child goes on as the test program; the parent becomes the watchdog.
/// It adopts orphans (PR_SET_CHILD_SUBREAPER), so it finds every descendant of a test, even if
/// processes in between have died. If a test exceeds its limit, the watchdog prints its name, kills
/// it with all its descendants, and the run fails. Environment:
///   PROCPOOL_TEST_NO_WATCHDOG=1      none of this, for a debugger
///   PROCPOOL_TEST_LIMIT_SCALE=4      every limit times 4, for slow machines and sanitizers
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string_view>

namespace support {

/// The time limit of a test without a tag like [limit:300] or a call of extend_limit().
inline constexpr std::chrono::seconds default_limit{60};

/// Exit status of a run that the watchdog ended, the same as that of timeout(1).
inline constexpr int time_limit_status = 124;

/// Called early in main, while there is one thread. Returns only in the child.
void start_watchdog();

/// Process id of the watchdog; 0 without one.
[[nodiscard]] pid_t watchdog_pid() noexcept;

/// Starts the time limit of the test @p name.
void watch(std::string_view name, std::chrono::seconds limit);

/// Restarts the time limit of the running test with @p limit.
void extend_limit(std::chrono::seconds limit);

}  // namespace support
