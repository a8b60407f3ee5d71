// SPDX-License-Identifier: MIT
/// @file
/// Signals of a pool's processes that others send: to a whole process group (a terminal, coreutils
/// timeout) or to each process of a service (systemd, a container's init). They are meant for the
/// program, and what they mean is for the program to say.
///
/// The fork server ignores all of them: it ends when its socket closes. A worker gets a handler for
/// each signal that would end or stop it. The handler does nothing when the signal came from
/// outside and the program handles it; otherwise it has the worker take the default action, as if
/// there were no handler. A handler and not SIG_IGN, because execve(2) resets handlers: commands
/// that a task starts take these signals as they do when the program starts them.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <procpool/config.hpp>
#include <procpool/detail/os/signals.hpp>

namespace procpool::detail::os {

/// Signals 1 to 64, a bit for each, as the kernel has them in /proc/PID/status.
using signal_bits = std::uint64_t;
constexpr signal_bits bit_of(int number) noexcept {
  return signal_bits{1} << (static_cast<unsigned>(number) - 1U);
}

/// What the workers of a pool make of signals. Travels to the fork server as it is.
struct signal_rules {
  signal_bits handled;       ///< that the program caught or blocked when the pool was made
  std::int64_t program;      ///< the process that is asked again when a signal comes
  std::uint64_t by_default;  ///< 1: workers have the default action of every signal
};
static_assert(sizeof(signal_rules) == 24);

/// The signals that end or stop a process unless it does something about them, and of which a sound
/// process is not the cause: not those of crashes, for which there is another handler.
inline bool ends_or_stops(int number) noexcept {
  constexpr std::array others{SIGKILL, SIGSTOP, SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGSEGV,
                              SIGBUS,  SIGILL,  SIGFPE,  SIGABRT, SIGTRAP, SIGSYS,   SIGXCPU};
  for (const int other : others) {
    if (number == other) return false;
  }
  constexpr int first_real_time = 32;
  return number < first_real_time || number >= SIGRTMIN;  // the C library's own lie between
}

/// What the handler has to go by. One for the process, since nothing can be passed to it. Written
/// before the handler is installed.
struct worker_signal_state {
  std::atomic<pid_t> worker{0};  ///< the process that these rules are for; not its children
  std::atomic<pid_t> program{0};
  std::atomic<signal_bits> handled{0};
  std::atomic<bool> any{false};  ///< whether signals of others are asked about at all
};
inline constinit worker_signal_state worker_signals{};

/// The number behind @p name in the text of /proc/PID/status, in hexadecimal digits; 0 without.
inline signal_bits status_bits(std::string_view text, std::string_view name) noexcept {
  auto at = text.find(name);
  if (at == std::string_view::npos) return 0;
  signal_bits bits = 0;
  for (at += name.size(); at < text.size() && text[at] != '\n'; ++at) {
    const char digit = text[at];
    if (digit >= '0' && digit <= '9') bits = bits << 4U | static_cast<signal_bits>(digit - '0');
    if (digit >= 'a' && digit <= 'f')
      bits = bits << 4U | static_cast<signal_bits>(digit - 'a' + 10);
  }
  return bits;
}

/// Whether process @p pid catches, ignores or blocks a signal now (proc(5)). Async-signal-safe.
inline bool does_something_about(pid_t pid, int number) noexcept {
  std::array<char, 32> path{};
  std::size_t end = path.size() - 1;
  const auto prepend = [&](std::string_view piece) {
    for (auto at = piece.size(); at > 0; --at) path[--end] = piece[at - 1];
  };
  prepend("/status");
  for (auto left = pid; left > 0; left /= 10) path[--end] = static_cast<char>('0' + left % 10);
  prepend("/proc/");
  const int file = PROCPOOL_SYSTEM(open(path.data() + end, O_RDONLY | O_CLOEXEC));
  if (file == -1) return false;
  std::array<char, 4096> text{};
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = PROCPOOL_SYSTEM(read(file, text.data() + size, text.size() - size));
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  PROCPOOL_SYSTEM(close(file));
  const std::string_view all(text.data(), size);
  const signal_bits something =
      status_bits(all, "\nSigBlk:") | status_bits(all, "\nSigIgn:") | status_bits(all, "\nSigCgt:");
  return (something & bit_of(number)) != 0;
}

/// Whether somebody else sent the signal, or the terminal did. Not so: raise(), a timer or alarm of
/// the process, a broken pipe and the like, which are its own doing.
inline bool from_outside(const siginfo_t& info) noexcept {
  const int number = info.si_signo;
  if (info.si_code == SI_USER || info.si_code == SI_QUEUE || info.si_code == SI_TKILL) {
    return info.si_pid != PROCPOOL_SYSTEM(getpid());
  }
  const bool of_terminals = number == SIGHUP || number == SIGINT || number == SIGQUIT ||
                            number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
  return info.si_code == SI_KERNEL && of_terminals;
}

/// Whether this process is a worker to which the signal means nothing, because it came from outside
/// and the program does something about it. SIGINT means nothing to workers at all: a Ctrl-C is the
/// program's business. Asks the program as it is now: it may have installed a handler after the
/// pool was made. Async-signal-safe.
inline bool is_for_the_program(const siginfo_t& info) noexcept {
  const worker_signal_state& state = worker_signals;  // relaxed, all: written before any signal
  if (!state.any.load(std::memory_order_relaxed) || !from_outside(info)) return false;
  if (state.worker.load(std::memory_order_relaxed) != PROCPOOL_SYSTEM(getpid())) return false;
  const int number = info.si_signo;
  if (number == SIGINT) return true;
  if ((state.handled.load(std::memory_order_relaxed) & bit_of(number)) != 0) return true;
  return does_something_about(state.program.load(std::memory_order_relaxed), number);
}

inline void on_worker_signal(int number, siginfo_t* info, void* context) noexcept;

/// What waits on a terminal is not started again: it would wait for what the signal is about.
inline void set_worker_handler(int number) noexcept {
  struct sigaction action {};
  action.sa_sigaction = &on_worker_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  if (number != SIGTTIN && number != SIGTTOU) action.sa_flags |= SA_RESTART;
  sigfillset(&action.sa_mask);  // one after the other: many at once would need a large stack
  PROCPOOL_SYSTEM(sigaction(number, &action, nullptr));
}

/// In the handler: as if there were none. Returns when the process was stopped and goes on.
inline void take_default_action(int number) noexcept {
  set_disposition(number, SIG_DFL);
  const pid_t process = PROCPOOL_SYSTEM(getpid());
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  PROCPOOL_SYSTEM(syscall(SYS_tgkill, process, self, number));
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  sigaddset(&one, number);
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_UNBLOCK, &one, &before));  // it comes here
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &before, nullptr));
  const bool worker = worker_signals.worker.load(std::memory_order_relaxed) == process;  // as above
  if (worker) set_worker_handler(number);
}

inline void on_worker_signal(int number, siginfo_t* info, void* /*context*/) noexcept {
  const int error = errno;
  if (!is_for_the_program(*info)) take_default_action(number);
  errno = error;
}

inline bool has_worker_handler(int number) noexcept {
  struct sigaction action {};
  if (PROCPOOL_SYSTEM(sigaction(number, nullptr, &action)) != 0) return false;
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_worker_signal;
}

/// In the program, before there is a fork server: which signals it does something about.
/// @param library_thread the calling thread is the library's, its mask says nothing
/// @param ignored        whether workers ignore what the program handles
inline signal_rules rules_for_workers(bool library_thread, bool ignored) noexcept {
  signal_rules rules{};
  const pid_t self = PROCPOOL_SYSTEM(getpid());
  // A pool in a task of another pool: the program is the one that made that.
  const bool worker = worker_signals.worker.load(std::memory_order_relaxed) == self;  // as above
  rules.program = worker ? worker_signals.program.load(std::memory_order_relaxed) : self;
  rules.by_default = ignored ? 0 : 1;
  sigset_t blocked;
  sigemptyset(&blocked);
  if (!library_thread) PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, nullptr, &blocked));
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (worker && !ends_or_stops(number)) continue;  // its handlers of crashes are the library's
    const bool caught = is_caught(number) && !has_worker_handler(number);
    // The first process of a container: what it does nothing about does nothing to it.
    const bool immune = rules.program == 1 && ends_or_stops(number);
    if (caught || immune || sigismember(&blocked, number) == 1) rules.handled |= bit_of(number);
  }
  if (worker) rules.handled |= worker_signals.handled.load(std::memory_order_relaxed);
  return rules;
}

/// In a fork server, which begins with all signals blocked: ignores all that can be. @returns those
/// that were ignored before, as the program's workers are to ignore them.
inline signal_bits ignore_all_signals() noexcept {
  signal_bits ignored = 0;
  for (int number = 1; number <= SIGRTMAX; ++number) {
    struct sigaction action {};
    if (PROCPOOL_SYSTEM(sigaction(number, nullptr, &action)) != 0) continue;
    const bool plain = (action.sa_flags & SA_SIGINFO) == 0;
    if (plain && action.sa_handler == SIG_IGN) ignored |= bit_of(number);
    set_disposition(number, number == SIGCHLD ? SIG_DFL : SIG_IGN);
  }
  return ignored;
}

/// Gives a worker, forked from a fork server and with all signals blocked, the signals of a fresh
/// program, as execve(2) would: the program's handlers would run here on copies of its data. What
/// it ignores stays ignored, but for SIGCHLD, without which a worker could not wait for children of
/// its own. For the rest see above. The mask is left to the caller.
inline void set_worker_signals(const signal_rules& rules, signal_bits ignored) noexcept {
  worker_signal_state& state = worker_signals;  // relaxed, all: no signal comes before the end
  state.program.store(static_cast<pid_t>(rules.program), std::memory_order_relaxed);
  state.handled.store(rules.handled, std::memory_order_relaxed);
  state.any.store(rules.by_default == 0, std::memory_order_relaxed);
  state.worker.store(PROCPOOL_SYSTEM(getpid()), std::memory_order_relaxed);
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (number != SIGCHLD && (ignored & bit_of(number)) != 0) {
      set_disposition(number, SIG_IGN);
    } else if (ends_or_stops(number) && rules.by_default == 0) {
      set_worker_handler(number);
    } else {
      set_disposition(number, SIG_DFL);
    }
  }
}

/// In a process that a worker has forked: it is no worker, so each signal has its default action
/// unless a task has said otherwise.
inline void leave_worker_signals() noexcept {
  worker_signals.worker.store(0, std::memory_order_relaxed);  // there is one thread
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (has_worker_handler(number)) set_disposition(number, SIG_DFL);
  }
}

}  // namespace procpool::detail::os
