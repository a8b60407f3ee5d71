// SPDX-License-Identifier: MIT
/// @file
/// The process that watches the tests: it starts before any of them and outlives them all.
///
/// start_watchdog() forks. The child goes on as the test program; the parent stays behind as the
/// watchdog. It is the reaper of orphans (PR_SET_CHILD_SUBREAPER) as init is for an ordinary
/// program, so it finds every process a test has started, however far down and whoever died in
/// between. A test that runs over its limit is named and killed with everything it has started,
/// and the run fails. Environment:
///   PROCPOOL_TEST_NO_WATCHDOG=1      none of this, for a debugger
///   PROCPOOL_TEST_LIMIT_SCALE=4      every limit times 4, for slow machines and sanitizers
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string_view>

namespace support {

/// What a test may take unless it says otherwise, by a tag like [limit:300] or extend_limit().
inline constexpr std::chrono::seconds default_limit{60};

/// Exit status of a run that the watchdog ended, the same as timeout(1) uses.
inline constexpr int time_limit_status = 124;

/// Call first in main, while there is one thread. Returns in the child only.
void start_watchdog();

/// Process id of the watchdog; 0 without one.
[[nodiscard]] pid_t watchdog_pid() noexcept;

/// The clock of the test @p name starts now.
void watch(std::string_view name, std::chrono::seconds limit);

/// The running test may take @p limit from now on.
void extend_limit(std::chrono::seconds limit);

}  // namespace support
