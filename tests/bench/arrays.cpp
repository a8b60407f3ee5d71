// SPDX-License-Identifier: MIT
/// @file
/// Arrays in shared memory: what the hand-over costs, and what a map over the slices of one costs.
#include <chrono>
#include <cstddef>
#include <cstring>
#include <span>
#include <thread>
#include <utility>
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

constexpr std::size_t bytes = std::size_t{64} << 20;
constexpr std::size_t count = bytes / sizeof(double);

// In the worker: made and filled before the clock runs, as memcpy has its source.
procpool::shared_vector<double> vector_to_give;
SharedArray<double> array_to_give;

void prepare_vector() {
  vector_to_give = procpool::shared_vector<double>(count);
  for (double& x : vector_to_give) x = 1;
}
procpool::shared_vector<double> give_vector() {
  return std::move(vector_to_give);
}
void prepare_array() {
  if (array_to_give.empty()) array_to_give = SharedArray<double>(count);
  for (double& x : array_to_give) x = 1;
}
SharedArray<const double> give_array() {
  return array_to_give;
}

// One element of each page: every page is mapped and read.
double touch(std::span<const double> values) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); i += 4096 / sizeof(double)) sum += values[i];
  return sum;
}

template <class Prepare, class Give>
void result(const char* measure, Prepare prepare, Give give) {
  procpool::Pool pool{1};
  std::vector<double> handed_over;
  std::vector<double> read;
  for (int round = 0; round < bench::scaled(15, 3); ++round) {
    pool.apply(prepare);
    const auto begin = bench::clock_type::now();
    const auto values = pool.apply(give);
    const auto there = bench::clock_type::now();
    const double sum = touch(std::span<const double>(values.begin(), values.size()));
    const auto end = bench::clock_type::now();
    bench::require(sum == static_cast<double>(bytes / 4096), "values");
    handed_over.push_back(std::chrono::duration<double, std::nano>(there - begin).count());
    read.push_back(std::chrono::duration<double, std::nano>(end - begin).count());
  }
  bench::report(measure, "handed over", static_cast<double>(bytes) / bench::median(handed_over),
                "GB/s");
  bench::report(measure, "and read", static_cast<double>(bytes) / bench::median(read), "GB/s");
}
void sealed() {
  result("vector_sealed", prepare_vector, give_vector);
}
void live() {
  result("vector_live", prepare_array, give_array);
}

// From one place that is warm to another.
void copy() {
  const std::vector<double> from(count, 1.0);
  std::vector<double> to(count, 2.0);
  const auto once = [&] {
    std::memcpy(to.data(), from.data(), bytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  };
  const double ns = bench::median_ns(bench::scaled(15, 3), once);
  for (const char* measure : {"vector_sealed", "vector_live"}) {
    bench::report(measure, "memcpy", static_cast<double>(bytes) / ns, "GB/s");
  }
}

}  // namespace

BENCH_MAIN({"array_handover", handover}, {"array_map", map}, {"vector_sealed", sealed},
           {"vector_live", live}, {"vector_copy", copy})
