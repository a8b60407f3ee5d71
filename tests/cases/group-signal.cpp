// SPDX-License-Identifier: MIT
// A signal that the program catches, sent to its whole process group, as service managers,
// timeout(1) and terminals do when a program is to end: the program means to drain its pool. Exits
// with 0 when the pool goes on. Argument: the number of the signal (default: SIGTERM).
#include <procpool/procpool.hpp>

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
long slowly(long x) {
  std::this_thread::sleep_for(300ms);
  return 2 * x;
}

int main(int argc, char** argv) {
  const int number = argc > 1 ? std::atoi(argv[1]) : SIGTERM;
  setpgid(0, 0);  // a group of our own, so that nobody else is hit
  signal(number, [](int) {});
  procpool::Pool pool{2};
  auto all = pool.map_outcomes_async(slowly, std::vector<long>{1, 2, 3, 4}, {.chunksize = 1});
  std::this_thread::sleep_for(100ms);
  kill(0, number);
  int values = 0;
  for (auto& outcome : all.get()) values += outcome ? 1 : 0;
  std::printf("%d of the 4 tasks under way have a value (best: 4)\n", values);
  bool works = false;
  try {
    works = pool.apply(slowly, 21) == 42;
  } catch (const procpool::BrokenPool&) {
  }
  std::printf("afterwards: %s\n", works ? "works" : "BrokenPool");
  return works ? 0 : 1;
}
