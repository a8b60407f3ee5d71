// SPDX-License-Identifier: MIT
/// @file
/// The signal handler of a worker that crashes. It writes a crash_note; then the process dies of
/// the same signal, so that exit code and core dump are those of the crash.
///
/// The code runs inside a broken process: nothing allocates, nothing locks, and each part of the
/// note is complete before the next is started. Where even that may hang (the unwinder of some
/// systems takes a lock of the dynamic linker), an alarm ends the process.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/detail/machine/stack.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// A value of crash_note::code that is no si_code of the kernel: the stack was full.
inline constexpr std::int32_t stack_overflow_code = 1000;

inline constexpr std::array crash_signals{SIGSEGV, SIGBUS,  SIGILL, SIGFPE,
                                          SIGABRT, SIGTRAP, SIGSYS, SIGXCPU};

// The few registers that matter, for each processor.
#if defined(__x86_64__)
inline std::uintptr_t program_counter(const ucontext_t& thread) noexcept {
  return static_cast<std::uintptr_t>(thread.uc_mcontext.gregs[REG_RIP]);
}
inline std::uintptr_t stack_pointer(const ucontext_t& thread) noexcept {
  return static_cast<std::uintptr_t>(thread.uc_mcontext.gregs[REG_RSP]);
}
inline void set_program_counter(ucontext_t& thread, std::uintptr_t to) noexcept {
  thread.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(to);
}
/// Undoes a call (or jump) whose target could not run. @returns the return address; 0 if unknown.
/// Without AddressSanitizer, because the stack pointer may point anywhere.
[[gnu::no_sanitize_address]] inline std::uintptr_t undo_call(ucontext_t& thread) noexcept {
  const std::uintptr_t top = stack_pointer(thread);
  if (top % sizeof(std::uintptr_t) != 0) return 0;
  thread.uc_mcontext.gregs[REG_RSP] += static_cast<greg_t>(sizeof(std::uintptr_t));
  return *reinterpret_cast<const volatile std::uintptr_t*>(top);
}
#elif defined(__aarch64__)
inline std::uintptr_t program_counter(const ucontext_t& thread) noexcept {
  return thread.uc_mcontext.pc;
}
inline std::uintptr_t stack_pointer(const ucontext_t& thread) noexcept {
  return thread.uc_mcontext.sp;
}
inline void set_program_counter(ucontext_t& thread, std::uintptr_t to) noexcept {
  thread.uc_mcontext.pc = to;
}
inline std::uintptr_t undo_call(ucontext_t& thread) noexcept {
  return thread.uc_mcontext.regs[30];
}
#else  // other processors: the note has the signal and si_addr, but no stack
inline std::uintptr_t program_counter(const ucontext_t&) noexcept {
  return 0;
}
inline std::uintptr_t stack_pointer(const ucontext_t&) noexcept {
  return 0;
}
inline void set_program_counter(ucontext_t&, std::uintptr_t) noexcept {}
inline std::uintptr_t undo_call(ucontext_t&) noexcept {
  return 0;
}
#endif

/// Whether the kernel reports a failed memory access, with its address.
inline bool is_bad_access(const siginfo_t& info) noexcept {
  const bool for_access = info.si_signo == SIGSEGV || info.si_signo == SIGBUS;
  return for_access && info.si_code > 0 && info.si_code != SI_KERNEL;
}

/// Whether the access failed because the stack was full: the address is just below the stack
/// pointer or on its page. With a frame of many pages it may also be above the stack pointer, if
/// nothing is mapped at the stack pointer.
inline bool is_stack_overflow(const siginfo_t& info, std::uintptr_t stack) noexcept {
  constexpr std::uintptr_t max_below = std::uintptr_t{64} << 10;
  constexpr std::uintptr_t max_frame = std::uintptr_t{16} << 20;
  if (info.si_signo != SIGSEGV || !is_bad_access(info) || stack < max_below) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(info.si_addr);
  if (os::guard_of_process_stack.holds(address)) return true;
  const auto page = static_cast<std::uintptr_t>(PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE)));
  if (address < stack) return stack - address <= max_below;
  if (address / page == stack / page) return true;
  unsigned char resident = 0;
  void* const at = reinterpret_cast<void*>(stack / page * page);
  return address - stack < max_frame && PROCPOOL_SYSTEM(mincore(at, 1, &resident)) != 0;
}

/// Writes the stack of an interrupted thread into the note, frame by frame. If reading a corrupt
/// stack crashes, only the remaining frames are lost.
class stack_writer {
 public:
  explicit stack_writer(crash_note& note) noexcept : note_(&note) {}

  /// @returns whether there is room for more.
  bool add(std::uintptr_t pc) noexcept {
    if (count_ == crash_note::max_frames) return false;
    note_->stack[count_] = pc;
    note_->frames.store(++count_, std::memory_order_release);  // after the frame
    return count_ < crash_note::max_frames;
  }

  /// Adds the callers of the code at @p pc, where the kernel interrupted the thread.
  void add_callers_of(std::uintptr_t pc) noexcept {
    interrupted_ = pc;
    _Unwind_Backtrace(&stack_writer::visit, this);
  }

 private:
  // The walk starts in this class: it passes the handler's frames, then the interrupted one.
  static _Unwind_Reason_Code visit(_Unwind_Context* frame, void* writer) noexcept {
    auto& self = *static_cast<stack_writer*>(writer);
    const std::uintptr_t pc = _Unwind_GetIP(frame);
    if (!self.found_interrupted_) {
      self.found_interrupted_ = pc == self.interrupted_;
      return _URC_NO_REASON;
    }
    return pc != 0 && self.add(pc) ? _URC_NO_REASON : _URC_END_OF_STACK;
  }

  crash_note* note_;
  std::uint64_t count_ = 0;
  std::uintptr_t interrupted_ = 0;
  bool found_interrupted_ = false;
};

/// Writes all that is known about the crash of the calling thread into @p note.
inline void write_note(crash_note& note, const siginfo_t& info, ucontext_t& thread) noexcept {
  const std::uintptr_t pc = program_counter(thread);
  const bool sent = info.si_code <= 0;
  const bool overflow = is_stack_overflow(info, stack_pointer(thread));
  note.code = overflow ? stack_overflow_code : info.si_code;
  note.address = sent ? static_cast<std::uint64_t>(info.si_pid)  // same union as si_addr
                      : reinterpret_cast<std::uintptr_t>(info.si_addr);
  note.thread = static_cast<std::uint64_t>(PROCPOOL_SYSTEM(gettid()));
  note.pc = pc;
  stack_writer stack(note);
  stack.add(pc);
  note.signal.store(static_cast<std::uint32_t>(info.si_signo),
                    std::memory_order_release);  // after all of the above
  const bool is_no_code =
      is_bad_access(info) && reinterpret_cast<std::uintptr_t>(info.si_addr) == pc;
  if (!is_no_code) return stack.add_callers_of(pc);
  // An unwinder cannot continue from an address without code, so it starts at the call instead.
  const mcontext_t before = thread.uc_mcontext;
  if (const std::uintptr_t caller = undo_call(thread); caller != 0) {
    set_program_counter(thread, caller - 1);  // inside the call, as for every other caller
    stack.add(caller);
    stack.add_callers_of(caller - 1);
  }
  thread.uc_mcontext = before;
}

/// The state of the handler. One for the process, because nothing can be passed to a handler.
struct crash_state {
  static constexpr std::size_t stack_bytes = std::size_t{128} << 10;

  std::atomic<crash_note*> note{nullptr};
  std::atomic<pid_t> owner{0};            ///< the process whose crashes are noted; not its children
  std::atomic<pid_t> thread{0};           ///< the first that crashed
  std::atomic<siginfo_t*> info{nullptr};  ///< of its crash; on the stack of its handler
  /// For the handler when the thread's own stack is full. Its pages take no memory before that.
  alignas(64) std::array<std::byte, stack_bytes> stack{};
};
inline constinit crash_state last_crash{};

/// Whether the instruction that raised the signal raises it again when it runs again. False for
/// signals that a process sent, breakpoints, refused system calls, and reports of damaged memory
/// elsewhere (BUS_MCEERR_AO).
inline bool recurs(const siginfo_t& info) noexcept {
  const int number = info.si_signo;
  if (info.si_code <= 0 || (number == SIGBUS && info.si_code == BUS_MCEERR_AO)) return false;
  return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
}

/// Sends the signal once more, for delivery when the handler returns. With all of the kernel's
/// details, so that the core dump shows the true cause.
inline void send_again(siginfo_t& info, ucontext_t& thread) noexcept {
  const int number = info.si_signo;
  const pid_t process = PROCPOOL_SYSTEM(getpid());
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  os::set_disposition(number, SIG_DFL);
  sigdelset(&thread.uc_sigmask, number);
  if (PROCPOOL_SYSTEM(syscall(SYS_rt_tgsigqueueinfo, process, self, number, &info)) == 0) return;
  // The kernel has no memory for the details.
  if (PROCPOOL_SYSTEM(syscall(SYS_tgkill, process, self, number)) == 0) return;
  PROCPOOL_SYSTEM(_exit(128 + number));  // a sandbox forbids both: the process must not go on
}

/// Makes the thread die of the signal when its handler returns, as if there were no handler.
inline void die_of(siginfo_t& info, ucontext_t& thread) noexcept {
  if (!recurs(info)) return send_again(info, thread);
  os::set_disposition(info.si_signo, SIG_DFL);
}

/// Whether the signal is no crash, but was sent to all processes of a program that handles it.
inline bool is_for_program_only(const siginfo_t& info) noexcept {
  const int error = errno;
  const bool for_program = os::is_for_the_program(info);
  errno = error;
  return for_program;
}

inline void on_crash(int number, siginfo_t* info, void* context) noexcept;

inline void catch_crash(int number) noexcept {
  struct sigaction action {};
  action.sa_sigaction = &on_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);  // no handler of the user's from here on
  for (const int crash : crash_signals) sigdelset(&action.sa_mask, crash);
  PROCPOOL_SYSTEM(sigaction(number, &action, nullptr));
}

/// Ends the process a few seconds from now, if it has not ended by then.
inline void limit_handler_time() noexcept {
  constexpr unsigned seconds = 3;
  catch_crash(SIGALRM);
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  PROCPOOL_SYSTEM(alarm(seconds));
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_UNBLOCK, &alarms, nullptr));
}

/// The handler. Without SA_RESETHAND: with it, a second thread with the same crash would end the
/// process while the first still writes. A second crash of the first thread by the same signal
/// needs no care: the signal is blocked, so the kernel ends the process.
inline void on_crash(int number, siginfo_t* info, void* context) noexcept {
  auto& thread = *static_cast<ucontext_t*>(context);
  crash_state& crash = last_crash;
  const pid_t owner = crash.owner.load(std::memory_order_relaxed);       // set before any crash
  if (owner != PROCPOOL_SYSTEM(getpid())) return die_of(*info, thread);  // note is not mapped here
  if (is_for_program_only(*info)) return;
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  pid_t first = 0;
  if (number != SIGALRM &&
      crash.thread.compare_exchange_strong(first, self, std::memory_order_acq_rel)) {
    crash.info.store(info, std::memory_order_release);  // for another thread that sends it again
    limit_handler_time();
    write_note(*crash.note.load(std::memory_order_relaxed), *info, thread);  // set with the owner
    return die_of(*info, thread);
  }
  const bool is_alarm = number == SIGALRM;
  if (is_alarm && info->si_code != SI_KERNEL) return;  // not the handler's alarm
  if (!is_alarm && first != self) {
    const timespec long_enough{10, 0};
    PROCPOOL_SYSTEM(nanosleep(&long_enough, nullptr));  // the first crash ends the process
  }
  siginfo_t* const cause = crash.info.load(std::memory_order_acquire);  // with what it points to
  send_again(cause != nullptr ? *cause : *info, thread);
}

/// Notes crashes of this process from now on; those of the calling thread even when its stack is
/// full. Ignored signals stay ignored, and handlers installed later take precedence.
class crash_handler {
 public:
  explicit crash_handler(crash_note& note) noexcept {
    last_crash.note.store(&note, std::memory_order_relaxed);  // relaxed, all four: no signal is
    last_crash.thread.store(0, std::memory_order_relaxed);    // caught yet
    last_crash.info.store(nullptr, std::memory_order_relaxed);
    last_crash.owner.store(PROCPOOL_SYSTEM(getpid()), std::memory_order_relaxed);
    stack_t stack{};
    stack.ss_sp = last_crash.stack.data();
    stack.ss_size = last_crash.stack.size();
    PROCPOOL_SYSTEM(sigaltstack(&stack, nullptr));
    prepare_unwinder();
    for (const int number : crash_signals) {
      if (!is_ignored(number)) catch_crash(number);
    }
  }
  crash_handler(const crash_handler&) = delete;
  crash_handler& operator=(const crash_handler&) = delete;
  /// The handlers stay installed, but only let the process die.
  ~crash_handler() { last_crash.owner.store(0, std::memory_order_relaxed); }  // for this process

 private:
  static bool is_ignored(int number) noexcept {
    struct sigaction action {};
    PROCPOOL_SYSTEM(sigaction(number, nullptr, &action));
    return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN;
  }

  // The first call of a library's function and the first run of the unwinder enter the dynamic
  // linker, which may take locks. So both happen here, while the process is sound.
  static void prepare_unwinder() noexcept {
    const auto stop = [](_Unwind_Context*, void*) { return _URC_END_OF_STACK; };
    _Unwind_Backtrace(stop, nullptr);
  }
};

}  // namespace procpool::detail
