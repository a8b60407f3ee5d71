// SPDX-License-Identifier: MIT
/// @file
/// A worker's last words: what its signal handler notes when it crashes. The process then dies of
/// the very same signal, so that exit code and core dump are those of the crash.
///
/// All here runs inside a process that is broken: nothing allocates, nothing locks, and each piece
/// of the note is complete before the next is tried. Where even that may hang (the unwinder of some
/// systems takes a lock of the dynamic linker), an alarm ends it.
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

/// In crash_note::code, beside what the kernel has in si_code: the stack was full.
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
/// Takes back a call (or jump) whose target could not be run. @returns where it would have returned
/// to, 0 if that cannot be told. The stack may be anywhere: not AddressSanitizer's business.
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
#else  // the note says what and where, not how the thread got there
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

/// Whether the kernel tells of an access that failed, and to which address.
inline bool is_bad_access(const siginfo_t& info) noexcept {
  const bool for_access = info.si_signo == SIGSEGV || info.si_signo == SIGBUS;
  return for_access && info.si_code > 0 && info.si_code != SI_KERNEL;
}

/// Whether the access failed because the stack was full: just below its end, or where the stack
/// pointer is. A frame of many pages may also reach above it, when nothing is mapped even there.
inline bool is_stack_overflow(const siginfo_t& info, std::uintptr_t stack) noexcept {
  constexpr std::uintptr_t below = std::uintptr_t{64} << 10;
  constexpr std::uintptr_t frame = std::uintptr_t{16} << 20;
  if (info.si_signo != SIGSEGV || !is_bad_access(info) || stack < below) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(info.si_addr);
  if (os::guard_of_process_stack.holds(address)) return true;
  const auto page = static_cast<std::uintptr_t>(PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE)));
  if (address < stack) return stack - address <= below;
  if (address / page == stack / page) return true;
  unsigned char resident = 0;
  void* const at = reinterpret_cast<void*>(stack / page * page);
  return address - stack < frame && PROCPOOL_SYSTEM(mincore(at, 1, &resident)) != 0;
}

/// Writes the stack of an interrupted thread into the note, one frame after the other: a stack so
/// corrupt that reading it crashes costs only the rest.
class stack_writer {
 public:
  explicit stack_writer(crash_note& note) noexcept : note_(&note) {}

  /// @returns whether there is room for more.
  bool add(std::uintptr_t pc) noexcept {
    if (count_ == crash_note::max_frames) return false;
    note_->stack[count_] = pc;
    note_->frames.store(++count_, std::memory_order_release);  // the frame before the count
    return count_ < crash_note::max_frames;
  }

  /// Adds those who called the code at @p pc, which is what the kernel interrupted.
  void add_callers_of(std::uintptr_t pc) noexcept {
    below_ = pc;
    _Unwind_Backtrace(&stack_writer::visit, this);
  }

 private:
  // The walk begins in here: it meets the frames of the handler, then the interrupted one.
  static _Unwind_Reason_Code visit(_Unwind_Context* frame, void* writer) noexcept {
    auto& self = *static_cast<stack_writer*>(writer);
    const std::uintptr_t pc = _Unwind_GetIP(frame);
    if (!self.arrived_) {
      self.arrived_ = pc == self.below_;
      return _URC_NO_REASON;
    }
    return pc != 0 && self.add(pc) ? _URC_NO_REASON : _URC_END_OF_STACK;
  }

  crash_note* note_;
  std::uint64_t count_ = 0;
  std::uintptr_t below_ = 0;
  bool arrived_ = false;
};

/// Writes everything into @p note that can be told about the crash of the calling thread.
inline void leave_note(crash_note& note, const siginfo_t& info, ucontext_t& thread) noexcept {
  const std::uintptr_t pc = program_counter(thread);
  const bool sent = info.si_code <= 0;
  const bool overflow = is_stack_overflow(info, stack_pointer(thread));
  note.code = overflow ? stack_overflow_code : info.si_code;
  note.address = sent ? static_cast<std::uint64_t>(info.si_pid)  // the union's other side
                      : reinterpret_cast<std::uintptr_t>(info.si_addr);
  note.thread = static_cast<std::uint64_t>(PROCPOOL_SYSTEM(gettid()));
  note.pc = pc;
  stack_writer stack(note);
  stack.add(pc);
  note.signal.store(static_cast<std::uint32_t>(info.si_signo),
                    std::memory_order_release);  // what stands above is complete
  const bool nowhere = is_bad_access(info) && reinterpret_cast<std::uintptr_t>(info.si_addr) == pc;
  if (!nowhere) return stack.add_callers_of(pc);
  // No unwinder knows how to go on from a place without code, so it is shown the call instead.
  const mcontext_t before = thread.uc_mcontext;
  if (const std::uintptr_t caller = undo_call(thread); caller != 0) {
    set_program_counter(thread, caller - 1);  // inside the call, as for every other caller
    stack.add(caller);
    stack.add_callers_of(caller - 1);
  }
  thread.uc_mcontext = before;
}

/// What the handler has to go by. One for the process, since nothing can be passed to it.
struct crash_state {
  static constexpr std::size_t stack_bytes = std::size_t{128} << 10;

  std::atomic<crash_note*> note{nullptr};
  std::atomic<pid_t> owner{0};            ///< the process whose crashes are noted; not its children
  std::atomic<pid_t> thread{0};           ///< the first that crashed
  std::atomic<siginfo_t*> info{nullptr};  ///< of which; on the stack of its handler
  /// For the handler when the thread's own stack is full. No page of it exists before that.
  alignas(64) std::array<std::byte, stack_bytes> stack{};
};
inline constinit crash_state last_crash{};

/// Whether the instruction that raised the signal raises it again when it is run again. Not so what
/// somebody sent, breakpoints, system calls that were refused, and news of memory that is damaged
/// somewhere.
inline bool comes_again(const siginfo_t& info) noexcept {
  const int number = info.si_signo;
  if (info.si_code <= 0 || (number == SIGBUS && info.si_code == BUS_MCEERR_AO)) return false;
  return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
}

/// Sends the signal once more, to be delivered when the handler returns. With all that the kernel
/// told about it: the core dump is to show the true cause.
inline void send_again(siginfo_t& info, ucontext_t& thread) noexcept {
  const int number = info.si_signo;
  const pid_t process = PROCPOOL_SYSTEM(getpid());
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  os::set_disposition(number, SIG_DFL);
  sigdelset(&thread.uc_sigmask, number);
  if (PROCPOOL_SYSTEM(syscall(SYS_rt_tgsigqueueinfo, process, self, number, &info)) == 0) return;
  // No memory for the details.
  if (PROCPOOL_SYSTEM(syscall(SYS_tgkill, process, self, number)) == 0) return;
  PROCPOOL_SYSTEM(_exit(128 + number));  // a sandbox that allows neither: it must not go on
}

/// Has the thread die of the signal when its handler returns, as if there had been no handler.
inline void die_of(siginfo_t& info, ucontext_t& thread) noexcept {
  if (!comes_again(info)) return send_again(info, thread);
  os::set_disposition(info.si_signo, SIG_DFL);
}

/// Whether this is no crash, but sent to all processes of a program that handles it.
inline bool is_nothing_here(const siginfo_t& info) noexcept {
  const int error = errno;
  const bool nothing = os::is_for_the_program(info);
  errno = error;
  return nothing;
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

/// Ends the process a few seconds from now if it has not come to its end by itself.
inline void limit_last_words() noexcept {
  constexpr unsigned seconds = 3;
  catch_crash(SIGALRM);
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  PROCPOOL_SYSTEM(alarm(seconds));
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_UNBLOCK, &alarms, nullptr));
}

/// The handler. The flag SA_RESETHAND is not used: with it, a second thread that runs into the same
/// crash would end the process while the first still writes. A second crash of the first thread by
/// the same signal needs no care: the signal is blocked, so the kernel ends the process.
inline void on_crash(int number, siginfo_t* info, void* context) noexcept {
  auto& thread = *static_cast<ucontext_t*>(context);
  crash_state& crash = last_crash;
  const pid_t owner = crash.owner.load(std::memory_order_relaxed);       // set before any crash
  if (owner != PROCPOOL_SYSTEM(getpid())) return die_of(*info, thread);  // note is not mapped here
  if (is_nothing_here(*info)) return;
  const pid_t self = PROCPOOL_SYSTEM(gettid());
  pid_t first = 0;
  if (number != SIGALRM &&
      crash.thread.compare_exchange_strong(first, self, std::memory_order_acq_rel)) {
    crash.info.store(info, std::memory_order_release);  // for whoever ends the process instead
    limit_last_words();
    leave_note(*crash.note.load(std::memory_order_relaxed), *info, thread);  // as the owner
    return die_of(*info, thread);
  }
  const bool is_alarm = number == SIGALRM;
  if (is_alarm && info->si_code != SI_KERNEL) return;  // somebody else's
  if (!is_alarm && first != self) {
    const timespec long_enough{10, 0};
    PROCPOOL_SYSTEM(nanosleep(&long_enough, nullptr));  // the first crash ends us all
  }
  siginfo_t* const cause = crash.info.load(std::memory_order_acquire);  // with what it points to
  send_again(cause != nullptr ? *cause : *info, thread);
}

/// Has crashes of this process noted from now on, those of the calling thread also when its stack
/// is full. What is ignored stays ignored, and handlers installed later win.
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
  /// The handlers stay and do nothing but let the process die.
  ~crash_handler() { last_crash.owner.store(0, std::memory_order_relaxed); }  // for this process

 private:
  static bool is_ignored(int number) noexcept {
    struct sigaction action {};
    PROCPOOL_SYSTEM(sigaction(number, nullptr, &action));
    return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN;
  }

  // The first call of a function in a library, and the unwinder's own first time, are the dynamic
  // linker's business, which may take locks: done here, while the process is sound.
  static void prepare_unwinder() noexcept {
    const auto stop = [](_Unwind_Context*, void*) { return _URC_END_OF_STACK; };
    _Unwind_Backtrace(stop, nullptr);
  }
};

}  // namespace procpool::detail
