// SPDX-License-Identifier: MIT
// Tasks that close descriptors which are not theirs, as code does that prepares a daemon: no item
// is lost by it, and nothing is written into what has the numbers since.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::start_method;

constexpr std::array both{start_method::fork, start_method::spawn};
constexpr std::size_t long_text = 3'000'000;  // longer than a ring

pid_t close_all() {
  syscall(SYS_close_range, 3U, ~0U, 0U);
  return getpid();
}

pid_t close_everything() {
  syscall(SYS_close_range, 0U, ~0U, 0U);
  return getpid();
}

/// Each number that was open is an empty file's now.
pid_t open_others_instead(const std::string& name) {
  std::vector<int> numbers;
  for (const auto& [number, target] : support::open_fds()) {
    if (number > 2) numbers.push_back(number);
  }
  const int file = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  for (const int number : numbers) {
    if (number != file) dup2(file, number);
  }
  return getpid();
}

std::string slowly(std::size_t size) {
  std::this_thread::sleep_for(20ms);  // the program sleeps by now
  return std::string(size, 'x');
}

long take(const std::string& text) {
  std::this_thread::sleep_for(20ms);
  return static_cast<long>(text.size());
}

pid_t pid() {
  return getpid();
}

/// Each number from 3 on is an eventfd's of the task now.
void open_own_events() {
  close_all();
  for (int i = 0; i < 20; ++i) static_cast<void>(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

/// How often they were written to, and by others than the task.
std::uint64_t rings_of_own_events() {
  std::uint64_t sum = 0;
  for (int number = 3; number < 23; ++number) {
    std::uint64_t count = 0;
    if (read(number, &count, sizeof count) == sizeof count) sum += count;
  }
  return sum;
}

int code_of_child() {
  const pid_t child = fork();
  if (child == 0) _exit(7);
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

/// The worker goes on, and so do all that it does.
void check_worker(procpool::Pool<>& pool, pid_t worker) {
  for (int i = 0; i < 3; ++i) {
    CHECK(pool.apply(slowly, std::size_t{5}) == "xxxxx");
    CHECK(pool.apply(slowly, long_text).size() == long_text);
    CHECK(pool.apply(take, std::string(long_text, 'y')) == static_cast<long>(long_text));
    CHECK(pool.map(slowly, std::vector<std::size_t>(4, 9)).size() == 4);
    auto callback_ran = pool.apply_async(slowly, std::size_t{1});
    CHECK(callback_ran.get(20s) == "x");
  }
  CHECK(pool.apply(code_of_child) == 7);
  CHECK(pool.apply(pid) == worker);
}

}  // namespace

TEST_CASE("a task that closes all descriptors costs no item", "[descriptors]") {
  for (const start_method method : both) {
    for (auto* task : {close_all, close_everything}) {
      procpool::Pool pool{{.processes = 1, .start_method = method}};
      const pid_t worker = pool.apply(task);
      check_worker(pool, worker);
    }
  }
}

TEST_CASE("a task's own eventfd is not rung in place of the worker's", "[descriptors]") {
  for (const start_method method : both) {
    procpool::Pool pool{{.processes = 1, .start_method = method}};
    pool.apply(open_own_events);
    check_worker(pool, pool.apply(pid));
    CHECK(pool.apply(rings_of_own_events) == 0);
  }
}

TEST_CASE("a task whose worker has a size limit may close all descriptors", "[descriptors]") {
  for (const start_method method : both) {
    procpool::Pool pool{{.processes = 1,
                         .start_method = method,
                         .memory_limit = std::size_t{1} << 30,
                         .max_resident = std::size_t{200} << 20}};
    const pid_t worker = pool.apply(close_all);
    check_worker(pool, worker);
    pool.apply([] {
      static std::vector<char> leak(std::size_t{300} << 20, 'x');
      return leak.size();
    });
    CHECK(pool.apply(pid) != worker);  // the limit still holds
  }
}

TEST_CASE("nothing is written into files that have the numbers of closed descriptors",
          "[descriptors]") {
  for (const start_method method : both) {
    const std::string name = "/tmp/procpool-descriptors-" + std::to_string(getpid());
    {
      procpool::Pool pool{{.processes = 1, .start_method = method}};
      const pid_t worker = pool.apply(open_others_instead, name);
      check_worker(pool, worker);
    }
    struct stat about {};
    CHECK(stat(name.c_str(), &about) == 0);
    CHECK(about.st_size == 0);
    unlink(name.c_str());
  }
}

TEST_CASE("a process whose descriptor a task has closed is not taken for one that has ended",
          "[descriptors]") {
  procpool::Pool pool{{.processes = 1}};
  pool.apply(close_all);
  CHECK_THROWS_AS(pool.apply([] { return procpool::parent_process()->is_alive(); }),
                  procpool::ProcessError);
  try {
    pool.apply([] {
      procpool::Process process{[] { std::this_thread::sleep_for(60s); }};
      process.start();
      close_all();
      try {
        if (process.is_alive()) _exit(9);  // asked by its number
      } catch (const procpool::ProcessError&) {
        _exit(9);  // a worker that leaves in order would wait for the process
      }
      _exit(1);
    });
    FAIL("the task returned");
  } catch (const procpool::WorkerDied& died) {
    CHECK(died.exitcode() == 9);
  }
}
