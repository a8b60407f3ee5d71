// SPDX-License-Identifier: MIT
/// @file
/// What one call costs whose result is waited for.
#include <chrono>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

long next(long x) {
  return x + 1;
}
void nothing() {}

// The worker spins: the next call comes at once.
void awake() {
  procpool::Pool pool{2};
  bench::require(pool.apply(next, 41L) == 42, "apply");
  bench::nanoseconds([&] {
    for (int i = 0; i < 1000; ++i) pool.apply(nothing);
  });
  const double cost =
      bench::median_ns_of_short(bench::scaled(400, 40), 100, [&] { pool.apply(nothing); });
  bench::report("apply_awake", "procpool", cost, "ns");
}

void after_idleness() {
  procpool::Pool pool{2};
  bench::require(pool.apply(next, 41L) == 42, "apply");
  std::vector<double> costs;
  for (int i = 0; i < bench::scaled(100, 10); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    costs.push_back(bench::nanoseconds([&] { pool.apply(nothing); }));
  }
  bench::report("apply_idle", "procpool", bench::median(costs), "ns");
}

}  // namespace

BENCH_MAIN({"apply_awake", awake}, {"apply_idle", after_idleness})
