// SPDX-License-Identifier: MIT
// Programs with ideas of their own about signals and children: handlers and loops that reap every
// child, masks, ignored signals. Neither disturbs the other.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/procpool.hpp>

#include "family.hpp"
#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using namespace fault;
using namespace std::chrono_literals;

long square(long x) {
  return x * x;
}

void leave_with_three() {
  std::exit(3);
}

void kill_myself() {
  kill(getpid(), SIGKILL);
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

/// What the program's own waitpid(-1) has collected: a child and its status. Written by a handler.
struct collected {
  std::array<std::atomic<pid_t>, 1024> pids{};
  std::array<std::atomic<int>, 1024> statuses{};
  std::atomic<std::size_t> count{0};

  void add(pid_t pid, int status) {
    const std::size_t at = count++;
    if (at >= pids.size()) std::abort();
    statuses[at] = status;
    pids[at] = pid;
  }
  [[nodiscard]] std::optional<int> status_of(pid_t pid) const {
    for (std::size_t i = 0; i < pids.size(); ++i) {
      if (pids[i] == pid) return statuses[i].load();
    }
    return std::nullopt;
  }
};
collected taken;

void reap_all(int) {
  const int error = errno;
  int status = 0;
  for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) taken.add(pid, status);
  errno = error;
}

/// A child that the library does not know.
pid_t own_child(int code) {
  const pid_t pid = fork();
  if (pid == 0) {
    usleep(2000);
    _exit(code);
  }
  return pid;
}

/// The exit codes that process.hpp promises. When somebody else has reaped the child the kernel
/// remembers its status since Linux 6.15; before, it is not known.
bool as_documented(std::optional<int> got, int expected, bool reaped_by_others) {
  return got == expected || (reaped_by_others && got == 255);
}

void use_processes(bool reaped_by_others) {
  const std::array<std::pair<void (*)(), int>, 3> kinds{
      {{[] {}, 0}, {leave_with_three, 3}, {kill_myself, -SIGKILL}}};
  for (const auto& [body, code] : kinds) {
    procpool::Process child(body);
    child.start();
    child.join();
    CHILD_REQUIRE(as_documented(child.exitcode(), code, reaped_by_others));
    CHILD_REQUIRE(!child.is_alive());
  }
}

/// @returns the exit code of the worker that a task took with it
int death_of(procpool::Pool<>& pool, void (*task)()) {
  try {
    pool.apply(task);
  } catch (const procpool::WorkerDied& death) {
    return death.exitcode();
  }
  return 0;
}

void use_pools() {
  procpool::Pool pool{2};
  CHILD_REQUIRE(pool.map(square, numbers(1000)).back() == 998001);
  CHILD_REQUIRE(death_of(pool, leave_with_three) == 3);  // the fork server knows for certain
  CHILD_REQUIRE(death_of(pool, kill_myself) == -SIGKILL);
  CHILD_REQUIRE(pool.apply_async(square, 5L).get() == 25);
  pool.close();
  pool.join();
  procpool::Pool terminated{3};
  auto rest = terminated.map_async(square, numbers(1000));
  terminated.terminate();
}

/// Pools and processes between children of the program's own.
std::vector<pid_t> live(bool reaped_by_others, int rounds) {
  std::vector<pid_t> own;
  for (int round = 0; round < rounds; ++round) {
    own.push_back(own_child(42));
    use_pools();
    own.push_back(own_child(42));
    use_processes(reaped_by_others);
  }
  return own;
}

constexpr int rounds = 20;

int with_default_handling() {
  for (pid_t pid : live(false, rounds)) CHILD_REQUIRE(support::wait_child(pid) == 42);
  CHILD_REQUIRE(waitpid(-1, nullptr, 0) == -1 && errno == ECHILD);  // nothing is left of ours
  return 0;
}

int with_a_handler(int flags) {
  struct sigaction action {};
  action.sa_handler = reap_all;
  action.sa_flags = flags;
  sigaction(SIGCHLD, &action, nullptr);
  const auto own = live(true, rounds);
  for (pid_t pid : own) {
    CHILD_REQUIRE(support::eventually([&] { return taken.status_of(pid).has_value(); }));
    CHILD_REQUIRE(taken.status_of(pid) == 42 << 8);
  }
  return 0;
}

int with_sigchld_ignored() {
  signal(SIGCHLD, SIG_IGN);
  static_cast<void>(live(true, rounds));
  struct sigaction action {};
  sigaction(SIGCHLD, nullptr, &action);
  CHILD_REQUIRE(action.sa_handler == SIG_IGN);
  return 0;
}

int with_a_waiting_thread() {
  std::atomic<bool> enough = false;
  std::thread reaper([&] {
    int status = 0;
    while (!enough) {
      const pid_t pid = waitpid(-1, &status, 0);
      if (pid > 0) taken.add(pid, status);
      if (pid < 0) std::this_thread::sleep_for(100us);
    }
  });
  for (pid_t pid : live(true, rounds)) {
    CHILD_REQUIRE(support::eventually([&] { return taken.status_of(pid).has_value(); }));
    CHILD_REQUIRE(taken.status_of(pid) == 42 << 8);
  }
  enough = true;
  reaper.join();
  return 0;
}

void print(const char* host) {
  std::printf(
      "SIGCHLD, %s: %d pools, %d workers' deaths, %d Processes, %d own children, all "
      "accounted for\n",
      host, 2 * rounds, 2 * rounds, 3 * rounds, 2 * rounds);
}

/// @p host runs as a program and leaves nothing.
void check_host(const char* what, const std::function<int()>& host) {
  family one(host);
  CHECK(one.wait(30s) == 0);
  CHECK(one.gone());
  print(what);
}

// ---- what a program has set stays as it is ---------------------------------------------------

struct signal_state {
  std::array<struct sigaction, 65> actions{};
  sigset_t mask{};
  stack_t alternate{};

  signal_state() {
    for (int number = 1; number < 65; ++number) {
      sigaction(number, nullptr, &actions[static_cast<std::size_t>(number)]);
    }
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    sigaltstack(nullptr, &alternate);
  }

  friend bool operator==(const signal_state& a, const signal_state& b) {
    for (int number = 1; number < 65; ++number) {
      const auto& one = a.actions[static_cast<std::size_t>(number)];
      const auto& other = b.actions[static_cast<std::size_t>(number)];
      if (one.sa_handler != other.sa_handler || one.sa_flags != other.sa_flags) return false;
      if (sigismember(&a.mask, number) != sigismember(&b.mask, number)) return false;
    }
    return a.alternate.ss_sp == b.alternate.ss_sp && a.alternate.ss_flags == b.alternate.ss_flags;
  }
};

void do_nothing(int) {}

/// Handlers for everything that may have one, some signals ignored, some blocked.
void set_signals_of_a_program() {
  for (int number = 1; number < 65; ++number) {
    if (number != SIGKILL && number != SIGSTOP && number != 32 && number != 33) {
      signal(number, do_nothing);
    }
  }
  signal(SIGUSR2, SIG_IGN);
  sigset_t some;
  sigemptyset(&some);
  for (int number : {SIGUSR1, SIGTERM, SIGCHLD}) sigaddset(&some, number);
  pthread_sigmask(SIG_SETMASK, &some, nullptr);
}

/// What is not as in a fresh program: signal numbers. The library's own handlers are not counted:
/// those of crashes, and of what ends or stops a process, which take the default action when it is
/// the worker's own doing.
std::vector<int> unusual_signals() {
  std::vector<int> found;
  const signal_state state;
  for (int number = 1; number < 65; ++number) {
    const bool crash = number == SIGSEGV || number == SIGBUS || number == SIGILL ||
                       number == SIGFPE || number == SIGABRT || number == SIGTRAP ||
                       number == SIGSYS || number == SIGXCPU;
    const auto handler = state.actions[static_cast<std::size_t>(number)].sa_handler;
    if (sigismember(&state.mask, number) != 0) found.push_back(-number);
    const bool ours = procpool::detail::os::has_worker_handler(number);
    if (!crash && !ours && handler != SIG_DFL) found.push_back(number);
  }
  return found;
}

void write_into_a_broken_pipe() {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return;
  close(ends[0]);
  (void)!write(ends[1], "x", 1);
}

int keep_the_hosts_signals() {
  set_signals_of_a_program();
  const signal_state before;
  {
    procpool::Pool pool{2};
    CHILD_REQUIRE(signal_state() == before);
    auto results = pool.map_async(square, numbers(100));
    CHILD_REQUIRE(results.get().back() == 9801);
    CHILD_REQUIRE(death_of(pool, kill_myself) == -SIGKILL);
    CHILD_REQUIRE(signal_state() == before);
    CHILD_REQUIRE(pool.apply(unusual_signals) == std::vector<int>{SIGUSR2});
  }
  CHILD_REQUIRE(signal_state() == before);
  procpool::Process child([] {});
  child.start();
  child.join();
  CHILD_REQUIRE(child.exitcode() == 0);
  CHILD_REQUIRE(signal_state() == before);
  return 0;
}

int die_of_broken_pipes() {
  signal(SIGPIPE, do_nothing);
  procpool::Pool pool{2};
  CHILD_REQUIRE(death_of(pool, write_into_a_broken_pipe) == -SIGPIPE);
  CHILD_REQUIRE(pool.apply(square, 3L) == 9);
  return 0;
}

/// A pool that has lost its processes must not cost the program its life by SIGPIPE.
int live_through_lost_peers() {
  signal(SIGPIPE, SIG_DFL);
  procpool::Pool pool{2};
  for (const auto& child : support::children_of(getpid())) kill(child.pid, SIGKILL);
  for (int i = 0; i < 100; ++i) {
    try {
      CHILD_REQUIRE(pool.apply(square, 3L) == 9);
    } catch (const procpool::BrokenPool&) {
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("children of the program's own are left to it", "[fault][sigchld]") {
  check_host("default", with_default_handling);
}

TEST_CASE("a SIGCHLD handler that reaps every child and the library get along",
          "[fault][sigchld]") {
  check_host("handler", [] { return with_a_handler(0); });
  check_host("handler with SA_RESTART", [] { return with_a_handler(SA_RESTART); });
}

TEST_CASE("pools and processes work while SIGCHLD is ignored", "[fault][sigchld]") {
  check_host("ignored", with_sigchld_ignored);
}

TEST_CASE("a thread that waits for any child all the time and the library get along",
          "[fault][sigchld]") {
  check_host("thread in waitpid(-1)", with_a_waiting_thread);
}

TEST_CASE("a program's handlers, mask and signal stack are as they were, tasks begin with none",
          "[fault][signals]") {
  CHECK(support::run_child(keep_the_hosts_signals) == 0);
}

TEST_CASE("SIGPIPE ends a task that asks for it, and never the program", "[fault][signals]") {
  CHECK(support::run_child(die_of_broken_pipes) == 0);
  CHECK(support::run_child(live_through_lost_peers) == 0);
}
