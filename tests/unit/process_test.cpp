// SPDX-License-Identifier: MIT
#include <procpool/process.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
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
#include <exception>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/detail/process/process_start.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;
using procpool::Process;
using support::shared;

/// There only with the address sanitizer.
extern "C" [[gnu::weak]] void __asan_init();

namespace {

constexpr auto soon = 20s;

void nothing() {}

void sleep_long() {
  std::this_thread::sleep_for(100s);
}

template <class... Target>
int exitcode_of(Target... target) {
  Process process(std::move(target)...);
  process.start();
  if (!process.join(soon)) throw std::runtime_error("the process does not end");
  return process.exitcode().value();
}

/// The sentence that a wrong call is answered with.
template <class Call>
std::string complaint(Call call) {
  try {
    call();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "no complaint";
}

std::size_t count_fds_of_kind(const std::string& kind) {
  const auto fds = support::open_fds();
  return static_cast<std::size_t>(std::ranges::count_if(
      fds, [&](const auto& entry) { return entry.second.find(kind) != std::string::npos; }));
}

void limit(__rlimit_resource what, rlim_t value) {
  rlimit both{};
  getrlimit(what, &both);
  both.rlim_cur = value;
  setrlimit(what, &both);
}

std::size_t occurrences(const std::string& text, const std::string& word) {
  std::size_t count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

}  // namespace

// ---------------------------------------------------------------------------- wrong calls

TEST_CASE("A null function pointer or an empty function object is refused at once", "[process]") {
  void (*pointer)(int) = nullptr;
  CHECK_THROWS_AS(Process(pointer, 1), std::invalid_argument);
  CHECK_THROWS_AS(Process(std::function<void()>()), std::invalid_argument);
  int (std::string::*member)() = nullptr;
  CHECK_THROWS_AS(Process(member, std::string()), std::invalid_argument);
  CHECK_NOTHROW(Process([] {}));
}

TEST_CASE("A call in a wrong state says which process, which call and what is wrong", "[process]") {
  Process process({.name = "alpha"}, nothing);
  CHECK(complaint([&] { process.join(); }) ==
        "procpool::Process 'alpha': join() needs start() first");
  CHECK(complaint([&] { static_cast<void>(process.sentinel()); }) ==
        "procpool::Process 'alpha': sentinel() needs start() first");
  CHECK(complaint([&] { process.terminate(); }) ==
        "procpool::Process 'alpha': terminate() needs start() first");
  CHECK(complaint([&] { process.kill(); }).ends_with("kill() needs start() first"));
  CHECK(complaint([&] { process.interrupt(); }).ends_with("interrupt() needs start() first"));
  process.start();
  CHECK(complaint([&] { process.start(); }).find("start() was called before") != std::string::npos);
  CHECK(complaint([&] { process.set_daemon(true); }).find("before start()") != std::string::npos);
  process.join();
  CHECK(complaint([&] { process.start(); }).find("start() was called before") != std::string::npos);
  process.close();
  CHECK(complaint([&] { process.join(); }) == "procpool::Process 'alpha': it is closed");
  CHECK(process.name() == "alpha");
  Process other = std::move(process);
  CHECK(complaint([&] { process.join(); }) == "procpool::Process: this handle was moved from");
}

TEST_CASE("A process that was never started can be closed and asked for its state", "[process]") {
  Process process(nothing);
  CHECK_FALSE(process.is_alive());
  CHECK(process.exitcode() == std::nullopt);
  CHECK(process.pid() == std::nullopt);
  process.close();
  CHECK_THROWS_AS(process.start(), std::logic_error);
}

TEST_CASE("A daemonic process cannot start another", "[process]") {
  const int code = exitcode_of(procpool::process_options{.daemon = true}, [] {
    Process process(nothing);
    const auto sentence = complaint([&] { process.start(); });
    CHILD_REQUIRE(sentence.find("daemonic") != std::string::npos);
  });
  CHECK(code == 0);
}

TEST_CASE("Only the process that made a Process can use it", "[process]") {
  Process running(sleep_long);
  running.start();
  Process fresh(nothing);
  const int code = exitcode_of([&] {
    CHILD_REQUIRE(complaint([&] { running.join(); }).find("another one") != std::string::npos);
    CHILD_REQUIRE(complaint([&] { running.kill(); }).find("another one") != std::string::npos);
    CHILD_REQUIRE(complaint([&] { fresh.start(); }).find("another one") != std::string::npos);
    CHILD_REQUIRE(running.pid().has_value());
    CHILD_REQUIRE(procpool::active_children().empty());
  });
  CHECK(code == 0);
  CHECK(running.is_alive());
  running.kill();
  running.join();
}

// ---------------------------------------------------------------------------- start that fails

TEST_CASE("When fork fails with EAGAIN start() says so, and works once it can", "[process]") {
  const int code = support::run_child([] {
    if (geteuid() == 0 && setuid(65534) != 0) return 1;  // root has no such limit
    Process process([] { std::exit(3); });
    limit(RLIMIT_NPROC, 1);  // this process itself reaches it
    try {
      process.start();
      return 2;
    } catch (const procpool::ProcessError& error) {
      CHILD_REQUIRE(error.code() == std::errc::resource_unavailable_try_again);
    }
    CHILD_REQUIRE(!process.is_alive());
    CHILD_REQUIRE(process.pid() == std::nullopt);
    CHILD_REQUIRE(procpool::active_children().empty());
    rlimit both{};
    getrlimit(RLIMIT_NPROC, &both);
    limit(RLIMIT_NPROC, both.rlim_max);
    process.start();
    process.join();
    CHILD_REQUIRE(process.exitcode() == 3);
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("When descriptors run out start() fails before the target runs, and works once it can",
          "[process]") {
  if (__asan_init != nullptr) SKIP("the sanitizers need descriptors for their checks");
  shared<std::atomic<int>> runs;
  const int code = support::run_child([&] {
    int failures = 0;
    int highest = dup(STDIN_FILENO);
    while (support::count_fds() <= static_cast<std::size_t>(highest)) highest = dup(STDIN_FILENO);
    for (rlim_t spare = 0; spare < 8; ++spare) {
      const auto before = support::open_fds();
      Process process([&] { ++*runs; });
      limit(RLIMIT_NOFILE, static_cast<rlim_t>(highest) + 1 + spare);
      const int runs_before = *runs;
      try {
        process.start();
      } catch (const procpool::ProcessError& error) {
        ++failures;
        limit(RLIMIT_NOFILE, 1000);
        CHILD_REQUIRE(error.code() == std::errc::too_many_files_open);
        CHILD_REQUIRE(support::open_fds() == before);
        CHILD_REQUIRE(support::children_of(getpid()).empty());
        CHILD_REQUIRE(*runs == runs_before);
        process.start();
      }
      limit(RLIMIT_NOFILE, 1000);
      process.join();
      CHILD_REQUIRE(process.exitcode() == 0);
      CHILD_REQUIRE(*runs == runs_before + 1);
    }
    CHILD_REQUIRE(failures >= 4);  // the two ends of a pipe and two process descriptors
    CHILD_REQUIRE(failures < 8);
    return 0;
  });
  CHECK(code == 0);
}

// ---------------------------------------------------------------------------- names

TEST_CASE("Processes are named after their place in the tree unless they get a name", "[process]") {
  const int code = exitcode_of([] {
    const std::string own = procpool::current_process().name();
    CHILD_REQUIRE(Process(nothing).name() == own + ":1");
    CHILD_REQUIRE(Process(nothing).name() == own + ":2");
    CHILD_REQUIRE(Process({.name = "third"}, nothing).name() == "third");
    Process fourth([own] {
      CHILD_REQUIRE(procpool::current_process().name() == own + ":4");
      CHILD_REQUIRE(procpool::parent_process()->name() == own);
      CHILD_REQUIRE(Process(nothing).name() == own + ":4:1");
    });
    CHILD_REQUIRE(fourth.name() == own + ":4");
    fourth.start();
    fourth.join();
    CHILD_REQUIRE(fourth.exitcode() == 0);
  });
  CHECK(code == 0);
  const std::string first = Process(nothing).name();
  const std::string second = Process(nothing).name();
  CHECK(first.starts_with("Process-"));
  CHECK(std::stoi(second.substr(8)) == std::stoi(first.substr(8)) + 1);
}

TEST_CASE("A name given before start is the child's name", "[process]") {
  Process process([] { CHILD_REQUIRE(procpool::current_process().name() == "renamed"); });
  process.set_name("renamed");
  process.start();
  process.join();
  CHECK(process.exitcode() == 0);
}

// ---------------------------------------------------------------------------- target and arguments

TEST_CASE("Targets and arguments may be of any type that can be moved", "[process]") {
  struct adder {
    int base;
    void add(int more) { std::exit(base + more); }
  };
  CHECK(exitcode_of(&adder::add, adder{3}, 4) == 7);
  int count = 5;
  CHECK(exitcode_of([count]() mutable { std::exit(++count); }) == 6);
  CHECK(exitcode_of(std::function<void(int)>([](int code) { std::exit(code); }), 9) == 9);

  Process with_ref([](int& value) { std::exit(value); }, std::ref(count));
  with_ref.start();
  with_ref.join();
  CHECK(with_ref.exitcode() == 5);

  Process moved([](std::unique_ptr<int> value) { std::exit(*value); }, std::make_unique<int>(11));
  moved.start();
  moved.join();
  CHECK(moved.exitcode() == 11);
}

TEST_CASE("The arguments' destructors run in the child after the target has returned",
          "[process]") {
  struct teller {
    std::atomic<int>* destroyed_in;
    explicit teller(std::atomic<int>* where) : destroyed_in(where) {}
    teller(teller&& other) noexcept : destroyed_in(std::exchange(other.destroyed_in, nullptr)) {}
    ~teller() {
      if (destroyed_in != nullptr) *destroyed_in = getpid();
    }
  };
  shared<std::atomic<int>> where;
  Process process([](const teller&) {}, teller(where.get()));
  process.start();
  *where = 0;  // the parent's copy is gone already
  process.join();
  CHECK((*where == 0 || *where == process.pid()));  // 0: the child was faster than we
  CHECK(process.exitcode() == 0);
}

// ---------------------------------------------------------------------------- ends

TEST_CASE("Exit codes are the status, or minus the signal", "[process]") {
  CHECK(exitcode_of(nothing) == 0);
  CHECK(exitcode_of([] { return 5; }) == 0);
  CHECK(exitcode_of([] { _exit(77); }) == 77);
  CHECK(exitcode_of([] { std::quick_exit(6); }) == 6);
  CHECK(exitcode_of([] { raise(SIGKILL); }) == -SIGKILL);
  CHECK(exitcode_of([] { std::abort(); }) == -SIGABRT);
  CHECK(exitcode_of([] { pthread_exit(nullptr); }) == 0);
}

TEST_CASE("An uncaught exception is reported with all that is nested in it", "[process]") {
  const auto result = support::capture_child([] {
    return exitcode_of(procpool::process_options{.name = "teller"}, [] {
      try {
        try {
          throw std::invalid_argument("no number");
        } catch (...) {
          std::throw_with_nested(std::runtime_error("line 3"));
        }
      } catch (...) {
        std::throw_with_nested(std::logic_error("file a.txt"));
      }
    });
  });
  CHECK(result.exitcode == 1);
  CHECK(result.err ==
        "Process teller:\n"
        "std::logic_error: file a.txt\n"
        "  caused by std::runtime_error: line 3\n"
        "  caused by std::invalid_argument: no number\n");
}

TEST_CASE("An uncaught exception that is no std::exception is reported by its type", "[process]") {
  struct oddity {};
  const auto result = support::capture_child(
      [] { return exitcode_of(procpool::process_options{.name = "odd"}, [] { throw 42; }); });
  CHECK(result.exitcode == 1);
  CHECK(result.err == "Process odd:\nint\n");
}

TEST_CASE("An uncaught exception with stderr closed still gives exit code 1", "[process]") {
  CHECK(exitcode_of([] {
          close(STDERR_FILENO);
          throw std::runtime_error("to nobody");
        }) == 1);
}

TEST_CASE("A child waits at its end for its own children and ends its daemons", "[process]") {
  shared<std::atomic<int>> done;
  shared<std::atomic<pid_t>> daemon;
  const int code = exitcode_of([&] {
    Process slow([&] {
      std::this_thread::sleep_for(100ms);
      *done = 1;
    });
    slow.start();
    Process endless({.daemon = true}, sleep_long);
    endless.start();
    *daemon = endless.pid().value();
  });
  CHECK(code == 0);
  CHECK(*done == 1);
  CHECK_FALSE(support::is_running(*daemon));
}

TEST_CASE("std::exit in a child waits for its children, too", "[process]") {
  shared<std::atomic<int>> done;
  const int code = exitcode_of([&] {
    Process slow([&] {
      std::this_thread::sleep_for(50ms);
      *done = 1;
    });
    slow.start();
    std::exit(4);
  });
  CHECK(code == 4);
  CHECK(*done == 1);
}

namespace {

struct farewell {
  const char* text;
  ~farewell() { std::printf("%s %s\n", procpool::current_process().name().c_str(), text); }
};

}  // namespace

NAMED_PROGRAM(leaves_children_to_exit) {
  static farewell in_parent{"parent's static"};
  std::atexit([] { std::printf("parent's handler\n"); });
  Process slow({.name = "slow"}, [] {
    static farewell in_child{"child's static"};
    std::this_thread::sleep_for(100ms);
    std::printf("slow done\n");
  });
  slow.start();
  Process exits({.name = "exits"}, [] { std::exit(0); });
  exits.start();
  Process daemon({.name = "daemon", .daemon = true}, [] {
    sleep_long();
    std::printf("daemon done\n");
  });
  daemon.start();
  return 0;
}

TEST_CASE(
    "At exit a program ends its daemons and waits for its other children; static objects and "
    "handlers run once, in the process they belong to",
    "[process]") {
  const auto result = support::run_named("leaves_children_to_exit");
  CHECK(result.exitcode == 0);
  CHECK(occurrences(result.out, "slow done\n") == 1);
  CHECK(occurrences(result.out, "slow child's static\n") == 1);
  CHECK(occurrences(result.out, "parent's handler\n") == 1);
  CHECK(occurrences(result.out, "MainProcess parent's static\n") == 1);
  CHECK(occurrences(result.out, "\n") == 4);
  CHECK(result.err.empty());
}

NAMED_PROGRAM(has_a_stubborn_daemon) {
  shared<support::gate> gate;
  Process daemon({.daemon = true}, [&] {
    signal(SIGTERM, SIG_IGN);
    gate->pass();
    sleep_long();
  });
  daemon.start();
  const bool ready = gate->wait_for(1);
  gate->open();
  return ready ? 0 : 1;
}

TEST_CASE("A daemon that ignores SIGTERM does not keep its parent from ending", "[process]") {
  CHECK(support::run_named("has_a_stubborn_daemon").exitcode == 0);
}

// ---------------------------------------------------------------------------- stdio

TEST_CASE("Each byte of buffered output appears once", "[process]") {
  const auto result = support::capture_child([] {
    std::ios::sync_with_stdio(false);
    std::printf("parent-printf ");
    std::cout << "parent-cout ";
    std::clog << "parent-clog ";
    for (int i = 0; i < 3; ++i) {
      const int code = exitcode_of([] {
        std::printf("child-printf ");
        std::cout << "child-cout ";
        std::clog << "child-clog ";
      });
      if (code != 0) return code;
    }
    std::printf("end-printf ");
    return 0;
  });
  CHECK(result.exitcode == 0);
  for (const char* word : {"parent-printf", "parent-cout", "end-printf"}) {
    CHECK(occurrences(result.out, word) == 1);
  }
  CHECK(occurrences(result.out, "child-printf") == 3);
  CHECK(occurrences(result.out, "child-cout") == 3);
  CHECK(occurrences(result.err, "parent-clog") == 1);
  CHECK(occurrences(result.err, "child-clog") == 3);
}

TEST_CASE("What a child writes to a FILE that it does not close is not lost", "[process]") {
  const auto result = support::capture_child([] {
    FILE* inherited = fdopen(dup(STDOUT_FILENO), "w");
    std::fprintf(inherited, "parent ");
    const int code = exitcode_of([&] {
      std::fprintf(inherited, "child ");
      std::fprintf(fdopen(dup(STDOUT_FILENO), "w"), "own ");
    });
    std::fclose(inherited);
    return code;
  });
  CHECK(result.exitcode == 0);
  CHECK(occurrences(result.out, "parent ") == 1);
  CHECK(occurrences(result.out, "child ") == 1);
  CHECK(occurrences(result.out, "own ") == 1);
}

TEST_CASE("start() does not wait for a thread that sits in a read of stdin", "[process]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
  const int code = support::run_child([&] {
    dup2(ends[0], STDIN_FILENO);
    std::atomic<bool> reading{false};
    std::thread([&] {
      reading = true;
      std::getchar();
    }).detach();
    while (!reading) std::this_thread::yield();
    std::this_thread::sleep_for(20ms);
    std::_Exit(exitcode_of(nothing));  // leaving in another way would wait for the thread
    return 1;
  });
  close(ends[0]);
  close(ends[1]);
  CHECK(code == 0);
}

TEST_CASE("A child's stdin is the null device, also when the parent has read ahead", "[process]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
  REQUIRE(write(ends[1], "ab\ncd\n", 6) == 6);
  const int code = support::run_child([&] {
    dup2(ends[0], STDIN_FILENO);
    std::ios::sync_with_stdio(false);
    CHILD_REQUIRE(std::cin.get() == 'a');
    const int child = exitcode_of([] {
      CHILD_REQUIRE(std::getchar() == EOF);
      CHILD_REQUIRE(std::cin.get() == EOF);
      std::array<char, 8> rest{};
      CHILD_REQUIRE(read(STDIN_FILENO, rest.data(), rest.size()) == 0);
    });
    CHILD_REQUIRE(child == 0);
    CHILD_REQUIRE(std::cin.get() == 'b');
    return 0;
  });
  close(ends[0]);
  close(ends[1]);
  CHECK(code == 0);
}

TEST_CASE("With stdio closed no descriptor of the library takes its numbers", "[process]") {
  const int code = support::run_child([] {
    for (const int number : {0, 1, 2}) close(number);
    Process process([] {
      CHILD_REQUIRE(fcntl(0, F_GETFD) >= 0);  // the null device
      CHILD_REQUIRE(fcntl(1, F_GETFD) == -1);
      CHILD_REQUIRE(fcntl(2, F_GETFD) == -1);
    });
    process.start();
    std::printf("into nothing\n");
    CHILD_REQUIRE(process.sentinel() > 2);
    process.join();
    for (const int number : {0, 1, 2}) CHILD_REQUIRE(fcntl(number, F_GETFD) == -1);
    return process.exitcode().value();
  });
  CHECK(code == 0);
}

// ---------------------------------------------------------------------------- waiting

TEST_CASE("Several threads may wait for one process", "[process]") {
  shared<support::gate> gate;
  Process process([&] {
    gate->pass();
    std::exit(7);
  });
  process.start();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, handle = process]() mutable {
      handle.join();
      if (handle.exitcode() == 7 && !handle.is_alive()) ++right;
    });
  }
  gate->open();
  for (auto& thread : threads) thread.join();
  CHECK(right == 4);
}

TEST_CASE("join() takes durations of any kind and size", "[process]") {
  Process process(sleep_long);
  process.start();
  CHECK_FALSE(process.join(0ms));
  CHECK_FALSE(process.join(std::chrono::hours::min()));
  CHECK_FALSE(process.join(std::chrono::duration<double>(0.001)));
  CHECK_FALSE(process.join(std::chrono::duration<double>(-0.5)));
  CHECK_FALSE(
      process.join(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())));
  CHECK_FALSE(process.join(std::chrono::nanoseconds(1)));
  process.kill();
  CHECK(process.join(std::chrono::hours::max()));
  CHECK(process.join(std::chrono::duration<double>(std::numeric_limits<double>::infinity())));
}

namespace {

/// 255 unless the kernel can tell more: both are as documented.
bool is_lost_or(int expected, int code) {
  return code == expected || code == 255;
}

}  // namespace

TEST_CASE("join() gives up when a stop is requested, and the process goes on", "[process]") {
  const support::shared<support::gate> door;
  Process process([gate = door.get()] { gate->pass(); });
  process.start();
  std::stop_source stop;
  {
    const std::jthread other([&] {
      std::this_thread::sleep_for(20ms);
      stop.request_stop();
    });
    CHECK_FALSE(process.join(stop.get_token()));
  }
  CHECK_FALSE(process.join(stop.get_token()));  // requested before
  CHECK(process.is_alive());
  door->open();
  CHECK(process.join(std::stop_token{}));  // no stop is possible
  CHECK(process.join(stop.get_token()));   // it has ended
  CHECK(process.exitcode() == 0);
}

TEST_CASE("join() returns when the host program has reaped the process", "[process]") {
  const int code = support::run_child([] {
    Process process([] { std::exit(7); });
    process.start();
    while (waitpid(-1, nullptr, 0) < 0) continue;
    CHILD_REQUIRE(process.join(soon));
    CHILD_REQUIRE(is_lost_or(7, process.exitcode().value()));
    CHILD_REQUIRE(!process.is_alive());
    CHILD_REQUIRE(procpool::active_children().empty());
    process.kill();
    process.close();
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("join() returns when the host program ignores SIGCHLD", "[process]") {
  const int code = support::run_child([] {
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 20; ++i) CHILD_REQUIRE(is_lost_or(3, exitcode_of([] { std::exit(3); })));
    Process killed(sleep_long);
    killed.start();
    CHILD_REQUIRE(!killed.join(10ms));
    killed.terminate();
    CHILD_REQUIRE(killed.join(soon));
    CHILD_REQUIRE(is_lost_or(-SIGTERM, killed.exitcode().value()));
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("A host that reaps every child at once cannot make a process hang", "[process]") {
  const int code = support::run_child([] {
    std::atomic<bool> stop{false};
    std::thread reaper([&] {
      while (!stop) waitpid(-1, nullptr, WNOHANG);
    });
    for (int i = 0; i < 100; ++i) CHILD_REQUIRE(is_lost_or(3, exitcode_of([] { std::exit(3); })));
    stop = true;
    reaper.join();
    return 0;
  });
  CHECK(code == 0);
}

// ---------------------------------------------------------------------------- handles

TEST_CASE("Handles of one process are equal, and dropping all of them leaves it running",
          "[process]") {
  shared<support::gate> gate;
  pid_t pid = 0;
  {
    Process process([&] { gate->pass(); });
    const Process copy = process;
    CHECK(copy == process);
    CHECK_FALSE(Process(nothing) == process);
    process.start();
    pid = copy.pid().value();
  }
  auto children = procpool::active_children();
  REQUIRE(children.size() == 1);
  CHECK(children[0].pid() == pid);
  gate->open();
  CHECK(children[0].join(soon));
  CHECK(children[0].exitcode() == 0);
  CHECK(procpool::active_children().empty());
}

TEST_CASE("start() collects children that have ended and that nobody joins", "[process]") {
  for (int i = 0; i < 3; ++i) {
    Process process(nothing);
    process.start();
    pollfd interest{process.sentinel(), POLLIN, 0};
    REQUIRE(poll(&interest, 1, 20'000) == 1);
    CHECK(support::children_of(getpid()).size() == 1);  // not those of the rounds before
  }
  CHECK(procpool::active_children().empty());
}

TEST_CASE("A child has no descriptor of its siblings, neither have forks of the user's own",
          "[process]") {
  const auto pipes = count_fds_of_kind("pipe:");
  Process alive(sleep_long);
  alive.start();
  Process ended(nothing);
  ended.start();
  ended.join();
  CHECK(count_fds_of_kind("pidfd") == 2);
  const int code = exitcode_of([=] {
    CHILD_REQUIRE(count_fds_of_kind("pidfd") == 1);  // of the parent
    CHILD_REQUIRE(count_fds_of_kind("pipe:") == pipes);
  });
  CHECK(code == 0);
  const pid_t pid = fork();
  if (pid == 0) _exit(count_fds_of_kind("pidfd") == 0 ? 0 : 1);
  CHECK(support::wait_child(pid) == 0);
  alive.kill();
  alive.join();
}

TEST_CASE("Several threads may start processes at once", "[process]") {
  const auto pipes = count_fds_of_kind("pipe:");
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        const int code = exitcode_of([=] {
          CHILD_REQUIRE(count_fds_of_kind("pidfd") == 1);
          CHILD_REQUIRE(count_fds_of_kind("pipe:") == pipes);
          std::exit(i + 2);
        });
        if (code == i + 2) ++right;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 40);
}

TEST_CASE("A process is started once, however many threads try", "[process]") {
  shared<std::atomic<int>> runs;
  Process process([&] { ++*runs; });
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      try {
        process.start();
      } catch (const std::logic_error&) {
        ++refused;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  process.join();
  CHECK(refused == 3);
  CHECK(*runs == 1);
}

// ---------------------------------------------------------------------------- beyond Process

TEST_CASE("A process forked by other means takes an identity and ends in order", "[process]") {
  const auto result = support::capture_child([] {
    auto link = procpool::detail::link_to_this_process();
    const pid_t pid = procpool::detail::fork_process();
    if (pid == 0) {
      procpool::detail::enter_child(
          {.name = "PoolWorker-1", .daemon = false, .position = {1}, .parent = std::move(link)});
      CHILD_REQUIRE(procpool::current_process().name() == "PoolWorker-1");
      CHILD_REQUIRE(procpool::parent_process()->is_alive());
      CHILD_REQUIRE(exitcode_of(nothing) == 0);
      std::printf("a worker's last word");
      procpool::detail::leave_child(12);
    }
    return support::wait_child(pid);
  });
  CHECK(result.exitcode == 12);
  CHECK(result.out == "a worker's last word");
}

TEST_CASE("A worker starts with the signals of a fresh program, or handlers that are the library's",
          "[process]") {
  namespace os = procpool::detail::os;
  for (const bool ignored : {true, false}) {
    const int code = support::run_child([=] {
      signal(SIGTERM, [](int) {});
      signal(SIGUSR1, [](int) {});
      signal(SIGCHLD, SIG_IGN);
      const os::signals_blocked all;
      const os::signal_rules rules = os::rules_for_workers(true, ignored);
      signal(SIGPIPE, SIG_IGN);
      const os::signal_bits program_ignores = os::ignore_all_signals();
      const auto handler = [](int number) {
        struct sigaction action {};
        sigaction(number, nullptr, &action);
        return action.sa_handler;
      };
      CHILD_REQUIRE(handler(SIGTERM) == SIG_IGN);
      CHILD_REQUIRE(handler(SIGINT) == SIG_IGN);
      CHILD_REQUIRE(handler(SIGCHLD) == SIG_DFL);
      os::set_worker_signals(rules, program_ignores);
      for (const int number : {SIGTERM, SIGUSR1, SIGINT, SIGHUP}) {
        CHILD_REQUIRE(os::has_worker_handler(number) == ignored);
        CHILD_REQUIRE((handler(number) == SIG_DFL) == !ignored);
      }
      CHILD_REQUIRE(handler(SIGPIPE) == SIG_IGN);
      CHILD_REQUIRE(handler(SIGCHLD) == SIG_DFL);
      CHILD_REQUIRE(handler(SIGSEGV) == SIG_DFL);
      os::leave_worker_signals();
      CHILD_REQUIRE(handler(SIGTERM) == SIG_DFL);
      CHILD_REQUIRE(handler(SIGPIPE) == SIG_IGN);
      return 0;
    });
    CHECK(code == 0);
  }
}

TEST_CASE("A process started on a thread of the library has no signal blocked", "[process]") {
  struct silent : procpool::detail::fork_handler {
  } participant;
  procpool::detail::fork_registration registration(participant);
  int code = -1;
  std::thread thread;
  {
    const procpool::detail::os::signals_blocked for_the_thread;
    thread = std::thread([&] {
      const procpool::detail::fork_thread mark(registration);
      code = exitcode_of([] {
        sigset_t mask;
        pthread_sigmask(SIG_BLOCK, nullptr, &mask);
        CHILD_REQUIRE(sigisemptyset(&mask) == 1);
      });
    });
  }
  thread.join();
  CHECK(code == 0);
}

TEST_CASE("The parent's descriptor tells a child of the parent's death", "[process]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
  shared<std::atomic<bool>> seen_alive;
  Process parent([&] {
    Process orphan([&] {
      const auto link = procpool::parent_process().value();
      CHILD_REQUIRE(!link.join(0ms));
      *seen_alive = true;
      CHILD_REQUIRE(link.join(soon));
      const char verdict = link.is_alive() ? '-' : '+';
      CHILD_REQUIRE(write(ends[1], &verdict, 1) == 1);
    });
    orphan.start();
    CHILD_REQUIRE(support::eventually([&] { return seen_alive->load(); }));
    raise(SIGKILL);
  });
  parent.start();
  parent.join();
  char verdict = 0;
  REQUIRE(read(ends[0], &verdict, 1) == 1);
  CHECK(verdict == '+');
  close(ends[0]);
  close(ends[1]);
}
