// SPDX-License-Identifier: MIT
// Process with start_method::spawn, and the default start method.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "linked.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using procpool::Process;
using procpool::start_method;
using support::shared;

constexpr procpool::process_options by_spawn() {
  return {.start_method = start_method::spawn};
}

/// The exit code of a spawned process that runs this.
template <class F, class... A>
std::optional<int> code_of(F target, A... arguments) {
  Process process(by_spawn(), std::move(target), std::move(arguments)...);
  process.start();
  process.join();
  return process.exitcode();
}

struct counter {
  int value = 0;
  void plain() {}
  void qualified() const& {}
};

long resident_megabytes() {
  std::ifstream status("/proc/self/statm");
  long size = 0;
  long resident = 0;
  long file_pages = 0;
  status >> size >> resident >> file_pages;
  return (resident - file_pages) * sysconf(_SC_PAGESIZE) >> 20;
}

std::size_t open_requests() {
  const auto all = support::open_fds();
  return static_cast<std::size_t>(std::ranges::count_if(all, [](const auto& each) {
    return each.second.find("procpool request") != std::string::npos;
  }));
}

/// Made before main, in spawned processes as well. It writes what it has when it is destroyed.
struct late_writer {
  std::string text;
  ~late_writer() {
    if (!text.empty()) std::printf("%s\n", text.c_str());
  }
};
late_writer writer;
bool target_ran = false;
[[maybe_unused]] const int handler = std::atexit([] {
  if (target_ran) std::puts("the handler ran");
});
void write_to_own_stream() {
  writer.text = "written by the target";
  target_ran = true;
}

void nothing() {}
void leave(int status) {
  std::exit(status);
}
void fail() {
  throw std::runtime_error("there is no such table");
}
void kill_myself() {
  ::kill(getpid(), SIGKILL);
}
void require(bool condition) {
  if (!condition) std::exit(9);
}

struct identity_seen {
  pid_t self, parent, parent_object;
  bool daemon, named;
};

void report_identity(std::uintptr_t where, const std::string& name) {
  const auto parent = procpool::parent_process();
  const auto current = procpool::current_process();
  new (reinterpret_cast<void*>(where)) identity_seen{
      getpid(), getppid(), parent ? parent->pid() : -1, current.daemon(), current.name() == name};
}

void measure(const std::string& text, const std::vector<int>& numbers, std::size_t expected) {
  require(text.size() + numbers.size() == expected);
}

void cube_is(long x, long expected) {
  require(linked_cube(x) == expected);
}

void nested(int levels) {
  if (levels == 0) std::exit(21);
  Process process(by_spawn(), nested, levels - 1);
  process.start();
  process.join();
  std::exit(process.exitcode().value_or(1) + 1);
}

void start_a_child() {
  try {
    Process process(by_spawn(), nothing);
    process.start();
    process.join();
  } catch (const std::logic_error&) {
    std::exit(5);
  }
}

void default_is_spawn() {
  require(procpool::get_start_method() == start_method::spawn);
}

void wait_for_ever(std::uintptr_t gate) {
  reinterpret_cast<support::gate*>(gate)->pass();
}

template <class T>
std::uintptr_t address_of(const shared<T>& value) {
  return reinterpret_cast<std::uintptr_t>(value.get());
}

}  // namespace

TEST_CASE("exit codes of a spawned process are those of a forked one", "[spawn][process]") {
  CHECK(code_of(nothing) == 0);
  CHECK(code_of(leave, 3) == 3);
  CHECK(code_of(leave, 0) == 0);
  CHECK(code_of(kill_myself) == -SIGKILL);
  CHECK(code_of(cube_is, 3L, 27L) == 0);
}

TEST_CASE("an exception of a spawned process is on stderr, and its exit code is 1",
          "[spawn][process]") {
  const auto run = support::capture_child([] {
    Process process({.name = "reader", .start_method = start_method::spawn}, fail);
    process.start();
    process.join();
    return process.exitcode().value_or(-1);
  });
  CHECK(run.exitcode == 1);
  CHECK_THAT(run.err, ContainsSubstring("there is no such table") && ContainsSubstring("reader"));
}

TEST_CASE("a spawned process knows its name, its parent and whether it is daemonic",
          "[spawn][process]") {
  for (const bool daemon : {false, true}) {
    const shared<identity_seen> seen;
    Process process({.name = "the reader", .daemon = daemon, .start_method = start_method::spawn},
                    report_identity, address_of(seen), "the reader");
    process.start();
    const auto pid = process.pid();
    process.join();
    CHECK(process.exitcode() == 0);
    CHECK(seen->self == pid);
    CHECK(seen->parent == getpid());
    CHECK(seen->parent_object == getpid());
    CHECK(seen->daemon == daemon);
    CHECK(seen->named);
  }
}

TEST_CASE("arguments of a spawned process arrive; a literal is a std::string there",
          "[spawn][process]") {
  CHECK(code_of(measure, "four", std::vector<int>{1, 2, 3}, std::size_t{7}) == 0);
  const std::string large(20 << 20, 'x');
  CHECK(code_of(measure, large, std::vector<int>{}, large.size()) == 0);
  int captured = 5;
  CHECK(code_of([captured] { std::exit(captured); }) == 5);
}

TEST_CASE("what cannot be encoded is refused at start, by a message with the type",
          "[spawn][process]") {
  Process process(
      by_spawn(), [](const std::shared_ptr<int>&) {}, std::make_shared<int>(5));
  try {
    process.start();
    FAIL("nothing was thrown");
  } catch (const std::invalid_argument& error) {
    CHECK_THAT(error.what(), ContainsSubstring("shared_ptr"));
  }
  CHECK_FALSE(process.is_alive());
  CHECK_FALSE(process.pid().has_value());
  CHECK(procpool::active_children().empty());
}

TEST_CASE("a member function is called by spawn, whatever its qualifiers", "[spawn][process]") {
  Process plain(by_spawn(), &counter::plain, counter{});
  Process qualified(by_spawn(), &counter::qualified, counter{});
  for (Process* each : {&plain, &qualified}) {
    each->start();
    each->join();
    CHECK(each->exitcode() == 0);
  }
}

TEST_CASE("an argument that can only be moved arrives", "[spawn][process]") {
  const auto show = [](std::unique_ptr<int> number) {
    const int code = *number;
    number.reset();  // exit() would leave it
    std::exit(code);
  };
  CHECK(code_of(show, std::make_unique<int>(6)) == 6);
  procpool::Pool pool{{.processes = 1, .start_method = start_method::spawn}};
  const auto plus_one = [](std::unique_ptr<int> number) { return *number + 1; };
  CHECK(pool.apply(plus_one, std::make_unique<int>(6)) == 7);
  CHECK(pool.apply({.timeout = std::chrono::seconds(60)}, plus_one, std::make_unique<int>(6)) == 7);
}

TEST_CASE("a spawned process does not keep the bytes of its arguments", "[spawn][process]") {
  constexpr long megabytes = 64;
  const auto measure = [](std::string text) {
    text = {};
    text.shrink_to_fit();
    const bool small = support::address_sanitizer || resident_megabytes() < 32;  // it keeps all
    std::exit(open_requests() == 0 && small ? 0 : 7);
  };
  CHECK(code_of(measure, std::string(megabytes << 20, 'x')) == 0);
}

NAMED_PROGRAM(has_static_objects) {
  std::fflush(stdout);
  Process process(by_spawn(), write_to_own_stream);
  process.start();
  process.join();
  std::_Exit(process.exitcode().value_or(9));
}

TEST_CASE("a spawned process ends as a program does, with all its static objects and handlers",
          "[spawn][process]") {
  const auto run = support::capture_child([] {
    const auto inner = support::run_named("has_static_objects");
    std::printf("%s", inner.out.c_str());
    return inner.exitcode;
  });
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
  CHECK_THAT(run.out, ContainsSubstring("written by the target"));
  CHECK_THAT(run.out, ContainsSubstring("the handler ran"));
}

TEST_CASE("spawned processes within spawned processes", "[spawn][process]") {
  CHECK(code_of(nested, 3) == 24);
}

TEST_CASE("a daemonic spawned process can have no children", "[spawn][process]") {
  Process process({.daemon = true, .start_method = start_method::spawn}, start_a_child);
  process.start();
  process.join();
  CHECK(process.exitcode() == 5);
}

TEST_CASE("terminate and kill of a spawned process", "[spawn][process]") {
  const shared<support::gate> gate;
  for (const bool terminate : {true, false}) {
    Process process(by_spawn(), wait_for_ever, address_of(gate));
    process.start();
    REQUIRE(support::eventually([&] { return gate->arrived == (terminate ? 1 : 2); }));
    CHECK(process.is_alive());
    terminate ? process.terminate() : process.kill();
    process.join();
    CHECK(process.exitcode() == (terminate ? -SIGTERM : -SIGKILL));
  }
}

TEST_CASE("daemonic spawned processes end with the program, others are waited for",
          "[spawn][process]") {
  const shared<support::gate> gate;
  const pid_t program = support::start_child([&] {
    Process daemon({.daemon = true, .start_method = start_method::spawn}, wait_for_ever,
                   address_of(gate));
    daemon.start();
    if (!gate->wait_for(1)) return 1;
    std::exit(0);
  });
  CHECK(support::wait_child(program) == 0);
}

TEST_CASE("the start method is chosen once, or by force, and children have it, too",
          "[spawn][process]") {
  CHECK(support::run_child([] {
          procpool::set_start_method(start_method::spawn, true);
          try {
            procpool::set_start_method(start_method::fork);
            return 1;
          } catch (const std::logic_error&) {
          }
          for (const auto method : procpool::get_all_start_methods()) {
            Process process({.start_method = method}, default_is_spawn);
            process.start();
            process.join();
            if (process.exitcode() != 0) return 2;
            procpool::Pool pool{{.processes = 1, .start_method = method}};
            if (!pool.apply([] { return procpool::get_start_method() == start_method::spawn; })) {
              return 3;
            }
          }
          procpool::set_start_method(start_method::fork, true);
          return procpool::get_start_method() == start_method::fork ? 0 : 4;
        }) == 0);
}

NAMED_PROGRAM(names_start_methods) {
  procpool::Pool pool{{.processes = 1, .start_method = start_method::fork}};
  static_cast<void>(procpool::get_context(start_method::fork));
  procpool::set_start_method(start_method::spawn);
  return 0;
}

TEST_CASE("the default start method can be set until it is asked for or used", "[spawn][process]") {
  const auto settled_by = [](auto use) {
    return support::run_child([use] {
      use();
      try {
        procpool::set_start_method(start_method::spawn);
        return 0;
      } catch (const std::logic_error&) {
        return 7;
      }
    });
  };
  CHECK(support::run_named("names_start_methods").exitcode == 0);
  CHECK(settled_by([] { static_cast<void>(procpool::get_start_method()); }) == 7);
  CHECK(settled_by([] { static_cast<void>(procpool::get_context()); }) == 7);
  CHECK(settled_by([] { procpool::Pool pool{1}; }) == 7);
  CHECK(settled_by([] {
          Process process(nothing);
          process.start();
          process.join();
        }) == 7);
}

TEST_CASE("spawned processes are started by many threads at once", "[spawn][process]") {
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&right, t] {
      for (int i = 0; i < 10; ++i) {
        if (code_of(leave, t * 10 + i) == t * 10 + i) ++right;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(right == 40);
}
