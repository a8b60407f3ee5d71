// SPDX-License-Identifier: MIT
/// @file
/// Makes system calls of the library fail. Include it before anything of procpool: it defines the
/// library's hook, so that each call goes through a function of the same name here, is counted by
/// the kind of process that makes it, and the one that the plan names fails.
///
/// The plan and the counts lie in shared memory, made before the pool. Everything here may run in a
/// signal handler. A call that the library makes and that has no function here does not compile:
/// add it to the list and below, and what may happen to it to the table in syscall_test.cpp.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#ifdef PROCPOOL_SYSTEM
#error "include failing_calls.hpp before procpool"
#endif
#define PROCPOOL_SYSTEM(call) (::failing::here(__FILE__, __LINE__), ::failing::call)

namespace failing {

/// Who makes a call.
enum class role : std::uint32_t { parent, server, worker, process };
inline constexpr std::array role_names{"parent", "server", "worker", "process"};

/// What a scenario is doing meanwhile.
enum class phase : std::uint32_t { construct, run, end };

// clang-format off
/// Calls that may be made through a plain wrapper: all that the library makes, and more.
#define FAILING_PLAIN_CALLS(X) \
  X(accept) X(accept4) X(access) X(alarm) X(bind) X(clock_getres) X(clock_gettime)                \
  X(clock_nanosleep) X(close) X(connect) X(dup) X(dup2) X(dup3) X(epoll_create1) X(epoll_pwait)   \
  X(epoll_wait) X(eventfd) X(fallocate) X(fchmod) X(fchown) X(fdatasync) X(flock) X(fstat)        \
  X(fsync) X(ftruncate) X(getauxval) X(getcwd) X(getegid) X(geteuid) X(getgid) X(getpeername) X(getpid)        \
  X(getppid) X(getpriority) X(getrandom) X(getrlimit) X(getrusage) X(getsockname) X(getsockopt)   \
  X(gettid) X(getuid) X(inotify_add_watch) X(inotify_init1) X(kill) X(killpg) X(listen) X(lseek)  \
  X(lstat) X(madvise) X(memfd_create) X(mincore) X(mkdir) X(mlock) X(mmap) X(mprotect) X(msync)   \
  X(munlock) X(munmap) X(nanosleep) X(on_exit) X(pipe2) X(poll) X(posix_fallocate) X(ppoll)       \
  X(pread) X(preadv) X(preadv2) X(prlimit) X(process_vm_readv) X(process_vm_writev) X(pwrite)     \
  X(pwritev) X(raise) X(readlink) X(readv) X(recv) X(recvfrom) X(rename) X(rmdir)                 \
  X(sched_getaffinity) X(sched_getcpu) X(sched_getparam) X(sched_getscheduler)                    \
  X(sched_setaffinity) X(sched_setscheduler) X(sched_yield) X(select) X(send) X(sendfile)         \
  X(sendto) X(setpgid) X(setpriority) X(setrlimit) X(setsid) X(setsockopt) X(shutdown)            \
  X(sigaction) X(sigaltstack) X(signalfd) X(sigpending) X(sigprocmask) X(sigqueue) X(sigsuspend)  \
  X(sigtimedwait) X(sigwait) X(sigwaitinfo) X(sleep) X(socket) X(socketpair) X(splice) X(stat)    \
  X(statfs) X(statx) X(symlink) X(sysconf) X(tgkill) X(timer_create) X(timer_delete) X(timer_gettime)       \
  X(timer_settime) X(timerfd_create) X(timerfd_gettime) X(timerfd_settime) X(truncate) X(umask)   \
  X(uname) X(unlink) X(unshare) X(usleep) X(writev)
/// Every call by name; those that do different things by an argument have a name for each.
#define FAILING_NAME(name) #name,
inline constexpr std::array call_names{
    FAILING_PLAIN_CALLS(FAILING_NAME)
    "_exit", "epoll_add", "epoll_del", "fcntl", "fcntl_add_seals", "fcntl_dup", "fork",
    "futex_wait", "futex_wake", "ioctl", "mremap", "open", "pidfd_open", "pidfd_send_signal", "posix_spawn",
    "prctl", "pthread_getattr_np", "pthread_sigmask", "read", "recvmsg", "sendmsg", "syscall",
    "waitid", "waitpid", "write"};
// clang-format on
inline constexpr std::size_t call_count = call_names.size();

consteval std::uint32_t id_of(std::string_view name) {
  for (std::uint32_t i = 0; i < call_count; ++i) {
    if (call_names[i] == name) return i;
  }
  throw "no such call in the list";
}

/// How a call fails.
enum class manner : std::uint32_t {
  refused,   ///< not done
  done,      ///< done, though it reports failure: close(2) on EINTR, a wait that another one won
  shortened  ///< fewer bytes than asked for, or without the descriptors that came along
};

/// Which call fails, and how.
struct fault {
  role who = role::parent;
  std::uint32_t call = call_count;  ///< none
  std::uint32_t occurrence = 0;     ///< from 1, counted over all processes of that role
  bool for_ever = false;            ///< and all behind it
  manner how = manner::refused;
  int error = 0;
};

/// Shared by all processes of one scenario.
struct control {
  using count = std::atomic<std::uint32_t>;
  std::array<fault, 2> plan{};
  std::atomic<phase> now{phase::construct};
  std::array<std::array<count, call_count>, role_names.size()> made{};
  std::array<count, 3> in_phase{};
  count injected{0};
  std::atomic<const char*> file{nullptr};  ///< where the last one was injected
  std::atomic<int> line{0};
  count crashes{0};  ///< processes of the library that died of a signal that nobody sent
  std::atomic<int> crash_signal{0};
};

/// This process's; null: all calls are just made.
inline control* shared = nullptr;
inline role self = role::parent;
/// What the next fork of the scenario's own process makes.
inline role offspring = role::server;

/// The children of the scenario's own process.
inline std::array<pid_t, 64> children{};
inline std::size_t child_count = 0;

inline thread_local const char* current_file = nullptr;
inline thread_local int current_line = 0;
inline void here(const char* file, int line) noexcept {
  current_file = file;
  current_line = line;
}

/// Counts a call; what is to happen to it, null: nothing.
inline const fault* fault_of(std::uint32_t call) noexcept {
  if (shared == nullptr) return nullptr;
  const std::uint32_t number = ++shared->made[static_cast<std::size_t>(self)][call];
  ++shared->in_phase[static_cast<std::size_t>(shared->now.load())];
  for (const fault& each : shared->plan) {
    if (each.call != call || each.who != self || number < each.occurrence) continue;
    if (number == each.occurrence || each.for_ever) return &each;
  }
  return nullptr;
}

/// To be called when the fault happens; it may turn out that it cannot.
inline void injected() noexcept {
  shared->file = current_file;
  shared->line = current_line;
  ++shared->injected;
}

template <class Result>
Result fail(const fault& what) noexcept {
  injected();
  errno = what.error;
  if constexpr (std::is_pointer_v<Result>) {
    return static_cast<Result>(MAP_FAILED);
  } else {
    return static_cast<Result>(-1);
  }
}

template <class Call>
auto make(std::uint32_t id, Call call) noexcept -> decltype(call()) {
  const fault* what = fault_of(id);
  if (what == nullptr || what->how == manner::shortened) return call();
  if (what->how == manner::done) call();
  return fail<decltype(call())>(*what);
}

/// A function of the C library as the library's code is to call it. An object, so that arguments
/// are converted as for the function itself.
template <std::uint32_t Id, class Result, class... P>
struct wrapper {
  Result (*real)(P...);
  Result operator()(P... arguments) const noexcept {
    return make(Id, [&] { return real(arguments...); });
  }
};
template <std::uint32_t Id, class Result, class... P>
consteval wrapper<Id, Result, P...> wrap(Result (*real)(P...)) {
  return {real};
}

#define FAILING_CALL(name) inline constexpr auto name = wrap<id_of(#name)>(&::name);
FAILING_PLAIN_CALLS(FAILING_CALL)

#define FAILING_VARIADIC_CALL(name)                                  \
  template <class... A>                                              \
  int name(A... arguments) noexcept {                                \
    return make(id_of(#name), [&] { return ::name(arguments...); }); \
  }

FAILING_VARIADIC_CALL(ioctl)
FAILING_VARIADIC_CALL(open)
FAILING_VARIADIC_CALL(prctl)

// ---- calls that report an error by their result
// --------------------------------------------------

#define FAILING_CALL_WITH_STATUS(name)                \
  template <class... A>                               \
  int name(A... arguments) noexcept {                 \
    const fault* what = fault_of(id_of(#name));       \
    if (what == nullptr) return ::name(arguments...); \
    injected();                                       \
    return what->error;                               \
  }

FAILING_CALL_WITH_STATUS(pthread_getattr_np)
FAILING_CALL_WITH_STATUS(pthread_sigmask)

template <class... A>
void* mremap(A... arguments) noexcept {
  return make(id_of("mremap"), [&] { return ::mremap(arguments...); });
}

// ---- calls that do different things -----------------------------------------------------------

template <class... A>
int fcntl(int descriptor, int command, A... arguments) noexcept {
  const auto id = command == F_ADD_SEALS       ? id_of("fcntl_add_seals")
                  : command == F_DUPFD_CLOEXEC ? id_of("fcntl_dup")
                                               : id_of("fcntl");
  return make(id, [&] { return ::fcntl(descriptor, command, arguments...); });
}

inline int epoll_ctl(int poller, int operation, int descriptor, epoll_event* interest) noexcept {
  const auto id = operation == EPOLL_CTL_ADD ? id_of("epoll_add") : id_of("epoll_del");
  return make(id, [&] { return ::epoll_ctl(poller, operation, descriptor, interest); });
}

/// What syscall(2) is asked to do; @p second is its second argument, if that is a number.
inline std::uint32_t id_of_number(long number, long second) noexcept {
  if (number == SYS_pidfd_open) return id_of("pidfd_open");
  if (number == SYS_pidfd_send_signal) return id_of("pidfd_send_signal");
  if (number != SYS_futex) return id_of("syscall");
  const long operation = second & FUTEX_CMD_MASK;
  return operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET ? id_of("futex_wait")
                                                                   : id_of("futex_wake");
}

template <class First, class Second, class... A>
long syscall(long number, First first, Second second, A... rest) noexcept {
  long operation = 0;
  if constexpr (std::is_integral_v<Second>) operation = static_cast<long>(second);
  return make(id_of_number(number, operation),
              [&] { return ::syscall(number, first, second, rest...); });
}

// ---- calls that may do less than asked for -----------------------------------------------------

/// Short only for files of text: an eventfd gives 8 bytes or none, a signalfd whole structs.
inline ssize_t read(int descriptor, void* into, std::size_t size) noexcept {
  const fault* what = fault_of(id_of("read"));
  if (what != nullptr && what->how == manner::refused) return fail<ssize_t>(*what);
  const bool can_be_short = size > sizeof(signalfd_siginfo);
  if (what == nullptr || !can_be_short) return ::read(descriptor, into, size);
  injected();
  return ::read(descriptor, into, 7);
}

inline ssize_t write(int descriptor, const void* from, std::size_t size) noexcept {
  return make(id_of("write"), [&] { return ::write(descriptor, from, size); });
}

inline ssize_t sendmsg(int end, const msghdr* head, int flags) noexcept {
  return make(id_of("sendmsg"), [&] { return ::sendmsg(end, head, flags); });
}

/// What the kernel does with descriptors when the receiver has no number free for them.
inline void drop_descriptors(msghdr& head) noexcept {
  cmsghdr* rights = CMSG_FIRSTHDR(&head);
  if (rights == nullptr || rights->cmsg_type != SCM_RIGHTS) return;
  const std::size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; ++i) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(rights) + i * sizeof number, sizeof number);
    ::close(number);
  }
  head.msg_controllen = 0;
  head.msg_flags |= MSG_CTRUNC;
  injected();
}

/// Never short: such a socket (SOCK_SEQPACKET) gives whole messages. Only who does not wait for one
/// may be told that there is none.
inline ssize_t recvmsg(int end, msghdr* head, int flags) noexcept {
  const fault* what = fault_of(id_of("recvmsg"));
  const bool refused = what != nullptr && what->how == manner::refused;
  if (refused && (what->error != EAGAIN || (flags & MSG_DONTWAIT) != 0))
    return fail<ssize_t>(*what);
  const ssize_t got = ::recvmsg(end, head, flags);
  if (what != nullptr && !refused && got > 0) drop_descriptors(*head);
  return got;
}

// ---- calls about processes ---------------------------------------------------------------------

inline pid_t fork() noexcept {
  if (const fault* what = fault_of(id_of("fork"))) return fail<pid_t>(*what);
  const pid_t pid = ::fork();
  if (pid == 0) {
    self = self == role::parent ? offspring : role::worker;
  } else if (self == role::parent && pid > 0 && child_count < children.size()) {
    children[child_count++] = pid;
  }
  return pid;
}

/// Tells its error itself, not by errno.
inline int posix_spawn(pid_t* pid, const char* program, const posix_spawn_file_actions_t* actions,
                       const posix_spawnattr_t* attributes, char* const* arguments,
                       char* const* environment) noexcept {
  if (const fault* what = fault_of(id_of("posix_spawn"))) return what->error;
  const int error = ::posix_spawn(pid, program, actions, attributes, arguments, environment);
  if (error == 0 && self == role::parent && child_count < children.size()) {
    children[child_count++] = *pid;
  }
  return error;
}

[[noreturn]] inline void _exit(int code) noexcept {
  fault_of(id_of("_exit"));
  ::_exit(code);
}

/// Notes a process of the library that died of a signal that nobody sent. The scenario's own crash
/// is a SIGFPE.
inline void note_death_by(int number) noexcept {
  const bool wanted = number == SIGKILL || number == SIGTERM || number == SIGFPE;
  if (shared == nullptr || wanted) return;
  shared->crash_signal = number;
  ++shared->crashes;
}

inline pid_t waitpid(pid_t which, int* status, int flags) noexcept {
  int noted = 0;
  const pid_t pid = make(id_of("waitpid"), [&] {
    const pid_t got = ::waitpid(which, &noted, flags);
    if (got > 0 && WIFSIGNALED(noted)) note_death_by(WTERMSIG(noted));
    return got;
  });
  if (status != nullptr) *status = noted;
  return pid;
}

inline int waitid(idtype_t type, id_t which, siginfo_t* info, int flags) noexcept {
  return make(id_of("waitid"), [&] {
    const int result = ::waitid(type, which, info, flags);
    const bool killed = result == 0 && info->si_pid != 0 && info->si_code != CLD_EXITED;
    if (killed) note_death_by(info->si_status);
    return result;
  });
}

}  // namespace failing
