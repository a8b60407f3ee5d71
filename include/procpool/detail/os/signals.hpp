// SPDX-License-Identifier: MIT
/// @file
/// Signal masks and dispositions, for threads and for forked processes.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <procpool/config.hpp>

namespace procpool::detail::os {

/// Blocks all signals in the calling thread and restores the mask at the end of the scope. A thread
/// created meanwhile inherits the full mask. Threads of the library are created this way, so that
/// the user's handlers run in the user's threads.
class signals_blocked {
 public:
  signals_blocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &all, &before_));
  }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;
  ~signals_blocked() { PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &before_, nullptr)); }

 private:
  sigset_t before_{};
};

/// Unblocks all signals in the calling thread.
inline void unblock_signals() noexcept {
  sigset_t none;
  sigemptyset(&none);
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &none, nullptr));
}

inline bool is_caught(int number) noexcept {
  struct sigaction action {};
  if (PROCPOOL_SYSTEM(sigaction(number, nullptr, &action)) != 0) return false;  // libc reserves it
  return (action.sa_flags & SA_SIGINFO) != 0 ||
         (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
}

inline void set_disposition(int number, void (*handler)(int)) noexcept {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  PROCPOOL_SYSTEM(sigaction(number, &action, nullptr));
}

}  // namespace procpool::detail::os
