// SPDX-License-Identifier: MIT
// main of every test program: spawned processes, named programs, the watchdog, Catch2, the leak
// guard's verdict.
#include <pthread.h>
#include <signal.h>

#include <catch2/catch_session.hpp>
#include <cstdio>
#include <thread>

#include "child.hpp"
#include "sanitizers.hpp"
#include "shared.hpp"
#include "spawnable.hpp"
#include "verdict.hpp"
#include "watchdog.hpp"

namespace {

/// In a forked child Catch2's handlers would report the running test a second time, and a child
/// that should die of a signal would die of something else.
void reset_crash_handlers() {
  for (int number : {SIGINT, SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTERM, SIGABRT}) {
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    const bool by_catch2 = (action.sa_flags & SA_ONSTACK) != 0;  // tests' own handlers stay
    if (by_catch2) signal(number, SIG_DFL);
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Not in programs that redefine the library's hooks: nothing of the library is compiled without.
  const bool spawnable = support::begin_spawnable != nullptr;
  if (spawnable) support::begin_spawnable(argc, argv);
  support::create_shared_memory(spawnable);
  if (const int status = support::run_if_named(argc, argv); status >= 0) return status;
  support::start_watchdog();
  if (support::thread_sanitizer) std::thread([] {}).join();  // it has one of its own from then on
  pthread_atfork(nullptr, nullptr, reset_crash_handlers);
  const int status = Catch::Session().run(argc, argv);
  const int leaking = support::leaking_tests();
  if (leaking > 0) std::fprintf(stderr, "\n%d test case(s) left something behind\n", leaking);
  return status == 0 && leaking > 0 ? 1 : status;
}
