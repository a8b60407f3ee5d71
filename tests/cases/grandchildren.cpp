// SPDX-License-Identifier: MIT
// A task starts a command, another one a Process, and each is too late: its worker is killed. Exits
// with 0 when what they started is gone with the pool at the latest, with 1 when it lives on.
#include <procpool/procpool.hpp>

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace std::chrono_literals;

int command() {
  return std::system("sleep 20");
}
int process() {
  procpool::Process child{[] { std::this_thread::sleep_for(20s); }};
  child.start();
  child.join();
  return 0;
}

bool left_after(int (*task)()) {
  int ends[2];
  if (pipe(ends) != 0) return true;  // whoever descends from the pool and lives has the writing end
  {
    procpool::Pool pool{2};
    close(ends[1]);
    static_cast<void>(pool.apply_async({.timeout = 300ms}, task).exception());
  }
  pollfd closed{ends[0], 0, 0};  // POLLHUP: nobody has it any more
  return poll(&closed, 1, 1000) == 0;
}

int main() {
  const bool first = left_after(command), second = left_after(process);
  std::printf("left after the end of the pool: the command %d, the Process %d\n", first, second);
  return first || second ? 1 : 0;
}
