// SPDX-License-Identifier: MIT
/// @file
/// Turns the crash_note of a worker into text, in the parent. A forked worker has its code at the
/// parent's addresses; a spawned one has reported where its modules are. Code that only the worker
/// had loaded stays a number.
#pragma once

#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <procpool/detail/crash/crash_handler.hpp>
#include <procpool/detail/module/symbols.hpp>
#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// A crash as far as the worker could note it.
struct crash_report {
  std::optional<std::uintptr_t> fault_address;
  std::string reason;              ///< "address not mapped", or empty
  std::vector<std::string> stack;  ///< innermost frame first
};

/// The cause of a signal that the kernel sent for a failed memory access.
inline std::string describe_bad_access(int signal, std::int32_t code) {
  if (code == SI_KERNEL) return "not a valid address, or a forbidden instruction";
  if (signal == SIGBUS) {
    if (code == BUS_ADRALN) return "misaligned address";
    if (code == BUS_ADRERR) return "no memory at the address, as beyond the end of a mapped file";
    return "hardware memory error";
  }
  if (code == stack_overflow_code) return "stack overflow";
  if (code == SEGV_MAPERR) return "address not mapped";
  if (code == SEGV_ACCERR) return "invalid permissions";
  if (code == SEGV_PKUERR) return "forbidden by a protection key";
  return "";
}

/// On x86-64 FPE_INTDIV also stands for a quotient that is too large, as of INT_MIN / -1.
inline std::string describe_arithmetic(std::int32_t code) {
  if (code == FPE_INTDIV) return "division by zero, or a quotient out of range";
  if (code == FPE_INTOVF) return "integer overflow";
  if (code == FPE_FLTDIV) return "floating-point division by zero";
  if (code == FPE_FLTOVF) return "floating-point overflow";
  if (code == FPE_FLTUND) return "floating-point underflow";
  if (code == FPE_FLTRES) return "inexact floating-point result";
  if (code == FPE_FLTINV) return "invalid floating-point operation";
  return "";
}

/// The origin of a signal that a process sent.
/// @param sender its process id, for a signal to the whole process
inline std::string describe_sender(int signal, std::int32_t code, std::uint64_t sender) {
  if (code == SI_USER) return "sent by kill() from process " + std::to_string(sender);
  if (code == SI_QUEUE) return "sent by sigqueue() from process " + std::to_string(sender);
  if (code == SI_TIMER) return "sent by a timer";
  if (code != SI_TKILL) return "";
  return signal == SIGABRT ? "abort()" : "sent by raise() or to one thread";
}

/// Why a process was sent @p signal, according to si_code; empty if that says no more than the
/// signal's name.
inline std::string describe_cause(int signal, std::int32_t code, std::uint64_t address) {
  if (code <= 0) return describe_sender(signal, code, address & 0xFFFFFFFFU);
  if (signal == SIGSEGV || signal == SIGBUS) return describe_bad_access(signal, code);
  if (signal == SIGFPE) return describe_arithmetic(code);
  if (signal == SIGILL && code == ILL_PRVOPC) return "privileged instruction";
  if (signal == SIGSYS && code == 1) return "system call forbidden by a filter";  // SYS_SECCOMP
  if (signal == SIGXCPU && code == SI_KERNEL) return "CPU time limit of the process";
  return "";
}

/// Whether si_addr is the address of a fault. Other signals have other data in its place.
inline bool has_fault_address(int signal, std::int32_t code) {
  constexpr std::array with_address{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  const bool is_one =
      std::find(with_address.begin(), with_address.end(), signal) != with_address.end();
  return is_one && code > 0 && code != SI_KERNEL;
}

/// Reads one word exactly once: it may change at any moment, which the compiler does not know.
template <class T>
T read_once(const T& word) noexcept {
  return static_cast<const volatile T&>(word);
}

/// Code that a spawned worker has at other addresses than the parent.
struct moved_code {
  std::uintptr_t begin;  ///< in the worker
  std::uintptr_t end;
  std::uintptr_t shift;  ///< added to an address, modulo 2^64, gives the parent's
};

/// The stack in @p note with names. Callers are looked up at their call, one byte before the return
/// address; the first frame at its address.
inline std::vector<std::string> read_stack(const crash_note& note,
                                           std::span<const moved_code> moved) {
  const auto count = std::min<std::uint64_t>(note.frames.load(std::memory_order_acquire),
                                             crash_note::max_frames);  // with the frames it counts
  std::vector<os::code_place> places(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::uintptr_t address = read_once(note.stack[i]);
    for (const moved_code& each : moved) {
      if (address < each.begin || address >= each.end) continue;
      address += each.shift;
      break;
    }
    places[i].address = address;
    places[i].lookup = i == 0 ? address : address - 1;
  }
  os::name_code(places);
  std::vector<std::string> stack;
  stack.reserve(count);
  for (const auto& place : places) stack.push_back(os::describe(place));
  return stack;
}

/// Reads the note of a worker that died of @p signal; empty if it left none. Trusts nothing: a
/// forged note only gives a wrong report about the worker that forged it.
inline crash_report read_crash(const crash_note& note, int signal,
                               std::span<const moved_code> moved = {}) {
  crash_report report;
  const auto noted = note.signal.load(std::memory_order_acquire);  // with all but the stack
  if (noted != static_cast<std::uint32_t>(signal)) return report;
  const std::int32_t code = read_once(note.code);
  const std::uint64_t address = read_once(note.address);
  if (has_fault_address(signal, code)) report.fault_address = address;
  report.reason = describe_cause(signal, code, address);
  report.stack = read_stack(note, moved);
  return report;
}

}  // namespace procpool::detail
