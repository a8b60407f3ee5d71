// SPDX-License-Identifier: MIT
/// @file
/// Starts and deaths of workers.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

long square(long x) {
  return x * x;
}
pid_t own_pid() {
  return getpid();
}

// From nothing to the first result, without the end of the pool.
double pool_start(procpool::start_method method) {
  const auto begin = bench::clock_type::now();
  procpool::Pool pool{{.processes = 2, .start_method = method}};
  bench::require(pool.apply(square, 7L) == 49, "apply");
  return std::chrono::duration<double, std::milli>(bench::clock_type::now() - begin).count();
}

// From fork() to the child's first word. The child's end is not counted either.
double fork_start() {
  int ends[2];
  bench::require(pipe(ends) == 0, "pipe");
  const auto begin = bench::clock_type::now();
  const pid_t child = fork();
  if (child == 0) {
    static_cast<void>(!write(ends[1], "", 1));
    _exit(0);
  }
  char word = 0;
  bench::require(child > 0 && read(ends[0], &word, 1) == 1, "fork");
  const std::chrono::duration<double, std::milli> cost = bench::clock_type::now() - begin;
  close(ends[0]);
  close(ends[1]);
  waitpid(child, nullptr, 0);
  return cost.count();
}

void starts(const char* measure, int times) {
  std::vector<double> pools;
  std::vector<double> spawned;
  std::vector<double> forks;
  for (int i = 0; i < times; ++i) {
    pools.push_back(pool_start(procpool::start_method::fork));
    spawned.push_back(pool_start(procpool::start_method::spawn));
    forks.push_back(fork_start());
  }
  bench::report(measure, "procpool", bench::median(pools), "ms");
  bench::report(measure, "spawn", bench::median(spawned), "ms");
  bench::report(measure, "fork", bench::median(forks), "ms");
}

void start_small() {
  starts("start_small", bench::scaled(41, 5));
}

// In pages of 4 KiB, as a heap that has grown has them: the more page tables, the dearer a fork.
void start_1_gib() {
  constexpr std::size_t size = std::size_t{1} << 30;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bench::require(memory != MAP_FAILED, "mmap");
  madvise(memory, size, MADV_NOHUGEPAGE);
  std::memset(memory, 1, size);
  starts("start_1_gib", bench::scaled(11, 3));
}

// From the kill to the answer of the next worker. The dead one may have been given the call, so it
// may be tried again.
void death() {
  procpool::Pool pool{1};
  std::vector<double> costs;
  for (int i = 0; i < bench::scaled(51, 9); ++i) {
    const pid_t before = pool.apply(own_pid);
    const auto begin = bench::clock_type::now();
    bench::require(kill(before, SIGKILL) == 0, "kill");
    while (pool.apply({.retries = 3}, own_pid) == before) {
    }
    const std::chrono::duration<double, std::milli> cost = bench::clock_type::now() - begin;
    costs.push_back(cost.count());
  }
  bench::report("death", "procpool", bench::median(costs), "ms");
}

// Says when the pool is idle, and waits until the driver, which looks at it from outside, has seen
// enough.
void idle() {
  procpool::Pool pool{64};
  std::vector<long> numbers(6400);
  bench::require(pool.map(square, numbers, {.chunksize = 1}).size() == 6400, "map");
  std::puts("idle");
  std::fflush(stdout);
  std::string word;
  std::getline(std::cin, word);
}

}  // namespace

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  static constexpr bench::measure measures[] = {
      {"start_small", start_small}, {"start_1_gib", start_1_gib}, {"death", death}, {"idle", idle}};
  return bench::main_of(std::span<char*>(argv, static_cast<std::size_t>(argc)), measures);
}
