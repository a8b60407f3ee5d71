// SPDX-License-Identifier: MIT
/// @file
/// The standard streams across fork: every byte is written once, by the process that produced it.
///
/// A stream's buffer is memory, so fork copies what is still in it. Three steps keep it single: the
/// parent writes its buffers out just before the fork, the child throws away what another thread
/// may have added meanwhile, and the child writes its own buffers before it leaves by _exit.
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

/// Writes out a stream's buffer. Not stream.flush(): that sets badbit when stdout is closed, and a
/// program that opens it later would find its std::cout dead because of us.
template <class Char>
void sync_stream(std::basic_ostream<Char>& stream) noexcept {
  try {
    if (auto* buffer = stream.rdbuf()) buffer->pubsync();
  } catch (...) {  // a buffer of the user's own; its trouble is not the fork's
  }
}

/// Flushes cout, cerr, clog, their wide forms, stdout and stderr. A closed one does no harm.
inline void flush_standard_streams() noexcept {
  const std::ios_base::Init there;  // a static object of the program may be the caller
  for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) sync_stream(*stream);
  for (std::wostream* stream : {&std::wcout, &std::wcerr, &std::wclog}) sync_stream(*stream);
  std::fflush(stdout);
  std::fflush(stderr);
}

/// How many threads this process has; 0 when that is unknown.
inline int count_threads() noexcept {
  struct stat tasks {};
  // A directory has two links and one for each directory in it: here, for each thread.
  if (PROCPOOL_SYSTEM(stat("/proc/self/task", &tasks)) != 0 || tasks.st_nlink < 3) return 0;
  return static_cast<int>(tasks.st_nlink - 2);
}

/// True when the calling thread is the only one of its process; false also when that is unknown.
inline bool only_thread() noexcept {
  return count_threads() == 1;
}

/// What is known about streams other than the standard ones (FILEs that the user opened).
struct other_streams {
  bool flushed_at_fork = false;  ///< nothing was in their buffers at the latest fork from here
  int threads_at_fork = 0;       ///< that there were then; 0: unknown
  bool clean_at_birth = false;   ///< nothing was in them when this process was forked
  static other_streams& state() noexcept {
    static auto& only = one_per_process<other_streams>("other streams");
    return only;
  }
};
/// Made before main, as the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline const auto& other_streams_made_early = other_streams::state();

/// In the parent, just before a fork. fflush(nullptr) locks every FILE in turn, so that with other
/// threads it could wait as long as one of them sits in a read, of stdin for example: then only the
/// standard streams are flushed.
inline void flush_before_fork() noexcept {
  flush_standard_streams();
  other_streams::state().threads_at_fork = count_threads();
  other_streams::state().flushed_at_fork = other_streams::state().threads_at_fork == 1;
  if (other_streams::state().flushed_at_fork) std::fflush(nullptr);
}

/// In a child, at its end. FILEs of the user are flushed only if nothing that is the parent's to
/// write can be in them.
inline void flush_at_end() noexcept {
  flush_standard_streams();
  if (other_streams::state().clean_at_birth && only_thread()) std::fflush(nullptr);
}

/// Forgets input that the parent has read ahead: it is the parent's.
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

/// Makes descriptor 0 read from the null device, also if it was closed. Without a null device it
/// stays as it is.
inline void replace_stdin() noexcept {
  const int null = retry([] { return PROCPOOL_SYSTEM(open("/dev/null", O_RDONLY)); });
  if (null > STDIN_FILENO) {
    PROCPOOL_SYSTEM(dup2(null, STDIN_FILENO));
    PROCPOOL_SYSTEM(close(null));
  }
  discard_input();
}

/// In a child, first thing: output that the parent will write itself is dropped, and two processes
/// must not compete for one input (Python's children have the null device as stdin, too).
inline void adopt_stdio_in_child() noexcept {
  __fpurge(stdout);
  __fpurge(stderr);
  other_streams::state().clean_at_birth = other_streams::state().flushed_at_fork;
  replace_stdin();
}

/// @p from under a number above 2. In a program whose stdout is closed a new descriptor may get
/// number 1, and the next printf would go into it.
inline fd off_stdio(fd from) {
  if (!from || from.get() > STDERR_FILENO) return from;
  return fd(
      check(PROCPOOL_SYSTEM(fcntl(from.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1)),
            "cannot move a descriptor away from the standard streams (fcntl F_DUPFD_CLOEXEC)"));
}

}  // namespace procpool::detail::os
