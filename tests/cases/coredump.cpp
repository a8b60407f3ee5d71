// SPDX-License-Identifier: MIT
// A worker that crashes where core dumps are on must not dump the shared memory of the whole pool,
// 320 MiB of address space that the kernel would make resident for it.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <procpool/procpool.hpp>

static long shared_memory_kib() {
  std::ifstream info("/proc/meminfo");
  for (std::string word; info >> word;) {
    long kib = 0;
    if (word == "Shmem:" && info >> kib) return kib;
  }
  return 0;
}

static int crash() {
  std::abort();
}

int main() {
  std::string folder = std::filesystem::temp_directory_path() / "procpool-core-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr || chdir(folder.c_str()) != 0) return 2;
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_CORE, &all) != 0) return 77;
  long grown = 0;
  {
    procpool::Pool pool{2};
    pool.apply([](int i) { return i; }, 1);
    const long before = shared_memory_kib();
    try {
      pool.apply(crash);
    } catch (const procpool::WorkerDied&) {
    }
    grown = shared_memory_kib() - before;
  }
  std::uintmax_t largest = 0;
  for (const auto& each : std::filesystem::directory_iterator(folder)) {
    largest = std::max(largest, each.file_size());
  }
  std::filesystem::remove_all(folder);
  std::printf("core file of %ju MiB, %ld MiB of shared memory\n", largest >> 20, grown >> 10);
  return grown > 100 * 1024 || largest > (std::uintmax_t{100} << 20) ? 1 : 0;
}
