// SPDX-License-Identifier: MIT
// How spawned processes end when the program does not end in order.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

support::common<support::gate*> door;

long pass(long x) {
  door->pass();
  return x;
}

/// A program whose spawned workers are all busy until they are killed.
int busy_program() {
  setpgid(0, 0);
  procpool::Pool pool{{.processes = 3, .start_method = procpool::start_method::spawn}};
  static_cast<void>(pool.map(pass, std::vector<long>{1, 2, 3}, {.chunksize = 1}));
  return 0;
}

/// Starts busy_program, lets @p end end it and checks that nothing of it is left.
template <class End>
int end_of_program(End end) {
  const support::shared<support::gate> gate;
  door = gate.get();
  const pid_t program = support::start_child(busy_program);
  REQUIRE(gate->wait_for(3));
  std::vector<pid_t> family;
  for (const auto& each : support::descendants_of(program)) family.push_back(each.pid);
  CHECK(family.size() >= 4);  // the fork server, too
  end(program);
  const int code = support::wait_child(program);
  CHECK(support::eventually([&] { return std::ranges::none_of(family, support::is_running); }, 5s));
  return code;
}

}  // namespace

TEST_CASE("SIGKILL of a program leaves no spawned process", "[spawn][life]") {
  for (int round = 0; round < 5; ++round) {
    CHECK(end_of_program([](pid_t program) { kill(program, SIGKILL); }) == -SIGKILL);
  }
}

TEST_CASE("Ctrl-C ends the program and its spawned processes", "[spawn][life]") {
  CHECK(end_of_program([](pid_t program) { kill(-program, SIGINT); }) == -SIGINT);
}

TEST_CASE("a spawned fork server that is killed breaks the pool, which says so", "[spawn][life]") {
  procpool::Pool pool{{.processes = 2, .start_method = procpool::start_method::spawn}};
  try {
    pool.apply([] { kill(getppid(), SIGKILL); });
  } catch (const procpool::BrokenPool&) {  // the worker ends with its server
  }
  CHECK(support::eventually([&] {
    try {
      static_cast<void>(pool.apply([] { return 1; }));
      return false;
    } catch (const procpool::BrokenPool&) {
      return true;
    } catch (const procpool::WorkerDied&) {
      return false;
    }
  }));
}

TEST_CASE("the mark of a spawned process on a command line does no harm", "[spawn][life]") {
  const auto run = support::run_self({"--procpool-spawned-process"});
  CHECK(run.exitcode == 1);
  CHECK(run.out.empty());
  CHECK_THAT(run.err, ContainsSubstring("procpool"));
}
