// SPDX-License-Identifier: MIT
/// @file
/// Something that happens just before the n-th system call that the library makes in one process.
/// So every moment that the kernel could tell apart is tried, one after the other. To be included
/// before any header of the library.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "support/shared.hpp"

namespace fault {

/// Whose system calls are counted.
enum class whose { nobody, program, fork_server };

/// What is armed in this process, and, by inheritance, in its children.
struct ambush {
  whose process = whose::nobody;
  pid_t program = 0;          ///< the process that armed it
  std::atomic<long> left{0};  ///< calls until it happens
  void (*act)() = nullptr;    ///< what happens
  std::atomic<int>* fired = nullptr;

  static ambush& instance() noexcept {
    static ambush armed;
    return armed;
  }
};

/// Arms: @p act is called in the process chosen, before its n-th system call from now on. The fork
/// server is any child of this process.
inline void lie_in_wait(whose process, long n, void (*act)(), std::atomic<int>* fired) {
  auto& armed = ambush::instance();
  armed.program = getpid();
  armed.act = act;
  armed.fired = fired;
  armed.left = n;
  armed.process = process;
}

inline void disarm() noexcept {
  ambush::instance().process = whose::nobody;
}

inline bool is_chosen(const ambush& armed) noexcept {
  const bool program = getpid() == armed.program;
  if (armed.process == whose::program) return program;
  return armed.process == whose::fork_server && !program && getppid() == armed.program;
}

inline void before_system_call() noexcept {
  auto& armed = ambush::instance();
  if (armed.process == whose::nobody) return;
  const int error = errno;
  if (is_chosen(armed) && armed.left.fetch_sub(1) == 1) {
    ++*armed.fired;
    armed.act();
  }
  errno = error;
}

}  // namespace fault

#define PROCPOOL_SYSTEM(call) (::fault::before_system_call(), ::call)
