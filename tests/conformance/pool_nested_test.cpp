// SPDX-License-Identifier: MIT
// CPython's TestStdinBadfiledescriptor and what Python does not allow: pools inside processes,
// processes and pools inside tasks.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <optional>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;

void pool_in_process() {
  procpool::Pool pool{4};
  const bool right = pool.map(square, numbers(100)) == squares(100);
  pool.close();
  pool.join();
  if (!right) _exit(1);
}

void process_in_process() {
  procpool::Process process(pool_in_process);
  process.start();
  process.join();
  if (process.exitcode() != 0) _exit(2);
}

long pool_in_task(long workers) {
  procpool::Pool pool{static_cast<int>(workers)};
  const auto all = pool.map(square, numbers(10));
  return all.back();
}

std::optional<int> process_in_task() {
  procpool::Process process(pool_in_process);
  process.start();
  process.join();
  return process.exitcode();
}

}  // namespace

TEST_CASE(
    "TestStdinBadfiledescriptor.test_pool_in_process: a process makes a pool, maps, closes, "
    "joins",
    "[conformance][pool][nested]") {
  procpool::Process process(pool_in_process);
  process.start();
  process.join();
  CHECK(process.exitcode() == 0);
}

TEST_CASE("TestStdinBadfiledescriptor.test_pool_in_process: two levels down",
          "[conformance][pool][nested]") {
  procpool::Process process(process_in_process);
  process.start();
  process.join();
  CHECK(process.exitcode() == 0);
}

TEST_CASE("TestStdinBadfiledescriptor.test_pool_in_process: with stdin closed",
          "[conformance][pool][nested]") {
  CHECK(support::run_child([] {
          close(STDIN_FILENO);
          procpool::Process process(pool_in_process);
          process.start();
          process.join();
          return process.exitcode() == 0 ? 0 : 1;
        }) == 0);
}

TEST_CASE("TestStdinBadfiledescriptor.test_pool_in_process: a task makes a pool of its own",
          "[conformance][pool][nested]") {
  procpool::Pool pool{2};
  CHECK(pool.apply(pool_in_task, 2) == 81);
  CHECK(pool.map(pool_in_task, std::vector<long>{1, 2, 1, 2}, {.chunksize = 1}) ==
        std::vector<long>(4, 81));
  CHECK(pool.apply(square, 5) == 25);
}

TEST_CASE("TestStdinBadfiledescriptor.test_pool_in_process: a task starts a process",
          "[conformance][pool][nested]") {
  procpool::Pool pool{2};
  CHECK(pool.apply(process_in_task) == 0);
}

TEST_CASE(
    "TestStdinBadfiledescriptor.test_pool_in_process: a pool beside processes that are "
    "running",
    "[conformance][pool][nested]") {
  std::vector<procpool::Process> processes;
  for (int i = 0; i < 3; ++i) processes.emplace_back(pool_in_process).start();
  procpool::Pool pool{2};
  CHECK(pool.map(square, numbers(100)) == squares(100));
  for (auto& process : processes) {
    process.join();
    CHECK(process.exitcode() == 0);
  }
}

TEST_CASE(
    "TestStdinBadfiledescriptor.test_pool_in_process: a worker that dies takes its own pool "
    "with it",
    "[conformance][pool][nested][processes]") {
  procpool::Pool pool{1};
  CHECK_THROWS_AS(pool.apply([] {
    procpool::Pool inner{2};
    inner.apply(square, 5);
    _exit(3);
  }),
                  procpool::WorkerDied);
  CHECK(pool.apply(square, 5) == 25);
}
