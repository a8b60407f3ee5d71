// SPDX-License-Identifier: MIT
// Workers that cannot come up: a limit on their memory needs /proc, and the program lives in an
// empty root folder. Tasks that nobody began are not said to have killed a worker: the pool is
// broken. 0: BrokenPool or ProcessError. 1: WorkerDied. 77: no root folder can be chosen here.
#include <sched.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <procpool/procpool.hpp>
#include <vector>

namespace {

int leaf(int x) {
  return x + 1;
}

bool choose_empty_root() {
  char jail[] = "/tmp/jail-XXXXXX";
  if (mkdtemp(jail) == nullptr || (geteuid() != 0 && unshare(CLONE_NEWUSER) != 0)) return false;
  return chroot(jail) == 0 && chdir("/") == 0;
}

}  // namespace

int main() {
  if (!choose_empty_root()) return 77;
  int died = 0;
  try {
    procpool::Pool pool{{.processes = 2, .max_resident = std::size_t{1} << 30}};
    for (auto& each : pool.map_outcomes(leaf, std::vector<int>(8, 1))) {
      try {
        static_cast<void>(each.value());
      } catch (const procpool::WorkerDied& error) {
        if (died++ == 0) std::puts(error.what());
      } catch (const procpool::BrokenPool&) {
      }
    }
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  std::printf("%d of 8 tasks that never began were said to have killed their worker\n", died);
  return died == 0 ? 0 : 1;
}
