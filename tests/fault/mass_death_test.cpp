// SPDX-License-Identifier: MIT
// More deaths at one moment than the control socket has room for reports and for requests together.
#include <signal.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <numeric>
#include <ranges>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

long twice(long x) {
  return 2 * x;
}

std::vector<pid_t> workers_of_this_process() {
  std::vector<pid_t> pids;
  for (const auto& process : support::descendants_of(getpid())) {
    if (process.name == "procpool-worker" && !process.zombie()) pids.push_back(process.pid);
  }
  return pids;
}

}  // namespace

TEST_CASE("Eight hundred workers die at one moment and are replaced", "[fault][limit:240]") {
  constexpr std::size_t many = 800;
  procpool::Pool pool{
      {.processes = int{many}, .ring_bytes = 4 << 10, .arena_bytes = std::size_t{64} << 10}};
  REQUIRE(support::eventually([] { return workers_of_this_process().size() == many; }));
  const std::vector<pid_t> first = workers_of_this_process();
  for (const pid_t pid : first) kill(pid, SIGKILL);

  const auto results = pool.map(twice, std::views::iota(0L, 10'000L), {.chunksize = 5});
  CHECK(std::reduce(results.begin(), results.end()) == 10'000L * 9'999L);

  // Every place is filled again: the deaths are noticed while somebody waits.
  CHECK(support::eventually([&] {
    static_cast<void>(pool.apply(twice, 1L));
    return workers_of_this_process().size() == many;
  }));
  std::printf("mass death: %zu workers killed at one moment, %zu results right\n", first.size(),
              results.size());
}
