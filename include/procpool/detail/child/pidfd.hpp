// SPDX-License-Identifier: MIT
/// @file
/// Processes held by descriptor (pidfd_open(2)): a number may be given to another process once its
/// owner is reaped, a descriptor stands for the same process for ever and can be polled.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <system_error>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail::os {

/// Waits until @p descriptor is readable; false when @p until came first. Signals do not end it.
/// @throws ProcessError also when it is no descriptor any more
inline bool wait_readable(int descriptor, const deadline& until) {
  pollfd interest{descriptor, POLLIN, 0};
  const int ready = retry([&] {
    const timespec left = until ? time_left(*until) : timespec{};
    return PROCPOOL_SYSTEM(ppoll(&interest, 1, until ? &left : nullptr, nullptr));
  });
  check(ready, "cannot wait for a process (ppoll)");
  if ((interest.revents & POLLNVAL) != 0) {  // that would look like its end
    throw_errno("cannot wait for a process, its descriptor has been closed by other code", EBADF);
  }
  return ready > 0;
}

/// Opens a descriptor for process @p pid, closed on exec and never one of 0, 1, 2. Empty if there
/// is no such process: it has ended and been reaped.
inline fd find_process(pid_t pid) {
  const long opened = PROCPOOL_SYSTEM(syscall(SYS_pidfd_open, pid, 0U));
  if (opened == -1 && errno == ESRCH) return {};
  return off_stdio(
      fd(static_cast<int>(check(opened, "cannot open a descriptor for a process (pidfd_open)"))));
}

/// The same where one can do without: empty also where there are no such descriptors (valgrind 3.19
/// does not know the call).
inline fd find_process_if_possible(pid_t pid) {
  try {
    return find_process(pid);
  } catch (const ProcessError& error) {
    if (error.code() != std::errc::function_not_supported) throw;
    return {};
  }
}

/// Sends a signal to a child that has not been reaped, so that its number @p pid is still its own,
/// for systems that refuse the call by descriptor. One that has ended already is nobody's mistake.
inline void send_signal(int process, pid_t pid, int number) {
  const long sent = PROCPOOL_SYSTEM(syscall(SYS_pidfd_send_signal, process, number, nullptr, 0U));
  if (sent == 0 || errno == ESRCH) return;
  if (PROCPOOL_SYSTEM(kill(pid, number)) == -1 && errno != ESRCH) {
    throw_errno("cannot send a signal to a process (pidfd_send_signal, kill)");
  }
}

/// The exit code of a process whose end somebody else has collected, where it is not known; the
/// number that Python reports when a process's status is lost.
inline constexpr int unknown_exitcode = 255;

/// Python's exit code: the status, or minus the number of the signal that killed the process.
inline int exitcode_of_status(int status) noexcept {
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/// The kernel's struct pidfd_info in its first version (linux/pidfd.h), which the headers of older
/// systems lack.
struct process_info {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::array<std::uint32_t, 11> ids;
  std::int32_t status;
};
static_assert(sizeof(process_info) == 64);

/// Asks the kernel for the status of a process that is reaped already: Linux 6.15 and later know.
/// Nothing with errno 0: not yet.
inline std::optional<int> status_after_reaping(int process) noexcept {
  constexpr std::uint64_t want_status = 1U << 3U;                    // PIDFD_INFO_EXIT
  constexpr unsigned long get_info = _IOWR(0xFF, 11, process_info);  // PIDFD_GET_INFO
  process_info info{};
  info.mask = want_status;
  errno = 0;
  if (PROCPOOL_SYSTEM(ioctl(process, get_info, &info)) != 0) return std::nullopt;
  if ((info.mask & want_status) == 0) return std::nullopt;
  return info.status;
}

/// The exit code of a child that somebody else has reaped: a waitpid(-1) of the host program, or
/// the kernel itself because SIGCHLD is ignored. unknown_exitcode before Linux 6.15.
inline int lost_exitcode(int process) noexcept {
  // The kernel wakes those who poll a moment before it stores the status.
  for (int attempt = 0; attempt < 10; ++attempt) {
    if (const auto status = status_after_reaping(process)) return exitcode_of_status(*status);
    if (errno != 0) break;  // an older kernel
    PROCPOOL_SYSTEM(poll(nullptr, 0, 1));
  }
  return unknown_exitcode;
}

/// reap() where waitid(2) is refused, or does not know descriptors.
inline std::optional<int> reap_by_number(pid_t pid) {
  int status = 0;
  const pid_t ended = retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, &status, WNOHANG)); });
  if (ended == 0) return std::nullopt;
  if (ended == pid) return exitcode_of_status(status);
  if (errno == ECHILD) return unknown_exitcode;
  throw_errno("cannot wait for a process (waitid, waitpid)");
}

/// Collects a child of this process if it has ended: its exit code, or nothing while it runs.
/// @throws ProcessError when the system does not let us
inline std::optional<int> reap(int process, pid_t pid) {
  siginfo_t info{};
  const auto by_descriptor = static_cast<idtype_t>(3);  // P_PIDFD, missing before glibc 2.36
  const int result = retry([&] {
    return PROCPOOL_SYSTEM(
        waitid(by_descriptor, static_cast<id_t>(process), &info, WEXITED | WNOHANG));
  });
  if (result != 0 && errno != ECHILD) return reap_by_number(pid);
  if (result != 0) {  // somebody else waits for it, so that its being gone is all there is to see
    if (!wait_readable(process, std::chrono::steady_clock::now())) return std::nullopt;
    return lost_exitcode(process);
  }
  if (info.si_pid == 0) return std::nullopt;
  return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

/// Waits until a child of this process has ended and collects it. @returns its exit code, if nobody
/// else has collected it
inline std::optional<int> await_end(int process, pid_t pid) noexcept {
  siginfo_t info{};
  const auto by_descriptor = static_cast<idtype_t>(3);  // P_PIDFD, missing before glibc 2.36
  const int result = retry([&] {
    return PROCPOOL_SYSTEM(waitid(by_descriptor, static_cast<id_t>(process), &info, WEXITED));
  });
  if (result != 0 && errno != ECHILD) {  // refused, see reap_by_number()
    int status = 0;
    const pid_t ended = retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, &status, 0)); });
    if (ended != pid) return std::nullopt;
    return exitcode_of_status(status);
  }
  if (result != 0) return std::nullopt;
  return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

}  // namespace procpool::detail::os
