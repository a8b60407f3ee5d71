// SPDX-License-Identifier: MIT
// What tasks have started: commands, daemons, Processes, pools. It ends with a worker that is
// killed or crashes, and with the pool; what other workers have started is left alone.
#include <fcntl.h>
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
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <procpool/detail/child/descendants.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::start_method;

/// What tasks tell of what they started.
struct notes {
  std::atomic<int> count;
  std::array<std::atomic<pid_t>, 32> pids;
  std::atomic<long> successors;

  void add(pid_t pid) { pids[static_cast<std::size_t>(count++)] = pid; }
  [[nodiscard]] bool anybody_lives() const {
    for (int i = 0; i < count; ++i) {
      if (support::is_running(pids[static_cast<std::size_t>(i)])) return true;
    }
    return false;
  }
  [[nodiscard]] bool all_live() const {
    for (int i = 0; i < count; ++i) {
      if (!support::is_running(pids[static_cast<std::size_t>(i)])) return false;
    }
    return true;
  }
};
support::common<notes*> noted;

constexpr std::array both{start_method::fork, start_method::spawn};

/// Replaces this process by a command that does nothing for long.
[[noreturn]] void sleep_long() {
  execlp("sleep", "sleep", "60", nullptr);
  _exit(127);
}

void run_command() {
  const pid_t pid = fork();
  if (pid == 0) sleep_long();
  noted->add(pid);
}

/// Without session, group or parent in common with the worker, and deaf to what can be ignored.
void run_daemon() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) std::abort();
  const pid_t between = fork();
  if (between == 0) {
    setsid();
    const pid_t daemon = fork();
    if (daemon != 0) {
      (void)!write(ends[1], &daemon, sizeof daemon);
      _exit(0);
    }
    for (const int number : {SIGTERM, SIGHUP, SIGINT, SIGQUIT}) signal(number, SIG_IGN);
    sleep_long();
  }
  pid_t daemon = 0;
  if (read(ends[0], &daemon, sizeof daemon) != sizeof daemon) std::abort();
  close(ends[0]);
  close(ends[1]);
  waitpid(between, nullptr, 0);
  noted->add(daemon);
}

/// A line of processes, each the child of the one before.
void run_line() {
  constexpr int length = 6;
  const int before = noted->count;
  if (fork() == 0) {
    for (int i = 1; i < length; ++i) {
      noted->add(getpid());
      if (fork() != 0) {
        for (;;) pause();
      }
    }
    noted->add(getpid());
    sleep_long();
  }
  while (noted->count < before + length) std::this_thread::sleep_for(1ms);
}

/// A process that gives way to a successor all the time.
void run_away() {
  if (fork() == 0) {
    for (int i = 0; i < 20'000; ++i) {
      ++noted->successors;
      if (fork() != 0) _exit(0);
    }
    _exit(0);
  }
}

void run_process() {
  procpool::Process process{[] { std::this_thread::sleep_for(60s); }};
  process.start();
  noted->add(process.pid().value());
}

void wait_in_a_pool() {
  procpool::Pool pool{1};
  pool.apply([] {
    run_command();
    run_daemon();
    noted->add(getpid());
    ++noted->successors;
    std::this_thread::sleep_for(60s);
  });
}
void run_pool() {
  procpool::Process process{wait_in_a_pool};
  process.start();
  noted->add(process.pid().value());
  while (noted->successors == 0) std::this_thread::sleep_for(1ms);
}

using starter = void (*)();
constexpr std::array<starter, 6> starters{run_command, run_daemon,  run_line,
                                          run_away,    run_process, run_pool};

/// How a worker ends that has started something.
enum class end_of_worker { late, killed, crashed, exited, cancelled };
constexpr std::array ends{end_of_worker::late, end_of_worker::killed, end_of_worker::crashed,
                          end_of_worker::exited, end_of_worker::cancelled};

void start_and_end(int which, end_of_worker how) {
  starters[static_cast<std::size_t>(which)]();
  if (how == end_of_worker::killed) kill(getpid(), SIGKILL);
  if (how == end_of_worker::crashed) std::abort();
  if (how == end_of_worker::exited) _exit(3);
  std::this_thread::sleep_for(60s);
}

bool run_away_ended() {
  const long before = noted->successors;
  std::this_thread::sleep_for(20ms);
  return noted->successors == before;
}

bool nobody_left() {
  return support::eventually([] { return !noted->anybody_lives() && run_away_ended(); }, 10s);
}

void start(int which) {
  starters[static_cast<std::size_t>(which)]();
}

/// Each time in a process of its own, as a program.
void expect_success(auto program) {
  for (const start_method method : both) {
    INFO((method == start_method::fork ? "fork" : "spawn"));
    const support::shared<notes> all;
    noted = all.get();
    CHECK(support::run_child([&] { return program(method); }) == 0);
    CHECK(nobody_left());
  }
}

}  // namespace

TEST_CASE("what a worker has started ends with it when it is killed or crashes",
          "[descendants][limit:300]") {
  for (int which = 0; which < static_cast<int>(starters.size()); ++which) {
    for (const end_of_worker how : ends) {
      INFO("starter " << which << ", end " << static_cast<int>(how));
      expect_success([=](start_method method) {
        procpool::Pool pool{{.processes = 2, .start_method = method}};
        const bool late = how == end_of_worker::late;
        procpool::task_options<void> options;
        if (late) options.timeout = 300ms;
        auto result = pool.apply_async(options, start_and_end, which, how);
        if (how == end_of_worker::cancelled) {
          CHILD_REQUIRE(
              support::eventually([] { return noted->count > 0 || noted->successors > 0; }));
          result.cancel({.kill = true});
        }
        CHILD_REQUIRE(result.exception() != nullptr);
        CHILD_REQUIRE(nobody_left());  // while the pool lives
        return pool.apply([] { return 0; });
      });
    }
  }
}

TEST_CASE("what workers have started ends with the pool", "[descendants][limit:300]") {
  for (int which = 0; which < static_cast<int>(starters.size()); ++which) {
    for (int how = 0; how < 3; ++how) {
      if (how == 1 && which > 3) continue;  // a worker that leaves waits for its Processes
      INFO("starter " << which << ", end " << how);
      expect_success([=](start_method method) {
        {
          procpool::Pool pool{{.processes = 2, .start_method = method}};
          pool.apply(start, which);
          CHILD_REQUIRE(noted->all_live());
          if (how == 0) pool.terminate();
          if (how == 1) pool.close();
          if (how == 1) pool.join();
        }
        return noted->anybody_lives() || !run_away_ended() ? 1 : 0;
      });
    }
  }
}

TEST_CASE("what workers have started ends with a program that is killed", "[descendants]") {
  for (int which = 0; which < static_cast<int>(starters.size()); ++which) {
    expect_success([=](start_method method) {
      const pid_t program = support::start_child([=] {
        procpool::Pool pool{{.processes = 2, .start_method = method}};
        pool.apply(start, which);
        kill(getpid(), SIGKILL);
        return 0;
      });
      CHILD_REQUIRE(support::wait_child(program) == -SIGKILL);
      return nobody_left() ? 0 : 1;
    });
  }
}

TEST_CASE("what workers have started ends with a pool whose fork server was killed",
          "[descendants]") {
  for (int which = 0; which < static_cast<int>(starters.size()); ++which) {
    expect_success([=](start_method method) {
      {
        procpool::Pool pool{{.processes = 2, .start_method = method}};
        pool.apply(start, which);
        kill(pool.apply(getppid), SIGKILL);
      }
      return nobody_left() ? 0 : 1;
    });
  }
}

TEST_CASE("what other workers have started lives on", "[descendants]") {
  expect_success([](start_method method) {
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    for (int which = 0; which < 3; ++which) pool.apply(start, which);
    pool.resize(2);
    std::vector<procpool::AsyncResult<void>> deadly;
    auto busy = pool.apply_async([] { std::this_thread::sleep_for(60s); });
    for (int i = 0; i < 5; ++i) {
      CHILD_REQUIRE(pool.apply_async(std::abort).exception() != nullptr);
      CHILD_REQUIRE(noted->all_live());
    }
    busy.cancel({.kill = true});
    CHILD_REQUIRE(busy.exception() != nullptr);
    return 0;
  });
}

TEST_CASE("where processes cannot be marked nothing of healthy workers is killed by a crash",
          "[descendants]") {
  expect_success([](start_method method) {
    const rlimit finite{1 << 30, 1 << 30};
    if (setrlimit(RLIMIT_RSS, &finite) != 0) return 2;
    CHILD_REQUIRE(!procpool::detail::os::can_mark(procpool::detail::os::mark_of_pool(1)));
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    auto busy = pool.apply_async([] {
      run_daemon();
      std::this_thread::sleep_for(1s);
    });
    CHILD_REQUIRE(support::eventually([] { return noted->count == 1; }));
    for (int i = 0; i < 3; ++i) {
      CHILD_REQUIRE(pool.apply_async(std::abort).exception() != nullptr);
    }
    busy.get();
    return noted->all_live() ? 0 : 1;
  });
}

TEST_CASE("marks are a pool's own, and a worker's within it", "[descendants]") {
  namespace os = procpool::detail::os;
  const auto one = os::mark_of_pool(~std::uint64_t{0});
  const auto other = os::mark_of_pool(0);
  CHECK(os::can_mark(one));
  CHECK(os::can_mark(other));
  CHECK(one >= os::first_mark);
  CHECK(other >= os::first_mark);
  CHECK_FALSE(os::same_pool(one, other));
  CHECK(os::same_pool(os::mark_of_worker(one, 1), os::mark_of_worker(one, ~std::uint64_t{0})));
  CHECK(os::same_pool(other, os::mark_of_worker(other, ~std::uint64_t{0})));
  CHECK(os::mark_of_worker(one, 1) != os::mark_of_worker(one, 2));
}

TEST_CASE("what a worker that leaves in order has started lives until the end of the pool",
          "[descendants]") {
  expect_success([](start_method method) {
    procpool::Pool pool{{.processes = 1, .start_method = method, .maxtasksperchild = 1}};
    const pid_t first = pool.apply([] {
      run_command();
      run_daemon();
      run_line();
      return getpid();
    });
    CHILD_REQUIRE(pool.apply(getpid) != first);
    CHILD_REQUIRE(support::eventually([=] { return !support::is_running(first); }));
    CHILD_REQUIRE(pool.apply_async(std::abort).exception() != nullptr);
    CHILD_REQUIRE(pool.apply(getpid) != first);
    return noted->all_live() ? 0 : 1;
  });
}

TEST_CASE("a pool that is to leave them alone does", "[descendants]") {
  expect_success([](start_method method) {
    {
      procpool::Pool pool{{.processes = 1, .start_method = method, .kill_descendants = false}};
      static_cast<void>(pool.apply_async(start_and_end, 0, end_of_worker::killed).exception());
      pool.apply(start, 1);
    }
    std::this_thread::sleep_for(50ms);
    CHILD_REQUIRE(noted->count == 2);
    CHILD_REQUIRE(noted->all_live());
    for (int i = 0; i < 2; ++i) kill(noted->pids[static_cast<std::size_t>(i)], SIGKILL);
    return 0;
  });
}

TEST_CASE("a task waits for its own children only, and daemons that ended leave no zombie",
          "[descendants]") {
  expect_success([](start_method method) {
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    const int found = pool.apply([] {
      run_daemon();
      const pid_t child = fork();
      if (child == 0) _exit(5);
      int status = 0;
      if (wait(&status) != child || WEXITSTATUS(status) != 5) return 1;
      if (wait(&status) != -1 || errno != ECHILD) return 2;
      return std::system("sleep 0.01 & sleep 0.01 & exit 0") == 0 ? 0 : 3;
    });
    CHILD_REQUIRE(found == 0);
    CHILD_REQUIRE(support::eventually([] {
      const auto all = support::descendants_of(getpid());
      return all.size() == 3 && std::ranges::none_of(all, &support::process_info::zombie);
    }));  // the fork server, the worker, the daemon
    return 0;
  });
}

TEST_CASE("children are found with the kernel's list of them and without", "[descendants]") {
  namespace os = procpool::detail::os;
  const int code = support::run_child([] {
    std::vector<pid_t> own;
    for (int i = 0; i < 600; ++i) {  // a list of more than one page
      const pid_t child = fork();
      if (child == 0) {
        for (;;) pause();
      }
      own.push_back(child);
    }
    std::vector<pid_t> listed;
    std::vector<pid_t> asked;
    CHILD_REQUIRE(os::for_listed_children([&](pid_t pid) { listed.push_back(pid); }));
    os::for_all_processes([&](pid_t pid) {
      if (os::is_own_child(pid)) asked.push_back(pid);
    });
    for (auto* each : {&own, &listed, &asked}) std::ranges::sort(*each);
    for (const pid_t child : own) kill(child, SIGKILL);
    for (const pid_t child : own) waitpid(child, nullptr, 0);
    CHILD_REQUIRE(listed == own);
    CHILD_REQUIRE(asked == own);
    CHILD_REQUIRE(!os::is_own_child(getppid()));
    CHILD_REQUIRE(!os::is_own_child(own.front()));
    return 0;
  });
  CHECK(code == 0);
}
