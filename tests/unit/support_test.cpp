// SPDX-License-Identifier: MIT
// The guards that all other tests rely on: each is shown something bad and has to say so. The bad
// tests are hidden from an ordinary run; this program runs itself to see what becomes of them.
#include "support/child.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "support/processes.hpp"
#include "support/shared.hpp"
#include "support/watchdog.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using namespace std::chrono_literals;

[[noreturn]] int sleep_for_ever() {
  for (;;) pause();
}

}  // namespace

TEST_CASE("bad: leaves a descriptor open", "[.bad-fd]") {
  CHECK(open("/dev/null", O_RDONLY) > 2);
}

TEST_CASE("bad: leaves a child running", "[.bad-child]") {
  CHECK(support::start_child(sleep_for_ever) > 0);
}

TEST_CASE("bad: leaves a zombie", "[.bad-zombie]") {
  CHECK(support::start_child([] { return 0; }) > 0);
}

TEST_CASE("bad: leaves a grandchild whose parent has gone", "[.bad-orphan]") {
  CHECK(support::run_child([] { return support::start_child(sleep_for_ever) > 0 ? 0 : 1; }) == 0);
}

TEST_CASE("bad: leaves shared memory with a name", "[.bad-shm]") {
  const std::string name = "/procpool-support-test-" + std::to_string(getpid());
  const int fd = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  CHECK(fd >= 0);
  close(fd);
}

TEST_CASE("bad: never ends, and neither do its children", "[.bad-hang][limit:1]") {
  const pid_t child = support::start_child([] {
    const pid_t grandchild = support::start_child(sleep_for_ever);
    return support::wait_child(grandchild);
  });
  CHECK(support::wait_child(child) == 0);
}

TEST_CASE("bad: is ended by a signal", "[.bad-crash]") {
  kill(getpid(), SIGKILL);
}

TEST_CASE("the leak guard fails a test that leaves something behind", "[support][limit:120]") {
  struct bad_test {
    const char* tag;
    const char* complaint;
  };
  for (const auto& bad :
       {bad_test{"[.bad-fd]", "file descriptor"}, bad_test{"[.bad-child]", "process"},
        bad_test{"[.bad-zombie]", "state Z"}, bad_test{"[.bad-orphan]", "process"},
        bad_test{"[.bad-shm]", "/dev/shm/procpool-support-test-"}}) {
    const auto run = support::run_self({bad.tag});
    INFO(bad.tag << '\n' << run.out << run.err);
    CHECK(run.exitcode == 1);
    CHECK_THAT(run.err, ContainsSubstring("LEFT BEHIND by the test case: bad: leaves "));
    CHECK_THAT(run.err, ContainsSubstring(bad.complaint));
  }
  for (const auto& name : support::names_in("/dev/shm")) {
    if (name.starts_with("procpool-support-test-")) shm_unlink(("/" + name).c_str());
  }
}

TEST_CASE("the watchdog names a hung test and kills all it has started", "[support]") {
  if (support::watchdog_pid() == 0) return;  // switched off for a debugger
  const auto run = support::run_self({"[.bad-hang]"});
  CHECK(run.exitcode == support::time_limit_status);
  CHECK_THAT(run.err, ContainsSubstring("in: bad: never ends, and neither do its children"));
  CHECK(support::children_of(getpid()).empty());
}

TEST_CASE("the watchdog names the test that a signal has ended", "[support]") {
  if (support::watchdog_pid() == 0) return;
  const auto run = support::run_self({"[.bad-crash]"});
  CHECK(run.exitcode == 128 + SIGKILL);
  CHECK_THAT(run.err, ContainsSubstring("signal 9 (KILL) in: bad: is ended by a signal"));
}

TEST_CASE("a child's exit status, signal and exception are seen from outside", "[support]") {
  CHECK(support::run_child([] { return 3; }) == 3);
  CHECK(support::run_child([]() -> int { std::abort(); }) == -SIGABRT);
  const auto thrown = support::capture_child([]() -> int { throw std::runtime_error("no luck"); });
  CHECK(thrown.exitcode == support::child_threw);
  CHECK_THAT(thrown.err, ContainsSubstring("no luck"));
  const auto failed = support::capture_child([] {
    CHILD_REQUIRE(1 + 1 == 3);
    return 0;
  });
  CHECK(failed.exitcode == 1);
  CHECK_THAT(failed.err, ContainsSubstring("1 + 1 == 3"));
}

TEST_CASE("output of a child and of a program is captured, larger than any pipe", "[support]") {
  const auto child = support::capture_child([] {
    for (int i = 0; i < 100000; ++i) std::fputs("0123456789", i % 2 == 0 ? stdout : stderr);
    return 0;
  });
  CHECK(child.out.size() == 500000);
  CHECK(child.err.size() == 500000);
  const auto program = support::run_program({"sh", "-c", "echo out; echo err >&2; exit 4"});
  CHECK(program.out == "out\n");
  CHECK(program.err == "err\n");
  CHECK(program.exitcode == 4);
}

NAMED_PROGRAM(support_example) {
  std::atexit([] { std::puts("at exit"); });
  std::puts("running");
  return 5;
}

TEST_CASE("a named program returns from a main of its own", "[support]") {
  const auto run = support::run_named("support_example");
  CHECK(run.out == "running\nat exit\n");
  CHECK(run.exitcode == 5);
}

TEST_CASE("children and descriptors are counted", "[support]") {
  const auto fds = support::count_fds();
  const int fd = open("/dev/null", O_RDONLY);
  CHECK(support::count_fds() == fds + 1);
  close(fd);
  const support::shared<support::gate> gate;
  const pid_t child = support::start_child([&] {
    const pid_t grandchild = support::start_child([&] {
      gate->pass();
      return 0;
    });
    return support::wait_child(grandchild);
  });
  REQUIRE(gate->wait_for(1));
  CHECK(support::children_of(getpid()).size() == 1);
  CHECK(support::descendants_of(getpid()).size() == 2);
  CHECK(support::is_running(child));
  gate->open();
  CHECK(support::wait_child(child) == 0);
  CHECK_FALSE(support::is_running(child));
}

TEST_CASE("eventually says whether it came true", "[support]") {
  int looks = 0;
  CHECK(support::eventually([&] { return ++looks > 3; }));
  CHECK_FALSE(support::eventually([] { return false; }, 20ms));
}
