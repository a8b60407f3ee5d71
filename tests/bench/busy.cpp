// SPDX-License-Identifier: MIT
/// @file
/// CPU-bound tasks in a pool.
#include <cstdint>
#include <vector>

#include <procpool/procpool.hpp>

#include "busy.hpp"

namespace {

class runner {
 public:
  static constexpr const char* name = "procpool";

  std::uint64_t operator()(const std::vector<std::uint64_t>& tasks) {
    std::vector<procpool::AsyncResult<std::uint64_t>> results;
    results.reserve(tasks.size());
    for (const std::uint64_t task : tasks) {
      results.push_back(pool_.apply_async(bench::spin_work, task));
    }
    std::uint64_t sum = 0;
    for (auto& result : results) sum += result.get();
    return sum;
  }

 private:
  procpool::Pool<> pool_{bench::busy_workers};
};

using busy = bench::busy<runner>;

}  // namespace

BENCH_MAIN({"busy_50_us", busy::task_50_us}, {"busy_1_ms", busy::task_1_ms}, {"mixed", busy::mixed})
