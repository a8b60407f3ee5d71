// SPDX-License-Identifier: MIT
// What CPython's own tests of multiprocessing.Process assert, for the fork start method.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/codec/associative.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/process.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;
using procpool::Process;
using support::shared;

namespace {

/// Limits are for a hung machine; nothing here takes seconds.
constexpr auto soon = 20s;

void sleep_long() {
  std::this_thread::sleep_for(100s);
}

bool is_active(const Process& process) {
  const auto children = procpool::active_children();
  return std::ranges::find(children, process) != children.end();
}

bool is_readable(int descriptor, std::chrono::milliseconds limit) {
  pollfd interest{descriptor, POLLIN, 0};
  return poll(&interest, 1, static_cast<int>(limit.count())) == 1;
}

struct pipe_ends {
  pipe_ends() {
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    read = ends[0];
    write = ends[1];
  }
  pipe_ends(const pipe_ends&) = delete;
  pipe_ends& operator=(const pipe_ends&) = delete;
  ~pipe_ends() {
    close(read);
    close(write);
  }

  int read = -1;
  int write = -1;
};

void send_line(int descriptor, const std::string& text) {
  const std::string line = text + "\n";
  CHILD_REQUIRE(write(descriptor, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
}

std::string receive_line(int descriptor) {
  std::string line;
  char next = 0;
  while (read(descriptor, &next, 1) == 1 && next != '\n') line += next;
  return line;
}

/// Runs the target in a Process whose exit code is returned.
template <class... Target>
int exitcode_of(Target... target) {
  Process process(std::move(target)...);
  process.start();
  REQUIRE(process.join(soon));
  return process.exitcode().value();
}

}  // namespace

// ---------------------------------------------------------------------------- _TestProcess

TEST_CASE("_TestProcess.test_current: the main process tells who it is",
          "[conformance][process][processes]") {
  const auto current = procpool::current_process();
  CHECK(current.is_alive());
  CHECK_FALSE(current.daemon());
  CHECK(current.pid() == getpid());
  CHECK(current.name() == "MainProcess");
  CHECK(current.exitcode() == std::nullopt);
}

TEST_CASE("_TestProcess.test_args_argument: a child gets values equal to its arguments",
          "[conformance][process][processes]") {
  const auto check = [](const auto& value) {
    using T = std::decay_t<decltype(value)>;
    CHECK(exitcode_of([](T got, const T& expected) { std::exit(got == expected ? 0 : 1); }, value,
                      value) == 0);
  };
  check(1);
  check(std::string("text"));
  check(std::vector<std::string>{"a", "", "c"});
  check(std::tuple(1, 2.5, std::string("three")));
  check(std::map<std::string, int>{{"one", 1}});
  CHECK(exitcode_of([] {}) == 0);
}

TEST_CASE("_TestProcess.test_daemon_argument: daemon is inherited unless it is given",
          "[conformance][process][processes]") {
  const auto nothing = [] {};
  CHECK(Process(nothing).daemon() == procpool::current_process().daemon());
  CHECK(Process({.daemon = true}, nothing).daemon());
  CHECK_FALSE(Process({.daemon = false}, nothing).daemon());

  const int inherited = exitcode_of(procpool::process_options{.daemon = true}, [nothing] {
    CHILD_REQUIRE(procpool::current_process().daemon());
    CHILD_REQUIRE(Process(nothing).daemon());
    CHILD_REQUIRE(!Process({.daemon = false}, nothing).daemon());
  });
  CHECK(inherited == 0);
}

TEST_CASE("_TestProcess.test_parent_process_attributes: a child knows its parent's pid and name",
          "[conformance][process][processes]") {
  CHECK(procpool::parent_process() == std::nullopt);
  const int code = exitcode_of(
      [](pid_t pid, const std::string& name) {
        const auto parent = procpool::parent_process();
        CHILD_REQUIRE(parent.has_value());
        CHILD_REQUIRE(parent->pid() == pid);
        CHILD_REQUIRE(parent->name() == name);
        CHILD_REQUIRE(parent->is_alive());
      },
      getpid(), procpool::current_process().name());
  CHECK(code == 0);
}

TEST_CASE("_TestProcess.test_parent_process: a grandchild sees its parent end",
          "[conformance][process][processes][fork]") {
  pipe_ends to_test;
  Process child([&] {
    Process grandchild([&] {
      const auto parent = procpool::parent_process().value();
      send_line(to_test.write, parent.is_alive() ? "alive" : "not alive");
      const bool joined = parent.join(soon);
      send_line(to_test.write, joined && !parent.is_alive() ? "not alive" : "alive");
    });
    grandchild.start();
    grandchild.join();
  });
  child.start();
  CHECK(receive_line(to_test.read) == "alive");
  child.terminate();
  CHECK(child.join(soon));
  CHECK(receive_line(to_test.read) == "not alive");
}

TEST_CASE("_TestProcess.test_process: a process before start, while running and after its end",
          "[conformance][process][processes][fork]") {
  struct report {
    pid_t pid;
    bool args_arrived;
    bool name_arrived;
    bool daemon;
  };
  shared<report> seen;
  const auto target = [&](int number, const std::string& text, const std::string& name) {
    seen->pid = procpool::current_process().pid();
    seen->args_arrived = number == 7 && text == "seven";
    seen->name_arrived = procpool::current_process().name() == name;
    seen->daemon = procpool::current_process().daemon();
  };
  Process process({.name = "SomeProcess", .daemon = true}, target, 7, "seven", "SomeProcess");

  CHECK_FALSE(process.is_alive());
  CHECK(process.daemon());
  CHECK(process.exitcode() == std::nullopt);
  CHECK(process.pid() == std::nullopt);
  CHECK_FALSE(is_active(process));

  process.start();
  CHECK(process.daemon());
  REQUIRE(process.join(soon));
  CHECK(seen->args_arrived);
  CHECK(seen->name_arrived);
  CHECK(seen->daemon);
  CHECK(process.pid() == seen->pid);
  CHECK(process.exitcode() == 0);
  CHECK_FALSE(process.is_alive());
  CHECK_FALSE(is_active(process));
}

TEST_CASE("_TestProcess.test_process_mainthread_native_id: the child's main thread has an own id",
          "[conformance][process][processes][fork]") {
  shared<long> id;
  REQUIRE(exitcode_of([&] { *id = syscall(SYS_gettid); }) == 0);
  CHECK(*id != 0);
  CHECK(*id != syscall(SYS_gettid));
}

TEST_CASE(
    "_TestProcess.test_interrupt: interrupt() ends a sleeping child, join(0) and join(-1) do "
    "not wait",
    "[conformance][process][processes]") {
  Process process(sleep_long);
  process.start();
  CHECK(process.is_alive());
  CHECK(is_active(process));
  CHECK_FALSE(process.join(0s));
  CHECK_FALSE(process.join(-1s));
  CHECK(process.is_alive());
  process.interrupt();
  REQUIRE(process.join(soon));
  CHECK_FALSE(process.is_alive());
  CHECK_FALSE(is_active(process));
  CHECK(process.exitcode() == -SIGINT);
}

TEST_CASE(
    "_TestProcess.test_interrupt_no_handler: with SIG_DFL in the child the exit code is "
    "-SIGINT",
    "[conformance][process][processes][fork]") {
  shared<support::gate> gate;
  Process process([&] {
    signal(SIGINT, SIG_DFL);
    gate->pass();
  });
  process.start();
  REQUIRE(gate->wait_for(1));
  process.interrupt();
  REQUIRE(process.join(soon));
  CHECK(process.exitcode() == -SIGINT);
}

namespace {

void check_killing(void (Process::*kill)(), int expected) {
  Process process(sleep_long);
  process.set_daemon(true);
  process.start();
  CHECK(process.is_alive());
  CHECK(is_active(process));
  CHECK(process.exitcode() == std::nullopt);
  CHECK_FALSE(process.join(0s));
  CHECK_FALSE(process.join(-1s));
  CHECK(process.is_alive());
  (process.*kill)();
  REQUIRE(process.join(soon));
  CHECK_FALSE(process.is_alive());
  CHECK_FALSE(is_active(process));
  process.join();
  CHECK(process.exitcode() == expected);
}

}  // namespace

TEST_CASE("_TestProcess.test_terminate: terminate() gives the exit code -SIGTERM",
          "[conformance][process][processes]") {
  check_killing(&Process::terminate, -SIGTERM);
}

TEST_CASE("_TestProcess.test_kill: kill() gives the exit code -SIGKILL",
          "[conformance][process][processes]") {
  check_killing(&Process::kill, -SIGKILL);
}

TEST_CASE("_TestProcess.test_cpu_count: there is at least one CPU",
          "[conformance][process][processes]") {
  CHECK(procpool::cpu_count() >= 1);
}

TEST_CASE("_TestProcess.test_active_children: a process is listed from start to join",
          "[conformance][process][processes][fork]") {
  CHECK(procpool::active_children().empty());
  shared<support::gate> gate;
  Process process([&] { gate->pass(); });
  CHECK_FALSE(is_active(process));
  process.start();
  CHECK(is_active(process));
  gate->open();
  REQUIRE(process.join(soon));
  CHECK_FALSE(is_active(process));
}

namespace {

/// Tells its path, then has two children do the same one level deeper.
void recurse(int descriptor, const std::string& path) {
  send_line(descriptor, path);
  if (path.size() >= 2) return;
  for (int i = 0; i < 2; ++i) {
    Process child(recurse, descriptor, path + std::to_string(i));
    child.start();
    child.join();
    CHILD_REQUIRE(child.exitcode() == 0);
  }
}

}  // namespace

TEST_CASE("_TestProcess.test_recursion: children have children, two levels deep",
          "[conformance][process][processes][fork]") {
  pipe_ends ends;
  recurse(ends.write, "");
  for (const char* path : {"", "0", "00", "01", "1", "10", "11"}) {
    CHECK(receive_line(ends.read) == path);
  }
}

TEST_CASE("_TestProcess.test_sentinel: the sentinel is readable once the process has ended",
          "[conformance][process][processes][fork]") {
  shared<support::gate> gate;
  Process process([&] { gate->pass(); });
  CHECK_THROWS_AS(process.sentinel(), std::logic_error);
  process.start();
  CHECK_FALSE(is_readable(process.sentinel(), 0ms));
  gate->open();
  CHECK(is_readable(process.sentinel(), soon));
  process.join();
  CHECK(is_readable(process.sentinel(), 0ms));
}

TEST_CASE("_TestProcess.test_close: a running process cannot be closed, a closed one not be used",
          "[conformance][process][processes][fork]") {
  shared<support::gate> gate;
  Process process([&] { gate->pass(); });
  process.start();
  CHECK(process.is_alive());
  CHECK_THROWS_AS(process.close(), std::logic_error);
  gate->open();
  process.join();
  CHECK_FALSE(process.is_alive());
  process.close();
  CHECK_THROWS_AS(process.is_alive(), std::logic_error);
  CHECK_THROWS_AS(process.join(), std::logic_error);
  CHECK_THROWS_AS(process.terminate(), std::logic_error);
  CHECK_THROWS_AS(process.kill(), std::logic_error);
  CHECK_THROWS_AS(process.exitcode(), std::logic_error);
  CHECK_THROWS_AS(process.sentinel(), std::logic_error);
  CHECK_THROWS_AS(process.start(), std::logic_error);
  process.close();
}

TEST_CASE(
    "_TestProcess.test_many_processes: 100 short children end with 0, 100 killed ones with "
    "-SIGTERM",
    "[conformance][process][processes]") {
  const auto start = [](auto target) {
    std::vector<Process> processes;
    for (int i = 0; i < 100; ++i) processes.emplace_back(target).start();
    return processes;
  };
  auto brief = start([] { std::this_thread::sleep_for(10ms); });
  for (auto& process : brief) REQUIRE(process.join(soon));
  for (auto& process : brief) CHECK(process.exitcode() == 0);

  auto sleeping = start(sleep_long);
  for (auto& process : sleeping) process.terminate();
  for (auto& process : sleeping) REQUIRE(process.join(soon));
  for (auto& process : sleeping) CHECK(process.exitcode() == -SIGTERM);
}

TEST_CASE("_TestProcess.test_lose_target_ref: after start the parent keeps nothing of the target",
          "[conformance][process][processes][fork]") {
  const auto captured = std::make_shared<int>(1);
  const auto argument = std::make_shared<int>(2);
  Process process([captured](const std::shared_ptr<int>& value) { std::exit(*captured + *value); },
                  argument);
  CHECK(captured.use_count() == 2);
  CHECK(argument.use_count() == 2);
  process.start();
  CHECK(captured.use_count() == 1);
  CHECK(argument.use_count() == 1);
  process.join();
  CHECK(process.exitcode() == 3);
}

TEST_CASE(
    "_TestProcess.test_child_fd_inflation: later children have no more descriptors than the "
    "first",
    "[conformance][process][processes][fork]") {
  shared<std::array<std::atomic<std::size_t>, 5>> counts;
  shared<support::gate> gate;
  std::vector<Process> processes;
  for (std::size_t i = 0; i < counts->size(); ++i) {
    processes.emplace_back([&, i] {
      (*counts)[i] = support::count_fds();
      gate->pass();
    });
    processes.back().start();
  }
  REQUIRE(gate->wait_for(5));
  gate->open();
  for (auto& process : processes) process.join();
  for (const auto& count : *counts) CHECK(count == (*counts)[0]);
}

TEST_CASE(
    "_TestProcess.test_wait_for_threads: a joinable thread left behind ends the child as it "
    "ends any program, a detached one is not waited for",
    "[conformance][process][processes][fork]") {
  const int joinable = exitcode_of([] {
    close(STDERR_FILENO);  // std::terminate would speak
    std::thread left(sleep_long);
  });
  CHECK(joinable == -SIGABRT);
  CHECK(exitcode_of([] { std::thread(sleep_long).detach(); }) == 0);
  shared<int> done;
  CHECK(exitcode_of([&] { std::thread([&] { *done = 1; }).join(); }) == 0);
  CHECK(*done == 1);
}

TEST_CASE(
    "_TestProcess.test_error_on_stdio_flush_1: stdout or stderr closed in the parent does no "
    "harm",
    "[conformance][process][processes]") {
  for (const int closed : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    const auto result = support::capture_child([closed] {
      close(closed);
      std::printf("lost if stdout is closed\n");
      std::cout << "this too" << std::endl;
      Process process([closed] { CHILD_REQUIRE(closed == 0 || fcntl(closed, F_GETFD) == -1); });
      process.start();
      process.join();
      return process.exitcode().value();
    });
    CHECK(result.exitcode == 0);
  }
}

TEST_CASE(
    "_TestProcess.test_error_on_stdio_flush_2: a child that closes its own stdout or stderr "
    "ends well",
    "[conformance][process][processes]") {
  for (const int closed : {STDOUT_FILENO, STDERR_FILENO}) {
    const auto close_it = [closed] {
      std::printf("in the buffer");
      std::cout << "in that buffer, too";
      close(closed);
    };
    const auto result = support::capture_child([&] {
      Process process(close_it);
      process.start();
      process.join();
      return process.exitcode().value();
    });
    CHECK(result.exitcode == 0);
  }
}

// ---------------------------------------------------------------------------- subclassing

namespace {

/// What a subclass with run() is in Python: a callable with state.
struct upper_caser {
  int in;
  int out;

  void operator()() const {
    for (auto line = receive_line(in); line != "stop"; line = receive_line(in)) {
      for (auto& letter : line) {
        letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
      }
      send_line(out, line);
    }
  }
};

}  // namespace

TEST_CASE(
    "_TestSubclassingProcess.test_subclassing: a callable object with state echoes in upper "
    "case",
    "[conformance][process][processes][fork]") {
  pipe_ends to_child;
  pipe_ends from_child;
  Process process({.daemon = true}, upper_caser{to_child.read, from_child.write});
  process.start();
  send_line(to_child.write, "hello");
  CHECK(receive_line(from_child.read) == "HELLO");
  send_line(to_child.write, "world");
  CHECK(receive_line(from_child.read) == "WORLD");
  send_line(to_child.write, "stop");
  CHECK(process.join(soon));
  CHECK(process.exitcode() == 0);
}

TEST_CASE(
    "_TestSubclassingProcess.test_stderr_flush: the whole report of an uncaught exception is "
    "on stderr after join",
    "[conformance][process][processes]") {
  const auto result = support::capture_child([] {
    Process process({.name = "unlucky"}, [] { throw std::out_of_range("one divided by zero"); });
    process.start();
    process.join();
    return process.exitcode().value();
  });
  CHECK(result.exitcode == 1);
  CHECK(result.err == "Process unlucky:\nstd::out_of_range: one divided by zero\n");
  CHECK(result.out.empty());
}

TEST_CASE("_TestSubclassingProcess.test_sys_exit: std::exit gives the exit code",
          "[conformance][process][processes]") {
  for (const int code : {0, 1, 8, 255}) {
    CHECK(exitcode_of([code] { std::exit(code); }) == code);
  }
}

// ---------------------------------------------------------------------------- others

namespace {

std::atomic<int> signals_seen{0};

}  // namespace

TEST_CASE("_TestPollEintr.test_poll_eintr: a signal during join runs its handler and join goes on",
          "[conformance][process][processes]") {
  signals_seen = 0;
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) { ++signals_seen; };  // no SA_RESTART
  REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
  Process killer([target = getpid()] {
    for (int i = 0; i < 5; ++i) {
      std::this_thread::sleep_for(20ms);
      kill(target, SIGUSR1);
    }
  });
  killer.start();
  killer.join();
  CHECK(killer.exitcode() == 0);
  CHECK(signals_seen > 0);
  REQUIRE(sigaction(SIGUSR1, &before, nullptr) == 0);
}

TEST_CASE(
    "_TestAtExit.test_atexit: a handler registered in the child runs at its exit, the "
    "parent's do not",
    "[conformance][process][processes]") {
  const auto result = support::capture_child([] {
    std::atexit([] { std::printf("parent's\n"); });
    Process process([] { std::atexit([] { std::printf("child's\n"); }); });
    process.start();
    process.join();
    return process.exitcode().value();
  });
  CHECK(result.exitcode == 0);
  CHECK(result.out == "child's\n");
}

TEST_CASE("TestCloseFds.test_closefd: with fork a descriptor of the parent is open in the child",
          "[conformance][process][processes][fork]") {
  const int high = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
  REQUIRE(high >= 200);
  CHECK(exitcode_of([high] { CHILD_REQUIRE(fcntl(high, F_GETFD) >= 0); }) == 0);
  close(high);
}

namespace {

/// The fork registry's handlers run once per fork, however many forks lie behind: its depth tells.
void check_generations(int left, std::uint32_t depth) {
  CHILD_REQUIRE(procpool::detail::process_generation() == depth);
  if (left == 0) return;
  Process child(check_generations, left - 1, depth + 1);
  child.start();
  child.join();
  CHILD_REQUIRE(child.exitcode() == 0);
}

}  // namespace

TEST_CASE("TestForkAwareThreadLock.test_lock: fork handlers do not multiply over 5 generations",
          "[conformance][process][processes][fork]") {
  const auto depth = procpool::detail::process_generation() + 1;
  CHECK(exitcode_of(check_generations, 5, depth) == 0);
}

TEST_CASE(
    "TestResourceTracker.test_resource_tracker_blocked_signals: starting a process leaves "
    "the caller's signal mask as it is",
    "[conformance][process][processes]") {
  sigset_t mask;
  sigset_t before;
  sigset_t after;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &mask, &before) == 0);
  const int code = exitcode_of([] {
    sigset_t inherited;
    pthread_sigmask(SIG_BLOCK, nullptr, &inherited);
    CHILD_REQUIRE(sigismember(&inherited, SIGUSR2) == 1);
    CHILD_REQUIRE(sigismember(&inherited, SIGTERM) == 0);
  });
  REQUIRE(pthread_sigmask(SIG_SETMASK, &before, &after) == 0);
  CHECK(code == 0);
  CHECK(sigismember(&after, SIGUSR2) == 1);
  CHECK(sigismember(&after, SIGTERM) == 0);
}

NAMED_PROGRAM(exits_with_a_stray_fork) {
  Process process([] {});
  process.start();
  const pid_t stray = fork();
  if (stray == 0) {
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    usleep(500'000);
    _exit(0);
  }
  return 0;
}

TEST_CASE(
    "TestResourceTracker.test_resource_tracker_fork_deadlock: a program ends while a fork of "
    "its own lives on",
    "[conformance][process][processes]") {
  CHECK(support::run_named("exits_with_a_stray_fork").exitcode == 0);
}

TEST_CASE(
    "TestResourceTracker.test_resource_tracker_lock_reinit_after_fork: a fork that catches "
    "another thread inside the library leaves the child usable",
    "[conformance][process][processes]") {
  std::atomic<bool> stop{false};
  Process busy(sleep_long);
  busy.start();
  std::thread inside([&] {
    while (!stop) static_cast<void>(busy.is_alive());
  });
  for (int i = 0; i < 50; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      const bool none = procpool::active_children().empty();
      _exit(none && exitcode_of([] {}) == 0 ? 0 : 1);
    }
    CHECK(support::wait_child(pid) == 0);
  }
  stop = true;
  inside.join();
  busy.kill();
  busy.join();
}
