// SPDX-License-Identifier: MIT
/// @file
/// Which system call may fail how.
#pragma once

#include "failing_calls.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

namespace failing {

struct failure {
  int error;
  manner how = manner::refused;
  /// In which role it makes sense; without: in all.
  std::optional<role> only = std::nullopt;
};

/// What manual pages and the kernel say, as far as it can happen to the calls as the library makes
/// them. Calls with an empty list cannot fail; calls that are missing get what may happen to any.
inline const std::map<std::string_view, std::vector<failure>> failures{
    {"_exit", {}},
    {"close", {{EINTR, manner::done}, {EIO, manner::done}}},
    {"dup2", {{EINTR}, {EBUSY}, {EMFILE}}},
    {"epoll_add", {{ENOMEM}, {ENOSPC}}},
    {"epoll_create1", {{EMFILE}, {ENFILE}, {ENOMEM}}},
    {"epoll_del", {{ENOENT, manner::done}}},
    {"epoll_wait", {{EINTR}}},
    {"eventfd", {{EMFILE}, {ENFILE}, {ENOMEM}}},
    {"fcntl_add_seals", {{EPERM}, {EBUSY}}},
    {"fcntl_dup", {{EMFILE}}},
    {"fork", {{EAGAIN}, {ENOMEM}}},
    {"ftruncate", {{EINTR}, {ENOSPC}, {ENOMEM}, {EPERM}}},
    {"futex_wait", {{EINTR}, {EAGAIN}}},
    {"futex_wake", {}},
    {"fstat", {{EIO}}},
    {"getpid", {}},
    {"getppid", {}},
    {"gettid", {}},
    {"getrandom", {{EINTR}, {ENOSYS}}},
    {"getrlimit", {{EPERM}}},
    {"ioctl", {{ENOTTY}, {EINVAL}}},
    {"kill", {{EPERM}, {ESRCH, manner::done}}},
    {"madvise", {{EAGAIN}, {EINVAL}, {ENOMEM}}},
    {"memfd_create", {{EMFILE}, {ENFILE}, {ENOMEM}, {EPERM}}},
    {"mincore", {{ENOMEM}, {EAGAIN}}},
    {"mmap", {{ENOMEM}, {EAGAIN}, {ENFILE}, {EPERM}}},
    {"mremap", {{ENOMEM}, {EAGAIN}, {EINVAL}}},
    {"munmap", {{ENOMEM, manner::done}}},
    {"on_exit", {{ENOMEM}}},
    {"open", {{EINTR}, {EMFILE}, {ENFILE}, {ENOENT}, {EACCES}}},
    {"pidfd_open", {{EMFILE}, {ENFILE}, {ENOMEM}, {EPERM}}},
    {"pidfd_send_signal", {{EPERM}, {ESRCH, manner::done}}},
    {"pipe2", {{EMFILE}, {ENFILE}}},
    {"poll", {{EINTR}, {ENOMEM}, {EAGAIN}}},
    {"posix_spawn", {{EAGAIN}, {ENOMEM}, {EMFILE}}},
    {"ppoll", {{EINTR}, {ENOMEM}}},
    {"pread", {{EIO}, {ENOMEM}}},
    {"prctl", {{EINVAL}, {EPERM}}},
    {"pthread_getattr_np", {{ENOMEM}}},
    {"pthread_sigmask", {}},
    // The gate of a process is a pipe: nothing but a signal comes between there.
    {"read",
     {{EINTR},
      {EAGAIN, manner::refused, role::parent},
      {EAGAIN, manner::refused, role::server},
      {EIO, manner::refused, role::parent},
      {0, manner::shortened, role::parent}}},
    {"readlink", {{EACCES}, {ENOENT}}},
    {"recvmsg", {{EINTR}, {EAGAIN}, {ENOMEM}, {EMFILE, manner::shortened}}},
    {"sched_getaffinity", {{EINVAL}, {EPERM}}},
    {"sched_setaffinity", {{EINVAL}, {EPERM}}},
    {"sendmsg", {{EINTR}, {ENOMEM}, {ENOBUFS}, {ETOOMANYREFS, manner::refused, role::parent}}},
    {"setrlimit", {{EPERM}, {EINVAL}}},
    {"sigaltstack", {{ENOMEM}, {EPERM}}},
    {"sigpending", {}},
    {"sigtimedwait", {{EAGAIN}, {EINTR}}},
    {"syscall", {{EPERM}, {EAGAIN}}},
    {"alarm", {}},
    {"sigaction", {{EINVAL}}},
    {"signalfd", {{EMFILE}, {ENFILE}, {ENOMEM}}},
    {"sigprocmask", {}},
    {"socketpair", {{EMFILE}, {ENFILE}, {ENOMEM}}},
    {"stat", {{ENOENT}, {EACCES}, {ENOMEM}}},
    {"sysconf", {{EINVAL, manner::refused, role::parent}}},
    {"timer_create", {{EAGAIN}, {ENOMEM}}},
    {"timer_settime", {}},
    {"waitid", {{EINTR}, {ECHILD, manner::done}}},
    {"waitpid", {{EINTR}, {ECHILD, manner::done, role::parent}}},
    // An eventfd whose counter is full is one that rings; one that a task closed is gone.
    {"write", {{EINTR}, {EAGAIN, manner::done}, {EBADF, manner::refused, role::worker}}},
};

/// Errors of a lasting kind: once there, they may be there for every later call.
inline constexpr std::array lasting{EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EAGAIN, ENOBUFS};

/// Calls for which EAGAIN is over when they are repeated, or for which nobody could go on.
inline const std::set<std::string_view> never_for_ever{
    "epoll_wait", "futex_wait", "poll", "ppoll", "read", "write", "recvmsg", "kill"};

inline const std::vector<failure>& failures_of(std::string_view call) {
  static const std::vector<failure> of_any{{EINTR}, {ENOMEM}, {EPERM}};
  const auto found = failures.find(call);
  return found != failures.end() ? found->second : of_any;
}

/// Whether a call that has failed so may go on to fail for ever.
inline bool may_last(std::string_view call, const failure& what) {
  return what.how == manner::refused && !never_for_ever.contains(call) &&
         std::ranges::count(lasting, what.error) > 0;
}

}  // namespace failing
