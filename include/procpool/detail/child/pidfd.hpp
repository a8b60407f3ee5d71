// SPDX-License-Identifier: MIT
/// @file
/// Processes by descriptor (pidfd_open(2)). The kernel may reuse a process id once its owner is
/// reaped; a descriptor always refers to the same process, and can be polled.
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

/// Waits until @p descriptor is readable; false if @p until came first. Restarts after signals.
/// @throws ProcessError, also if other code has closed the descriptor
inline bool wait_readable(int descriptor, const deadline& until) {
  pollfd interest{descriptor, POLLIN, 0};
  const int ready = retry([&] {
    const timespec left = until ? time_left(*until) : timespec{};
    return PROCPOOL_SYSTEM(ppoll(&interest, 1, until ? &left : nullptr, nullptr));
  });
  check(ready, "cannot wait for a process (ppoll)");
  if ((interest.revents & POLLNVAL) != 0) {  // else it would look as if the process had ended
    throw_errno("cannot wait for a process, its descriptor has been closed by other code", EBADF);
  }
  return ready > 0;
}

/// Opens a descriptor for process @p pid, closed on exec and never 0, 1 or 2. Empty if there is no
/// such process, because it has ended and been reaped.
inline fd find_process(pid_t pid) {
  const long opened = PROCPOOL_SYSTEM(syscall(SYS_pidfd_open, pid, 0U));
  if (opened == -1 && errno == ESRCH) return {};
  return off_stdio(
      fd(static_cast<int>(check(opened, "cannot open a descriptor for a process (pidfd_open)"))));
}

/// The same for callers with a fallback: empty also where the call does not exist (valgrind 3.19).
inline fd find_process_if_possible(pid_t pid) {
  try {
    return find_process(pid);
  } catch (const ProcessError& error) {
    if (error.code() != std::errc::function_not_supported) throw;
    return {};
  }
}

/// Sends a signal to an unreaped child. Falls back to @p pid, which is still its own, on systems
/// that refuse the call by descriptor. No error if the child has ended already.
inline void send_signal(int process, pid_t pid, int number) {
  const long sent = PROCPOOL_SYSTEM(syscall(SYS_pidfd_send_signal, process, number, nullptr, 0U));
  if (sent == 0 || errno == ESRCH) return;
  if (PROCPOOL_SYSTEM(kill(pid, number)) == -1 && errno != ESRCH) {
    throw_errno("cannot send a signal to a process (pidfd_send_signal, kill)");
  }
}

/// The exit code if other code has reaped the process and the kernel does not know the status any
/// more. Python reports the same number then.
inline constexpr int unknown_exitcode = 255;

/// Python's exit code: the exit status, or minus the number of the signal that killed the process.
inline int exitcode_of_status(int status) noexcept {
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/// The first version of the kernel's struct pidfd_info (linux/pidfd.h). Older headers lack it.
struct process_info {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::array<std::uint32_t, 11> ids;
  std::int32_t status;
};
static_assert(sizeof(process_info) == 64);

/// The wait status of a process that is already reaped, from Linux 6.15 on. Nullopt with errno 0:
/// not available yet; with another errno: never.
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

/// The exit code of a child that other code has reaped: waitpid(-1) in the host program, or the
/// kernel because SIGCHLD is ignored. unknown_exitcode before Linux 6.15.
inline int lost_exitcode(int process) noexcept {
  // The kernel wakes pollers a moment before it stores the status.
  for (int attempt = 0; attempt < 10; ++attempt) {
    if (const auto status = status_after_reaping(process)) return exitcode_of_status(*status);
    if (errno != 0) break;  // an older kernel
    PROCPOOL_SYSTEM(poll(nullptr, 0, 1));
  }
  return unknown_exitcode;
}

/// reap() where waitid(2) is refused or does not support descriptors.
inline std::optional<int> reap_by_number(pid_t pid) {
  int status = 0;
  const pid_t ended = retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, &status, WNOHANG)); });
  if (ended == 0) return std::nullopt;
  if (ended == pid) return exitcode_of_status(status);
  if (errno == ECHILD) return unknown_exitcode;
  throw_errno("cannot wait for a process (waitid, waitpid)");
}

/// Reaps a child of this process if it has ended. @returns its exit code, or nullopt while it runs
/// @throws ProcessError when the system refuses
inline std::optional<int> reap(int process, pid_t pid) {
  siginfo_t info{};
  const auto by_descriptor = static_cast<idtype_t>(3);  // P_PIDFD, missing before glibc 2.36
  const int result = retry([&] {
    return PROCPOOL_SYSTEM(
        waitid(by_descriptor, static_cast<id_t>(process), &info, WEXITED | WNOHANG));
  });
  if (result != 0 && errno != ECHILD) return reap_by_number(pid);
  if (result != 0) {  // ECHILD: other code reaps it, so that only its end is visible here
    if (!wait_readable(process, std::chrono::steady_clock::now())) return std::nullopt;
    return lost_exitcode(process);
  }
  if (info.si_pid == 0) return std::nullopt;
  return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

/// Waits until a child of this process has ended and reaps it. @returns its exit code; nullopt if
/// other code has reaped it
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

/// Waits until a child has ended and reaps it, by number. Ignores that it was stopped.
inline void await_death(pid_t pid) noexcept {
  int status = 0;
  do {
    status = 0;
  } while (retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, &status, 0)); }) == pid &&
           WIFSTOPPED(status));
}

}  // namespace procpool::detail::os
