// SPDX-License-Identifier: MIT
// What workers find around them: descriptors of the program, environment variables, names, and
// what a program with threads is told.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::start_method;

constexpr std::array both{start_method::fork, start_method::spawn};

std::vector<std::string> open_files() {
  std::vector<std::string> files;
  for (const auto& [number, target] : support::open_fds()) files.push_back(target);
  return files;
}

bool is_open(int number) {
  return fcntl(number, F_GETFD) != -1;
}

std::optional<std::string> variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::string output_of(const std::string& command) {
  std::string text;
  if (std::FILE* pipe = popen(command.c_str(), "r")) {
    for (int c = 0; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
    pclose(pipe);
  }
  return text;
}

int echo(int x) {
  return x;
}

/// A thread of the program that does nothing, for a while.
class some_thread {
 public:
  some_thread() = default;

 private:
  std::jthread thread_{[](const std::stop_token& stop) {
    while (!stop.stop_requested()) std::this_thread::sleep_for(1ms);
  }};
};

std::string told_by(const procpool::pool_options& options, bool with_thread) {
  const auto result = support::capture_child([&] {
    std::optional<some_thread> thread;
    if (with_thread) thread.emplace();
    for (int i = 0; i < 3; ++i) {
      procpool::Pool pool{options};
      CHILD_REQUIRE(pool.apply_async(echo, i).get() == i);  // with a service thread
      procpool::Pool second{options};                       // beside which this one is forked
      CHILD_REQUIRE(second.apply(echo, i) == i);
    }
    return 0;
  });
  CHECK(result.exitcode == 0);
  return result.err;
}

}  // namespace

// ---- descriptors -------------------------------------------------------------------------------

TEST_CASE("forked workers have the program's descriptors unless they are to close them",
          "[surroundings]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  {
    procpool::Pool pool{{.processes = 1}};
    CHECK(pool.apply(is_open, ends[0]));
  }
  {
    procpool::Pool pool{{.processes = 2, .close_fds = true}};
    for (const int number : {0, 1, 2}) CHECK(pool.apply(is_open, number));
    // The numbers may be the worker's own by now.
    const auto open = pool.apply(open_files);
    for (const int number : ends) {
      CHECK(std::ranges::find(open, support::open_fds().at(number)) == open.end());
    }
    close(ends[1]);
    pollfd end{ends[0], POLLIN, 0};
    CHECK(poll(&end, 1, 0) == 1);  // the end of the stream is seen: nobody else has the other end
  }
  close(ends[0]);
}

TEST_CASE("forked workers keep the descriptors that they are given", "[surroundings]") {
  const int low = open("/dev/null", O_RDONLY);
  const int high = fcntl(low, F_DUPFD, 700);
  const int between = fcntl(low, F_DUPFD, 300);
  {
    procpool::Pool pool{{.processes = 1, .close_fds = true, .pass_fds = {high, low, 1, 5000}}};
    CHECK(pool.apply(is_open, low));
    CHECK(pool.apply(is_open, high));
    CHECK_FALSE(pool.apply(is_open, between));
    CHECK_THROWS_AS(pool.apply(std::abort), procpool::WorkerDied);
    CHECK(pool.apply(is_open, high));  // a worker that came later
    CHECK_FALSE(pool.apply(is_open, between));
    CHECK(pool.apply([] { return procpool::parent_process()->is_alive(); }));
  }
  for (const int each : {low, between, high}) close(each);
}

TEST_CASE("a lock of a file does not stay with workers that close descriptors", "[surroundings]") {
  const std::string name = "/tmp/procpool-surroundings-" + std::to_string(getpid());
  const int file = open(name.c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(flock(file, LOCK_EX | LOCK_NB) == 0);
  {
    procpool::Pool pool{{.processes = 1, .close_fds = true}};
    close(file);
    const int again = open(name.c_str(), O_RDWR);
    CHECK(flock(again, LOCK_EX | LOCK_NB) == 0);
    close(again);
  }
  unlink(name.c_str());
}

TEST_CASE("workers of a forked Process's pool close its descriptors and no others",
          "[surroundings]") {
  // Its link to its own parent has a number that may come to be the workers' own.
  for (int below = 0; below <= 3; ++below) {
    procpool::Process process([below] {
      for (int i = 0; i < below; ++i) static_cast<void>(open("/dev/null", O_RDONLY));
      const int passed = open("/dev/null", O_RDONLY);
      std::optional<procpool::Pool<>> pool(
          std::in_place,
          procpool::pool_options{.processes = 2, .close_fds = true, .pass_fds = {passed}});
      const bool right = pool->apply(echo, 3) == 3 && pool->apply(is_open, passed) &&
                         pool->apply([] { return procpool::parent_process()->is_alive(); });
      pool.reset();
      std::exit(right ? 0 : 1);
    });
    std::vector<int> free_ones;
    for (int i = 0; i < 3 - below; ++i) free_ones.push_back(open("/dev/null", O_RDONLY));
    process.start();
    process.join();
    CHECK(process.exitcode() == 0);
    for (const int each : free_ones) close(each);
  }
}

TEST_CASE("pass_fds without close_fds is refused", "[surroundings]") {
  CHECK_THROWS_AS((procpool::Pool{{.processes = 1, .pass_fds = {5}}}), std::invalid_argument);
}

// ---- environment -------------------------------------------------------------------------------

TEST_CASE("workers have the environment variables that they are given", "[surroundings]") {
  setenv("PROCPOOL_TEST_KEPT", "as it was", 1);
  setenv("PROCPOOL_TEST_CHANGED", "before", 1);
  for (const start_method method : both) {
    procpool::Pool pool{
        {.processes = 1,
         .start_method = method,
         .environment = {{"PROCPOOL_TEST_CHANGED", "a=b c"}, {"PROCPOOL_TEST_NEW", ""}}}};
    for (int round = 0; round < 2; ++round) {
      CHECK(pool.apply(variable, "PROCPOOL_TEST_KEPT") == "as it was");
      CHECK(pool.apply(variable, "PROCPOOL_TEST_CHANGED") == "a=b c");
      CHECK(pool.apply(variable, "PROCPOOL_TEST_NEW") == "");
      CHECK(pool.apply(output_of, "echo \"$PROCPOOL_TEST_CHANGED\"") == "a=b c\n");
      CHECK_THROWS_AS(pool.apply(std::abort), procpool::WorkerDied);  // also those that come later
    }
    CHECK(variable("PROCPOOL_TEST_CHANGED") == "before");
    CHECK_FALSE(variable("PROCPOOL_TEST_NEW"));
    CHECK(pool.apply([] {
      setenv("PROCPOOL_TEST_CHANGED", "by a task", 1);
      return variable("PROCPOOL_TEST_CHANGED");
    }) == "by a task");
  }
  unsetenv("PROCPOOL_TEST_KEPT");
  unsetenv("PROCPOOL_TEST_CHANGED");
}

TEST_CASE("what is no environment variable is refused", "[surroundings]") {
  using variables = std::map<std::string, std::string>;
  for (const auto& wrong :
       {variables{{"", "x"}}, variables{{"A=B", "x"}}, variables{{"A", std::string("x\0y", 3)}}}) {
    CHECK_THROWS_AS((procpool::Pool{{.processes = 1, .environment = wrong}}),
                    std::invalid_argument);
  }
}

// ---- names -------------------------------------------------------------------------------------

TEST_CASE("the processes of a pool have names in ps and top", "[surroundings]") {
  for (const start_method method : both) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    CHECK(pool.apply(output_of, "cat /proc/$PPID/comm") == "procpool-worker\n");
    CHECK(pool.apply([] {
      return output_of("cat /proc/" + std::to_string(getppid()) + "/comm");
    }) == "procpool-server\n");
  }
}

// ---- threads -----------------------------------------------------------------------------------

TEST_CASE("a program that forks a pool beside threads of its own is told once", "[surroundings]") {
  const std::string text = told_by({.processes = 1, .start_method = start_method::fork}, true);
  CHECK_THAT(text, ContainsSubstring("a pool was forked from a process with 2 threads"));
  CHECK(text.find("procpool: ") == text.rfind("procpool: "));
}

TEST_CASE("a program without threads of its own is told nothing, nor is one that spawns",
          "[surroundings]") {
  CHECK(told_by({.processes = 1, .start_method = start_method::fork}, false).empty());
  CHECK(told_by({.processes = 1, .start_method = start_method::spawn}, true).empty());
}

TEST_CASE("what programs with threads are told can be turned off", "[surroundings]") {
  CHECK(told_by({.processes = 1, .start_method = start_method::fork, .warn_about_threads = false},
                true)
            .empty());
  setenv("PROCPOOL_WARN_THREADS", "0", 1);
  CHECK(told_by({.processes = 1, .start_method = start_method::fork}, true).empty());
  unsetenv("PROCPOOL_WARN_THREADS");
}
