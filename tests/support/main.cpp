// SPDX-License-Identifier: MIT
// main of every test program: spawned processes, named programs, the watchdog, Catch2, the result
// of the leak guard.
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

/// Removes Catch2's signal handlers in a forked child: they would report the running test a second
/// time, and change the cause of death of a child that should die of a signal.
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
  // Null in programs that redefine the library's hooks: they link no library code without these.
  const bool spawnable = support::begin_spawnable != nullptr;
  if (spawnable) support::begin_spawnable(argc, argv);
  support::create_shared_memory(spawnable);
  if (const int status = support::run_if_named(argc, argv); status >= 0) return status;
  support::start_watchdog();
  if (support::thread_sanitizer) std::thread([] {}).join();  // starts the sanitizer's own thread
  pthread_atfork(nullptr, nullptr, reset_crash_handlers);
  const int status = Catch::Session().run(argc, argv);
  const int leaking = support::leaking_tests();
  if (leaking > 0) std::fprintf(stderr, "\n%d test case(s) left something behind\n", leaking);
  return status == 0 && leaking > 0 ? 1 : status;
}
