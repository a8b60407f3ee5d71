// SPDX-License-Identifier: MIT
// A task closes all descriptors above 2, as code does that prepares a daemon, and returns. Exits
// with 0 when that costs this item or none, with 1 when a later, innocent one ends with WorkerDied.
#include <procpool/procpool.hpp>

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

int close_all() {
  return static_cast<int>(syscall(SYS_close_range, 3U, ~0U, 0U));
}
std::string innocent() {
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the program sleeps by now
  return std::string(3'000'000, 'x');                          // longer than the worker's ring
}

int main() {
  for (int round = 0; round < 20; ++round) {
    procpool::Pool pool{1};
    try {
      pool.apply(close_all);
    } catch (const procpool::WorkerDied&) {
      continue;  // the one who did it: as documented
    }
    try {
      pool.apply(innocent);
    } catch (const procpool::WorkerDied& died) {
      std::printf("round %d: %s\n", round, died.what());
      return 1;
    }
  }
  return 0;
}
