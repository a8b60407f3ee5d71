// SPDX-License-Identifier: MIT
/// @file
/// Arrays in shared memory: what the hand-over costs, and what a map over the slices of one costs.
#include <cstddef>
#include <span>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

using procpool::SharedArray;

std::size_t size_of(SharedArray<const double> array) {
  return array.size();
}
void halve(std::span<double> values) {
  for (double& x : values) x *= 0.5;
}
void halve_part(SharedArray<double> part) {
  halve(part);
}

// Handles of a small and a large array in turn, to two workers that are awake.
void handover() {
  procpool::Pool pool{2};
  const SharedArray<double> small((1 << 10) / sizeof(double));
  const SharedArray<double> large((std::size_t{1} << 30) / sizeof(double));
  const int calls = bench::scaled(2000, 100);
  const auto time_of = [&](const SharedArray<const double>& array) {
    return bench::nanoseconds([&] {
             for (int i = 0; i < calls; ++i) {
               bench::require(pool.apply(size_of, array) == array.size(), "size");
             }
           }) /
           calls;
  };
  std::vector<double> of_small;
  std::vector<double> of_large;
  for (int round = 0; round < bench::scaled(11, 3); ++round) {
    of_small.push_back(time_of(small));
    of_large.push_back(time_of(large));
  }
  bench::report("array_handover", "1 KiB", bench::median(of_small), "ns");
  bench::report("array_handover", "1 GiB", bench::median(of_large), "ns");
}

// The same pass over 1 GiB by a pool's two workers, and by two threads of this process.
void map() {
  procpool::Pool pool{2};
  const std::size_t count =
      bench::scaled(std::size_t{1} << 30, std::size_t{64} << 20) / sizeof(double);
  const SharedArray<double> data(count);
  const auto slices = data.slices(64);
  const auto by_threads = [&] {
    std::jthread other([&] { halve(data.span().subspan(0, count / 2)); });
    halve(data.span().subspan(count / 2));
  };
  const auto by_pool = [&] { pool.map(halve_part, slices); };
  by_threads();  // the first touch
  by_pool();     // the workers map it
  std::vector<double> threads;
  std::vector<double> workers;
  for (int round = 0; round < bench::scaled(9, 3); ++round) {
    threads.push_back(bench::nanoseconds(by_threads) / 1e6);
    workers.push_back(bench::nanoseconds(by_pool) / 1e6);
  }
  bench::report("array_map", "two threads", bench::median(threads), "ms");
  bench::report("array_map", "procpool", bench::median(workers), "ms");
}

}  // namespace

BENCH_MAIN({"array_handover", handover}, {"array_map", map})
