// SPDX-License-Identifier: MIT
// Signals to all processes of a program, as terminals, timeout(1) and service managers send them:
// the program answers them, its pool goes on. And what tasks start takes them like any command.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::start_method;

support::common<support::gate*> door;
std::atomic<int> caught{0};

void count(int) {
  caught.fetch_add(1, std::memory_order_relaxed);  // a count
}

/// All whose default action is to end or to stop, but for SIGKILL and SIGSTOP.
std::vector<int> harmful_signals() {
  std::vector<int> all;
  for (int number = 1; number < 32; ++number) {
    if (number != SIGKILL && number != SIGSTOP && number != SIGCHLD && number != SIGCONT &&
        number != SIGURG && number != SIGWINCH) {
      all.push_back(number);
    }
  }
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) all.push_back(number);
  return all;
}

void catch_all() {
  for (const int number : harmful_signals()) signal(number, count);
}

void ignore_all() {
  for (const int number : harmful_signals()) signal(number, SIG_IGN);
}

void block_all() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

long pass(long x) {
  door->pass();
  return 2 * x;
}

pid_t pid_slowly(long) {
  std::this_thread::sleep_for(5ms);
  return getpid();
}

std::set<pid_t> pids_of(procpool::Pool<>& pool) {
  const auto all = pool.map(pid_slowly, std::vector<long>(24), {.chunksize = 1});
  return {all.begin(), all.end()};
}

/// To the whole group. One that is blocked is taken out again, as signalfd or sigwait would.
void send_all() {
  for (const int number : harmful_signals()) {
    kill(0, number);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    const timespec at_once{};
    static_cast<void>(sigtimedwait(&one, nullptr, &at_once));
  }
}

/// A program that does something about all signals: before it has a pool, or once it has one. Its
/// pool gets all of them while it is idle and while it is busy.
int withstand(start_method method, void (*prepare)(), bool early) {
  setpgid(0, 0);
  if (early) prepare();
  procpool::Pool pool{{.processes = 2, .start_method = method}};
  if (!early) prepare();
  const auto before = pids_of(pool);
  send_all();
  door->opened = false;
  door->arrived = 0;
  auto busy = pool.map_async(pass, std::vector<long>{1, 2, 3, 4}, {.chunksize = 1});
  CHILD_REQUIRE(door->wait_for(2));
  send_all();
  door->open();
  CHILD_REQUIRE(busy.get(20s) == (std::vector<long>{2, 4, 6, 8}));
  const auto after = pids_of(pool);
  CHILD_REQUIRE(std::ranges::includes(before, after));
  pool.close();
  pool.join();
  return 0;
}

/// Pools come and go while signals rain.
int withstand_rain(start_method method) {
  setpgid(0, 0);
  catch_all();
  const auto all = harmful_signals();
  const std::jthread rain([&](const std::stop_token& over) {
    for (std::size_t i = 0; !over.stop_requested(); ++i) {
      kill(0, all[i % all.size()]);
      if (i % 8 == 0) std::this_thread::sleep_for(100us);
    }
  });
  for (int round = 0; round < (method == start_method::fork ? 60 : 12); ++round) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    CHILD_REQUIRE(pool.map(pid_slowly, std::vector<long>(4), {.chunksize = 1}).size() == 4);
    if (round % 2 == 0) pool.close();
    if (round % 2 == 0) pool.join();
  }
  return 0;
}

std::optional<int> death_of(procpool::Pool<>& pool, void (*task)(int), int argument) {
  try {
    pool.apply(task, argument);
    return std::nullopt;
  } catch (const procpool::WorkerDied& died) {
    return died.signal();
  }
}

/// Both, as it has no better name here.
constexpr std::array both{start_method::fork, start_method::spawn};

void expect_success(auto program) {
  for (const start_method method : both) {
    INFO((method == start_method::fork ? "fork" : "spawn"));
    const support::shared<support::gate> gate;
    door = gate.get();
    CHECK(support::run_child([&] { return program(method); }) == 0);
  }
}

void raise_it(int number) {
  raise(number);
}

void let_an_alarm_come(int seconds) {
  alarm(static_cast<unsigned>(seconds));
  std::this_thread::sleep_for(10s);
}

void write_into_a_broken_pipe(int) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return;
  close(ends[0]);
  (void)!write(ends[1], "x", 1);
}

std::atomic<int> own{0};
int take_with_own_handler(int number) {
  signal(number, [](int) { ++own; });
  kill(getpid(), number);
  const int taken = own.exchange(0);
  signal(number, SIG_DFL);
  return taken;
}

/// What became of a command that sends itself a signal.
int end_of_command(int number) {
  const std::string command = "kill -" + std::to_string(number) + " $$; exit 0";
  const int status = std::system(command.c_str());
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/// Signals that an executed command ignores and blocks, as lines of /proc/PID/status.
std::string signals_of_command() {
  std::string text;
  if (std::FILE* command = popen("grep -E 'Sig(Blk|Ign):' /proc/self/status", "r")) {
    for (int c = 0; (c = std::fgetc(command)) != EOF;) text += static_cast<char>(c);
    pclose(command);
  }
  return text;
}

int terminate_a_process() {
  procpool::Process process{[] { std::this_thread::sleep_for(20s); }};
  process.start();
  process.terminate();
  process.join();
  return process.exitcode().value();
}

/// A pool in a task gets the signals, too.
int nested(int number) {
  procpool::Pool inner{1};
  auto result = inner.apply_async(pass, 4L);
  if (!door->wait_for(1)) return 1;
  kill(0, number);
  door->open();
  return result.get(10s) == 8 ? 0 : 2;
}

}  // namespace

TEST_CASE("signals to the whole group that the program catches do a pool no harm", "[signals]") {
  for (const bool early : {true, false}) {
    expect_success([=](start_method method) { return withstand(method, catch_all, early); });
  }
}

TEST_CASE("signals to the whole group that the program ignores do a pool no harm", "[signals]") {
  for (const bool early : {true, false}) {
    expect_success([=](start_method method) { return withstand(method, ignore_all, early); });
  }
}

TEST_CASE("signals to the whole group that the program waits for do a pool no harm", "[signals]") {
  for (const bool early : {true, false}) {
    expect_success([=](start_method method) { return withstand(method, block_all, early); });
  }
}

TEST_CASE("signals that come while pools are made and ended do them no harm",
          "[signals][limit:120]") {
  expect_success(withstand_rain);
}

TEST_CASE("what the program leaves at its default kills a worker, and the pool goes on",
          "[signals]") {
  expect_success([](start_method method) {
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    for (const int number : {SIGTERM, SIGHUP, SIGUSR1, SIGALRM, SIGQUIT, SIGRTMIN + 3}) {
      door->arrived = 0;
      door->opened = false;
      const pid_t worker = pool.apply(pid_slowly, 1L);
      auto busy = pool.apply_async(pass, 1L);
      CHILD_REQUIRE(door->wait_for(1));
      kill(worker, number);
      try {
        static_cast<void>(busy.get(20s));
        return 1;
      } catch (const procpool::WorkerDied& died) {
        CHILD_REQUIRE(died.signal() == number);
      }
    }
    CHILD_REQUIRE(pool.apply(pid_slowly, 1L) > 0);
    return 0;
  });
}

TEST_CASE("workers that are not to ignore signals die of them, the fork server does not",
          "[signals]") {
  expect_success([](start_method method) {
    setpgid(0, 0);
    catch_all();
    procpool::Pool pool{{.processes = 1, .start_method = method, .ignore_signals = false}};
    for (const int number : {SIGTERM, SIGINT, SIGUSR2, SIGRTMAX}) {
      door->arrived = 0;
      door->opened = false;
      auto busy = pool.apply_async(pass, 1L);
      CHILD_REQUIRE(door->wait_for(1));
      kill(0, number);
      try {
        static_cast<void>(busy.get(20s));
        return 1;
      } catch (const procpool::WorkerDied& died) {
        CHILD_REQUIRE(died.signal() == number);
      }
    }
    return pool.apply(pid_slowly, 1L) > 0 ? 0 : 1;
  });
}

TEST_CASE("a worker's own signals have their default action, whatever the program catches",
          "[signals]") {
  expect_success([](start_method method) {
    catch_all();
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    for (const int number : {SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGSEGV, SIGRTMIN}) {
      CHILD_REQUIRE(death_of(pool, raise_it, number) == number);
    }
    CHILD_REQUIRE(death_of(pool, let_an_alarm_come, 1) == SIGALRM);
    CHILD_REQUIRE(death_of(pool, write_into_a_broken_pipe, 0) == SIGPIPE);
    return 0;
  });
}

TEST_CASE("a task's own handler takes its signals", "[signals]") {
  expect_success([](start_method method) {
    catch_all();
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    for (const int number : {SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGALRM, SIGRTMIN}) {
      CHILD_REQUIRE(pool.apply(take_with_own_handler, number) == 1);
    }
    return 0;
  });
}

TEST_CASE("commands that tasks start have the signals of commands that the program starts",
          "[signals]") {
  expect_success([](start_method method) {
    for (const bool prepared : {false, true}) {
      if (prepared) catch_all();
      if (prepared) signal(SIGUSR2, SIG_IGN);
      procpool::Pool pool{{.processes = 1, .start_method = method}};
      for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGRTMIN}) {
        CHILD_REQUIRE(pool.apply(end_of_command, number) == end_of_command(number));
      }
      CHILD_REQUIRE(!signals_of_command().empty());
      CHILD_REQUIRE(pool.apply(signals_of_command) == signals_of_command());
    }
    return 0;
  });
}

TEST_CASE("a Process that a task starts can be terminated, whatever the program catches",
          "[signals]") {
  expect_success([](start_method method) {
    catch_all();
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    CHILD_REQUIRE(pool.apply(terminate_a_process) == -SIGTERM);
    return 0;
  });
}

TEST_CASE("a pool in a task withstands what the program catches", "[signals]") {
  expect_success([](start_method method) {
    setpgid(0, 0);
    signal(SIGTERM, count);
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    CHILD_REQUIRE(pool.apply([] {
      // Sent by the task itself, to which it is its own: so its own handler.
      signal(SIGTERM, SIG_IGN);
      return nested(SIGTERM);
    }) == 0);
    CHILD_REQUIRE(caught == 1);
    return 0;
  });
}

TEST_CASE("a program that leaves SIGTERM alone ends by it with all its processes", "[signals]") {
  expect_success([](start_method method) {
    const pid_t program = support::start_child([=] {
      setpgid(0, 0);
      signal(SIGTERM, SIG_DFL);
      procpool::Pool pool{{.processes = 2, .start_method = method}};
      auto busy = pool.map_async(pass, std::vector<long>{1, 2}, {.chunksize = 1});
      CHILD_REQUIRE(door->wait_for(2));
      kill(0, SIGTERM);
      busy.wait();
      return 0;
    });
    CHILD_REQUIRE(door->wait_for(2));
    std::vector<pid_t> all;
    for (const auto& each : support::descendants_of(program)) all.push_back(each.pid);
    CHILD_REQUIRE(support::wait_child(program) == -SIGTERM);
    CHILD_REQUIRE(
        support::eventually([&] { return std::ranges::none_of(all, support::is_running); }, 5s));
    return 0;
  });
}
