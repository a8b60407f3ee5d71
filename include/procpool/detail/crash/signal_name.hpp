// SPDX-License-Identifier: MIT
/// @file
/// Names of signals as people search for them. Not strsignal(3): its text depends on the locale,
/// and the lookup takes locks of the C library.
#pragma once

#include <signal.h>

#include <array>
#include <string>

#include <procpool/detail/base/concat.hpp>

namespace procpool::detail {

/// "SIGKILL", "SIGRTMIN+3"; "unknown" for numbers that are no signal.
inline std::string signal_name(int number) {
  struct named {
    int number;
    const char* name;
  };
  constexpr std::array all{
      named{SIGHUP, "SIGHUP"},       named{SIGINT, "SIGINT"},   named{SIGQUIT, "SIGQUIT"},
      named{SIGILL, "SIGILL"},       named{SIGTRAP, "SIGTRAP"}, named{SIGABRT, "SIGABRT"},
      named{SIGBUS, "SIGBUS"},       named{SIGFPE, "SIGFPE"},   named{SIGKILL, "SIGKILL"},
      named{SIGUSR1, "SIGUSR1"},     named{SIGSEGV, "SIGSEGV"}, named{SIGUSR2, "SIGUSR2"},
      named{SIGPIPE, "SIGPIPE"},     named{SIGALRM, "SIGALRM"}, named{SIGTERM, "SIGTERM"},
      named{SIGCHLD, "SIGCHLD"},     named{SIGCONT, "SIGCONT"}, named{SIGSTOP, "SIGSTOP"},
      named{SIGTSTP, "SIGTSTP"},     named{SIGTTIN, "SIGTTIN"}, named{SIGTTOU, "SIGTTOU"},
      named{SIGURG, "SIGURG"},       named{SIGXCPU, "SIGXCPU"}, named{SIGXFSZ, "SIGXFSZ"},
      named{SIGVTALRM, "SIGVTALRM"}, named{SIGPROF, "SIGPROF"}, named{SIGWINCH, "SIGWINCH"},
      named{SIGIO, "SIGIO"},         named{SIGPWR, "SIGPWR"},   named{SIGSYS, "SIGSYS"},
#ifdef SIGSTKFLT
      named{SIGSTKFLT, "SIGSTKFLT"},
#endif
  };
  for (const named& each : all) {
    if (each.number == number) return each.name;
  }
  if (number == SIGRTMIN) return "SIGRTMIN";
  if (number == SIGRTMAX) return "SIGRTMAX";
  if (number > SIGRTMIN && number < SIGRTMAX) return concat({"SIGRTMIN+", number - SIGRTMIN});
  return "unknown";
}

}  // namespace procpool::detail
