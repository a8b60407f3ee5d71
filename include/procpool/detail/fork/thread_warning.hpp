// SPDX-License-Identifier: MIT
/// @file
/// The warning for a program that forks a pool while it has other threads (CPython 3.12 warns,
/// too).
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <procpool/detail/base/sanitizers.hpp>

namespace procpool::detail {

/// Whether this process, or one that it was forked from, has printed the warning.
inline std::atomic<bool> warned_of_threads{false};

/// False under ThreadSanitizer, which adds a thread of its own to every program.
constexpr bool threads_can_be_counted() noexcept {
  return !thread_sanitizer;
}

/// Prints the warning to stderr, once per program, unless PROCPOOL_WARN_THREADS is 0.
/// @param threads the process's threads at the fork; the library's own were stopped
inline void warn_of_threads(int threads) noexcept {
  if (threads <= 1 || !threads_can_be_counted()) return;
  if (warned_of_threads.exchange(true, std::memory_order_relaxed)) return;  // guards no other data
  const char* wanted = std::getenv("PROCPOOL_WARN_THREADS");
  if (wanted != nullptr && std::string_view(wanted) == "0") return;
  std::fprintf(
      stderr,
      "procpool: a pool was forked from a process with %d threads. A lock that another "
      "thread held at that moment stays locked in the workers, and a task that needs it "
      "waits forever. Create the pool before the threads, or use start_method::spawn. (Printed "
      "once; pool_options::warn_about_threads or PROCPOOL_WARN_THREADS=0 turns it off.)\n",
      threads);
}

}  // namespace procpool::detail
