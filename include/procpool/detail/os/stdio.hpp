// SPDX-License-Identifier: MIT
/// @file
/// The standard streams across fork: every byte is written once, by the process that produced it.
///
/// A stream's buffer is memory, so fork copies unwritten output. Three steps prevent duplicates:
/// the parent flushes just before the fork, the child discards what another thread added in
/// between, and the child flushes its own output before it leaves by _exit.
#pragma once

#include <fcntl.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// Writes out a stream's buffer. Not stream.flush(): when stdout is closed it sets badbit, and
/// std::cout would stay unusable in a program that opens stdout later.
template <class Char>
void sync_stream(std::basic_ostream<Char>& stream) noexcept {
  try {
    if (auto* buffer = stream.rdbuf()) buffer->pubsync();
  } catch (...) {  // from a buffer that the user installed; the fork goes on
  }
}

/// Flushes cout, cerr, clog, their wide forms, stdout and stderr. Closed streams are ignored.
inline void flush_standard_streams() noexcept {
  const std::ios_base::Init initialized;  // the caller may be the constructor of a static object
  for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) sync_stream(*stream);
  for (std::wostream* stream : {&std::wcout, &std::wcerr, &std::wclog}) sync_stream(*stream);
  std::fflush(stdout);
  std::fflush(stderr);
}

/// The number of threads of this process; 0 if unknown.
inline int count_threads() noexcept {
  struct stat tasks {};
  // A directory has two links plus one for each subdirectory: here, for each thread.
  if (PROCPOOL_SYSTEM(stat("/proc/self/task", &tasks)) != 0 || tasks.st_nlink < 3) return 0;
  return static_cast<int>(tasks.st_nlink - 2);
}

/// True if the calling thread is the only one of its process; false also if that is unknown.
inline bool only_thread() noexcept {
  return count_threads() == 1;
}

/// The state of streams other than the standard ones (FILEs that the user opened).
struct other_streams {
  bool flushed_at_fork = false;  ///< their buffers were empty at this process's latest fork
  int threads_at_fork = 0;       ///< threads of this process at that fork; 0: unknown
  bool clean_at_birth = false;   ///< their buffers were empty when this process was forked
  static other_streams& state() noexcept {
    static auto& only = one_per_process<other_streams>("other streams");
    return only;
  }
};
/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline const auto& other_streams_made_early = other_streams::state();

/// Runs in the parent, just before a fork. fflush(nullptr) locks every FILE in turn. With other
/// threads it could block as long as one of them reads, from stdin for example: then only the
/// standard streams are flushed.
inline void flush_before_fork() noexcept {
  flush_standard_streams();
  other_streams::state().threads_at_fork = count_threads();
  other_streams::state().flushed_at_fork = other_streams::state().threads_at_fork == 1;
  if (other_streams::state().flushed_at_fork) std::fflush(nullptr);
}

/// Runs in a child, at its end. Flushes the user's FILEs only if they cannot hold output of the
/// parent.
inline void flush_at_end() noexcept {
  flush_standard_streams();
  if (other_streams::state().clean_at_birth && only_thread()) std::fflush(nullptr);
}

/// Discards input that the parent has read ahead, because it is the parent's.
inline void discard_input() noexcept {
  __fpurge(stdin);
  std::clearerr(stdin);
  try {
    auto* buffer = std::cin.rdbuf();
    for (auto left = buffer != nullptr ? buffer->in_avail() : 0; left > 0; --left) {
      buffer->sbumpc();
    }
  } catch (...) {  // as in sync_stream
  }
}

/// Makes descriptor 0 read from the null device, even if it was closed. Without a null device it
/// is unchanged.
inline void replace_stdin() noexcept {
  const int null = retry([] { return PROCPOOL_SYSTEM(open("/dev/null", O_RDONLY)); });
  if (null > STDIN_FILENO) {
    PROCPOOL_SYSTEM(dup2(null, STDIN_FILENO));
    PROCPOOL_SYSTEM(close(null));
  }
  discard_input();
}

/// Runs first in a child. Drops output that the parent will write itself. Replaces stdin, because
/// two processes must not compete for one input (Python's children have the null device, too).
inline void adopt_stdio_in_child() noexcept {
  __fpurge(stdout);
  __fpurge(stderr);
  other_streams::state().clean_at_birth = other_streams::state().flushed_at_fork;
  replace_stdin();
}

/// Moves @p from to a number above 2. In a program whose stdout is closed, a new descriptor may get
/// number 1, and the next printf would write into it.
inline fd off_stdio(fd from) {
  if (!from || from.get() > STDERR_FILENO) return from;
  return fd(
      check(PROCPOOL_SYSTEM(fcntl(from.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1)),
            "cannot move a descriptor away from the standard streams (fcntl F_DUPFD_CLOEXEC)"));
}

}  // namespace procpool::detail::os
