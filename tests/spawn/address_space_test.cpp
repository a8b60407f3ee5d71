// SPDX-License-Identifier: MIT
// Pools in little address space (RLIMIT_AS, `ulimit -v`), forked and spawned, and which of their
// shared memory a core dump has in it.
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/sanitizers.hpp"

namespace {

using procpool::start_method;

long square(long x) {
  return x * x;
}

std::size_t length(const std::string& text) {
  return text.size();
}

std::string repeated(std::size_t times) {
  return std::string(times, 'r');
}

/// KiB of the file mappings of memfds: all, and those that a core dump takes.
struct shared_kib {
  long all = 0;
  long dumped = 0;
};

shared_kib shared_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
  shared_kib sum;
  bool ours = false;
  long size = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first.find('-') != std::string::npos) ours = line.find("memfd:procpool") != line.npos;
    if (first == "Size:") words >> size;
    if (first != "VmFlags:" || !ours) continue;
    sum.all += size;
    if (line.find(" dd") == line.npos) sum.dumped += size;
  }
  return sum;
}

void limit_address_space(std::uint64_t more) {
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages = 0;
  CHILD_REQUIRE(static_cast<bool>(file >> pages));
  rlimit limit{};
  CHILD_REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
  limit.rlim_cur = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + more;
  CHILD_REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
}

/// Everything that a pool does with its memory: many small, large arguments, large results.
bool pool_works(start_method method, int workers) {
  procpool::Pool pool{{.processes = workers, .start_method = method}};
  const auto results = pool.map(square, std::views::iota(0L, 1000L));
  if (std::reduce(results.begin(), results.end()) != 332'833'500) return false;
  const std::string large(300'000, 'x');
  if (pool.apply(length, large) != large.size()) return false;
  return pool.apply(repeated, std::size_t{300'000}).size() == 300'000;
}

}  // namespace

TEST_CASE("A pool fits into the address space that is left", "[spawn][limit:120]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("sanitizers need terabytes");
  for (const start_method method : {start_method::fork, start_method::spawn}) {
    for (const int workers : {1, 8, 40}) {
      for (const std::uint64_t mib : {24U, 64U, 290U, 400U}) {
        const int code = support::run_child([&] {
          limit_address_space(mib << 20);
          return pool_works(method, workers) ? 0 : 1;
        });
        INFO(mib << " MiB, " << workers << " workers, spawn " << (method == start_method::spawn));
        CHECK(code == 0);
      }
    }
  }
}

TEST_CASE("Several pools share what is left of the address space", "[spawn]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("sanitizers need terabytes");
  const int code = support::run_child([] {
    limit_address_space(100 << 20);
    procpool::Pool first{4};
    procpool::Pool second{4};
    CHILD_REQUIRE(pool_works(start_method::fork, 4));
    CHILD_REQUIRE(first.apply(square, 3L) == 9 && second.apply(square, 4L) == 16);
    // A nested pool: its workers have the address space of the worker.
    return first.apply([] { return pool_works(start_method::fork, 2); }) ? 0 : 1;
  });
  CHECK(code == 0);
}

TEST_CASE("A core dump leaves out the shared memory that is not the process's own", "[spawn]") {
  for (const start_method method : {start_method::fork, start_method::spawn}) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    const auto worker = shared_of(pool.apply(getpid));
    const auto program = shared_of(getpid());
    std::printf("shared KiB: program %ld, of which dumped %ld; worker %ld, %ld\n", program.all,
                program.dumped, worker.all, worker.dumped);
    CHECK(program.all > 100'000);
    CHECK(program.dumped == 0);
    CHECK(worker.all > 100'000);
    CHECK(worker.dumped > 256);  // its own results
    CHECK(worker.dumped < 400);
  }
}
