// SPDX-License-Identifier: MIT
// All workers of a pool die, while the system refuses new processes for a second (pids.max or
// ulimit -u is reached). 0: they are replaced when that is over. 1: the pool is broken.
// 77: there is no limit for this user.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <procpool/procpool.hpp>
#include <thread>

int main() {
  // The limit holds for ordinary users only.
  if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 77;
  procpool::Pool pool{4};
  const pid_t server = pool.apply([] { return getppid(); });  // starts the workers
  rlimit before{};
  getrlimit(RLIMIT_NPROC, &before);
  const rlimit none{1, before.rlim_max};
  if (prlimit(server, RLIMIT_NPROC, &none, nullptr) != 0) return 77;
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    prlimit(server, RLIMIT_NPROC, &before, nullptr);
  });
  int died = 0;
  int fine = 0;
  int broken = 0;
  for (int i = 0; i < 8; ++i) {
    try {
      pool.apply(
          [](int k) {
            if (k < 4) kill(getpid(), SIGKILL);
            return k;
          },
          i);
      ++fine;
    } catch (const procpool::WorkerDied&) {
      ++died;
    } catch (const procpool::BrokenPool& error) {
      if (broken++ == 0) std::puts(error.what());
    }
  }
  std::printf("died %d, fine %d, broken %d\n", died, fine, broken);
  return broken == 0 && fine == 4 ? 0 : 1;
}
