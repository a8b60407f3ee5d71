// SPDX-License-Identifier: MIT
/// @file
/// Signals that other processes send to workers and the fork server: to a whole process group (a
/// terminal, coreutils timeout) or to each process of a service (systemd, a container's init).
/// These signals are meant for the program, which decides what happens.
///
/// The fork server ignores all of them: it ends when its socket closes. A worker has a handler for
/// each signal that would end or stop it. If the signal came from outside and the program handles
/// it, the handler does nothing. Otherwise it takes the default action, as if there were no
/// handler. Not SIG_IGN: execve(2) keeps it but resets handlers, and commands that a task starts
/// must react to signals as they do when the program starts them.
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
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/signals.hpp>

namespace procpool::detail::os {

/// Signals 1 to 64, one bit each, in the order of /proc/PID/status.
using signal_bits = std::uint64_t;
constexpr signal_bits bit_of(int number) noexcept {
  return signal_bits{1} << (static_cast<unsigned>(number) - 1U);
}

/// How the workers of a pool treat signals. Sent to the fork server byte for byte.
struct signal_rules {
  signal_bits handled;       ///< signals that the program caught or blocked when the pool was made
  std::int64_t program;      ///< process id of the program, whose state each signal checks again
  std::uint64_t by_default;  ///< 1: workers have the default action of every signal
};
static_assert(sizeof(signal_rules) == 24);

/// Whether the default action of the signal ends or stops a process. Not signals of crashes, which
/// have another handler, nor those that cannot be caught.
inline bool ends_or_stops(int number) noexcept {
  constexpr std::array others{SIGKILL, SIGSTOP, SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGSEGV,
                              SIGBUS,  SIGILL,  SIGFPE,  SIGABRT, SIGTRAP, SIGSYS,   SIGXCPU};
  for (const int other : others) {
    if (number == other) return false;
  }
  constexpr int first_real_time = 32;
  return number < first_real_time || number >= SIGRTMIN;  // the C library uses those in between
}

/// The input of the handler, which has no parameter for it. One for all modules of the process: a
/// plugin may make a pool in a task of the program's pool. Written before the handler is installed.
struct worker_signal_state {
  using handler_type = void (*)(int, siginfo_t*, void*);
  std::atomic<pid_t> worker{0};  ///< the process with these rules; its forked children differ
  std::atomic<pid_t> program{0};
  std::atomic<signal_bits> handled{0};
  std::atomic<bool> filters{false};            ///< false: every signal takes its default action
  std::atomic<handler_type> handler{nullptr};  ///< of the module that installed it
};
inline worker_signal_state& worker_signals() {
  static auto& state = one_per_process<worker_signal_state>("worker signals");
  return state;
}
/// Made before main, because the handler must not make it.
inline const auto& worker_signals_made_early = worker_signals();

/// The hexadecimal number after @p name in the text of /proc/PID/status; 0 if @p name is missing.
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

/// Whether process @p pid catches, ignores or blocks the signal now (proc(5)). Async-signal-safe.
inline bool handles_now(pid_t pid, int number) noexcept {
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
  const signal_bits handled =
      status_bits(all, "\nSigBlk:") | status_bits(all, "\nSigIgn:") | status_bits(all, "\nSigCgt:");
  return (handled & bit_of(number)) != 0;
}

/// Whether another process or the terminal sent the signal. False for raise(), timers and alarms of
/// this process, broken pipes and the like.
inline bool from_outside(const siginfo_t& info) noexcept {
  const int number = info.si_signo;
  if (info.si_code == SI_USER || info.si_code == SI_QUEUE || info.si_code == SI_TKILL) {
    return info.si_pid != PROCPOOL_SYSTEM(getpid());
  }
  const bool of_terminals = number == SIGHUP || number == SIGINT || number == SIGQUIT ||
                            number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
  return info.si_code == SI_KERNEL && of_terminals;
}

/// Whether this worker must ignore the signal, because it came from outside and the program handles
/// it. Workers always ignore a SIGINT from outside: only the program reacts to Ctrl-C. Also checks
/// the program's present state, as it may have installed a handler after the pool was made.
/// Async-signal-safe.
inline bool is_for_the_program(const siginfo_t& info) noexcept {
  const worker_signal_state& state = worker_signals();  // all relaxed: written before any signal
  if (!state.filters.load(std::memory_order_relaxed) || !from_outside(info)) return false;
  if (state.worker.load(std::memory_order_relaxed) != PROCPOOL_SYSTEM(getpid())) return false;
  const int number = info.si_signo;
  if (number == SIGINT) return true;
  if ((state.handled.load(std::memory_order_relaxed) & bit_of(number)) != 0) return true;
  return handles_now(state.program.load(std::memory_order_relaxed), number);
}

inline void on_worker_signal(int number, siginfo_t* info, void* context) noexcept;

/// No SA_RESTART for SIGTTIN and SIGTTOU: a restarted call on the terminal would raise the signal
/// again.
inline void set_worker_handler(int number) noexcept {
  struct sigaction action {};
  action.sa_sigaction = &on_worker_signal;
  worker_signals().handler.store(&on_worker_signal, std::memory_order_relaxed);  // for this process
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  if (number != SIGTTIN && number != SIGTTOU) action.sa_flags |= SA_RESTART;
  sigfillset(&action.sa_mask);  // no nesting: many handlers at once would need a large stack
  PROCPOOL_SYSTEM(sigaction(number, &action, nullptr));
}

/// In the handler: takes the default action. Returns only if the process was stopped and continued.
inline void take_default_action(int number) noexcept {
  set_disposition(number, SIG_DFL);
  const pid_t process = PROCPOOL_SYSTEM(getpid());
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  PROCPOOL_SYSTEM(syscall(SYS_tgkill, process, self, number));
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  sigaddset(&one, number);
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_UNBLOCK, &one, &before));  // the signal is delivered here
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &before, nullptr));
  const bool worker =
      worker_signals().worker.load(std::memory_order_relaxed) == process;  // as above
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
  return (action.sa_flags & SA_SIGINFO) != 0 &&
         action.sa_sigaction ==
             worker_signals().handler.load(std::memory_order_relaxed);  // as above
}

/// In the program, before it forks the fork server: records which signals the program handles.
/// @param library_thread the calling thread is the library's: its signal mask is not the program's
/// @param ignored        whether workers ignore the signals that the program handles
inline signal_rules rules_for_workers(bool library_thread, bool ignored) noexcept {
  signal_rules rules{};
  const pid_t self = PROCPOOL_SYSTEM(getpid());
  // A pool made by a task of another pool: the program is that of the outer pool.
  const bool worker = worker_signals().worker.load(std::memory_order_relaxed) == self;  // as above
  rules.program = worker ? worker_signals().program.load(std::memory_order_relaxed) : self;
  rules.by_default = ignored ? 0 : 1;
  sigset_t blocked;
  sigemptyset(&blocked);
  if (!library_thread) PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, nullptr, &blocked));
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (worker && !ends_or_stops(number)) continue;  // a worker's crash handlers are the library's
    const bool caught = is_caught(number) && !has_worker_handler(number);
    // The first process of a container: signals without a handler have no effect on it.
    const bool immune = rules.program == 1 && ends_or_stops(number);
    if (caught || immune || sigismember(&blocked, number) == 1) rules.handled |= bit_of(number);
  }
  if (worker) rules.handled |= worker_signals().handled.load(std::memory_order_relaxed);
  return rules;
}

/// In a fork server, which begins with all signals blocked: ignores all signals that can be
/// ignored. @returns those that the program ignored, for set_worker_signals()
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

/// Sets the dispositions of a worker, which was forked from the fork server with all signals
/// blocked. Resets handlers, as execve(2) does: the program's would run on copies of its data.
/// Signals in @p ignored stay ignored, except SIGCHLD: otherwise a worker could not wait for its
/// children. Signals that end or stop get the worker's handler. The mask is left to the caller.
inline void set_worker_signals(const signal_rules& rules, signal_bits ignored) noexcept {
  worker_signal_state& state = worker_signals();  // all relaxed: signals are still blocked
  state.program.store(static_cast<pid_t>(rules.program), std::memory_order_relaxed);
  state.handled.store(rules.handled, std::memory_order_relaxed);
  state.filters.store(rules.by_default == 0, std::memory_order_relaxed);
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

/// In a process that a worker has forked, which is not a worker: replaces the worker's handlers by
/// default actions. Handlers that a task has installed stay.
inline void leave_worker_signals() noexcept {
  worker_signals().worker.store(0, std::memory_order_relaxed);  // the process has one thread
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (has_worker_handler(number)) set_disposition(number, SIG_DFL);
  }
}

}  // namespace procpool::detail::os
