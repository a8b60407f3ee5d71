// SPDX-License-Identifier: MIT
/// @file
/// Another process, taken instruction by instruction with ptrace(2).
///
/// A single step costs some 20 us on a virtual machine, so on x86-64 there is a short cut: run_to()
/// lets the process run into a breakpoint. Elsewhere it has to be stepped all the way.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <sys/user.h>
#endif

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace fault {

#if defined(__x86_64__)
inline constexpr bool has_breakpoints = true;
#else
inline constexpr bool has_breakpoints = false;
#endif

/// Nothing here waits longer than this for what another process has to do.
inline constexpr std::chrono::seconds patience{20};

/// The state letter of proc(5) of a process or thread: S while it sleeps; '?' when there is none.
inline char state_of(pid_t id) {
  std::ifstream file("/proc/" + std::to_string(id) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return '?';
  const auto bracket = line.rfind(')');
  return bracket != std::string::npos && bracket + 2 < line.size() ? line[bracket + 2] : '?';
}

/// Returns when the process or thread sleeps, or is gone.
inline void await_sleep(pid_t id) {
  const auto limit = std::chrono::steady_clock::now() + patience;
  for (char state = state_of(id); state != 'S' && state != '?'; state = state_of(id)) {
    if (std::chrono::steady_clock::now() > limit) {
      throw std::runtime_error("what should sleep does not: state " + std::string(1, state));
    }
    usleep(20);
  }
}

/// Keeps the calling thread and another process on one CPU: a step is two switches between them,
/// which is cheaper than to wake another CPU.
class one_cpu {
 public:
  explicit one_cpu(pid_t other) {
    cpu_set_t mine;
    CPU_ZERO(&mine);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &mine);
    sched_getaffinity(0, sizeof before_, &before_);
    sched_setaffinity(0, sizeof mine, &mine);
    sched_setaffinity(other, sizeof mine, &mine);
  }
  one_cpu(const one_cpu&) = delete;
  one_cpu& operator=(const one_cpu&) = delete;
  ~one_cpu() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

namespace detail {

[[noreturn]] inline void ptrace_failed(const char* request) {
  throw std::system_error(errno, std::generic_category(), request);
}

// Options and signals are numbers where ptrace has a pointer.
inline void trace(__ptrace_request what, pid_t pid, long data, const char* name) {
  if (ptrace(what, pid, nullptr, data) == -1) ptrace_failed(name);
}

inline std::string describe_status(int status) {
  return WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                             : "exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace detail

/// Holds one process and moves it. Only the thread that made it may use it; whatever is left of the
/// process at the end is killed.
class stepper {
 public:
  /// How a move ended. Over: it sleeps in a system call and has nothing to do any more.
  enum class halt { stopped, over };
  struct traced_already {};

  /// Takes hold of a process, whatever it does.
  explicit stepper(pid_t pid) : pid_(pid) {
    detail::trace(PTRACE_SEIZE, pid, PTRACE_O_EXITKILL, "PTRACE_SEIZE");
    alive_ = true;
    detail::trace(PTRACE_INTERRUPT, pid, 0, "PTRACE_INTERRUPT");
    await(never);
  }
  /// The same for one that is about to stop, see birth_watch.
  stepper(pid_t pid, traced_already) : pid_(pid), alive_(true) { await(never); }
  stepper(const stepper&) = delete;
  stepper& operator=(const stepper&) = delete;
  ~stepper() {
    if (alive_) kill_it();
  }

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

  /// One instruction. A repeated string instruction traps after each of its rounds; it is two
  /// steps, one round and all the others.
  /// @param over asked when the process has fallen asleep: whether it is done with its work
  template <class Over>
  halt step(Over over) {
    const std::uintptr_t at = pc();
    const std::size_t length = has_breakpoints && at == last_pc_ ? repeated_length(at) : 0;
    last_pc_ = at;
    if (length != 0) return run_to(at + length, over);
    detail::trace(PTRACE_SINGLESTEP, pid_, 0, "PTRACE_SINGLESTEP");
    return await(over);
  }

  /// Goes on until the instruction at @p address comes next.
  template <class Over>
  halt run_to(std::uintptr_t address, Over over) {
    const long text = peek(address);
    poke(address, (text & ~0xffL) | 0xcc);
    detail::trace(PTRACE_CONT, pid_, 0, "PTRACE_CONT");
    const halt end = await(over);
    if (end == halt::over) return end;
    poke(address, text);
    set_pc(address);
    return end;
  }

  /// SIGKILL, and waits for the death. Its parent hears of it only then.
  void kill_it() {
    alive_ = false;
    kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, __WALL) == pid_ && WIFSTOPPED(status)) continue;
  }

  /// Address of the instruction that comes next; 0 where there are no breakpoints.
  [[nodiscard]] std::uintptr_t pc() const {
    if (!has_breakpoints) return 0;
    errno = 0;
    const long value = ptrace(PTRACE_PEEKUSER, pid_, pc_at, nullptr);
    if (errno != 0) detail::ptrace_failed("PTRACE_PEEKUSER");
    return static_cast<std::uintptr_t>(value);
  }

 private:
#if defined(__x86_64__)
  static constexpr std::size_t pc_at = offsetof(user_regs_struct, rip);
#else
  static constexpr std::size_t pc_at = 0;
#endif

  static bool never() noexcept {
    return false;
  }

  void set_pc(std::uintptr_t to) const {
    if (ptrace(PTRACE_POKEUSER, pid_, pc_at, to) == -1) detail::ptrace_failed("PTRACE_POKEUSER");
  }
  [[nodiscard]] long peek(std::uintptr_t address) const {
    errno = 0;
    const long text = ptrace(PTRACE_PEEKTEXT, pid_, address, nullptr);
    if (errno != 0) detail::ptrace_failed("PTRACE_PEEKTEXT");
    return text;
  }
  void poke(std::uintptr_t address, long text) const {
    if (ptrace(PTRACE_POKETEXT, pid_, address, text) == -1) {
      detail::ptrace_failed("PTRACE_POKETEXT");
    }
  }

  // Bytes of the string instruction with a repeat prefix at this address; 0: it is another one.
  [[nodiscard]] std::size_t repeated_length(std::uintptr_t at) const {
    const auto text = static_cast<std::uint64_t>(peek(at));
    const auto byte = [text](std::size_t which) { return (text >> (8 * which)) & 0xff; };
    if (byte(0) != 0xf3 && byte(0) != 0xf2) return 0;
    const std::size_t opcode = (byte(1) & 0xf0) == 0x40 ? 2 : 1;  // one more prefix for 64 bits
    const bool moves_bytes = (byte(opcode) & 0xf0) == 0xa0 && (byte(opcode) & 0x0f) >= 4;
    return moves_bytes ? opcode + 1 : 0;
  }

  // Looks instead of waiting, because a process that sleeps in a system call never stops.
  template <class Over>
  halt await(Over over) {
    const auto limit = std::chrono::steady_clock::now() + patience;
    for (unsigned looks = 1;; ++looks) {
      int status = 0;
      if (waitpid(pid_, &status, __WALL | WNOHANG) == pid_ && stopped(status)) return halt::stopped;
      sched_yield();
      if (looks % 64 != 0 || state_of(pid_) != 'S') continue;
      if (over()) return halt::over;
      if (std::chrono::steady_clock::now() > limit) {
        throw std::runtime_error("the process sleeps and its work is not done");
      }
      usleep(50);
    }
  }

  // Whether it stopped for us; a signal is handed on to it.
  bool stopped(int status) {
    if (!WIFSTOPPED(status)) {
      alive_ = false;
      throw std::runtime_error("the process ended by itself: " + detail::describe_status(status));
    }
    const int number = WSTOPSIG(status);
    if (number == SIGTRAP || (status >> 16) != 0) return true;
    detail::trace(PTRACE_CONT, pid_, number, "PTRACE_CONT");
    return false;
  }

  pid_t pid_;
  bool alive_ = false;
  std::uintptr_t last_pc_ = 0;
};

/// Watches a process for its next child and holds that before its first instruction.
class birth_watch {
 public:
  explicit birth_watch(pid_t parent) : parent_(parent) {
    detail::trace(PTRACE_SEIZE, parent, PTRACE_O_TRACEFORK, "PTRACE_SEIZE");
  }

  /// Waits for the child and lets go of the parent. To be called once.
  [[nodiscard]] pid_t await_child() const {
    int status = 0;
    if (waitpid(parent_, &status, __WALL) != parent_ || !WIFSTOPPED(status)) {
      throw std::runtime_error("a process ended before it had a child");
    }
    unsigned long child = 0;
    if (ptrace(PTRACE_GETEVENTMSG, parent_, nullptr, &child) == -1) {
      detail::ptrace_failed("PTRACE_GETEVENTMSG");
    }
    detail::trace(PTRACE_DETACH, parent_, 0, "PTRACE_DETACH");
    return static_cast<pid_t>(child);
  }

 private:
  pid_t parent_;
};

/// Why processes cannot be traced here; empty when they can.
inline std::string tracing_refused() {
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  std::string why;
  try {
    stepper attempt(child);
    attempt.step([] { return true; });
  } catch (const std::system_error& error) {
    why = error.what();
    kill(child, SIGKILL);
    waitpid(child, nullptr, __WALL);
  }
  return why;
}

}  // namespace fault
