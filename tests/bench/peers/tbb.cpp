// SPDX-License-Identifier: MIT
/// @file
/// oneTBB's task_group on two threads, this one and another.
#if __has_include(<tbb/task_group.h>)
#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../busy.hpp"

namespace {

void nothing() {}

using control = tbb::global_control;

class runner {
 public:
  static constexpr const char* name = "oneTBB";

  std::uint64_t operator()(const std::vector<std::uint64_t>& tasks) {
    std::vector<std::uint64_t> results(tasks.size());
    tbb::task_group group;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      group.run([&results, &tasks, i] { results[i] = bench::spin_work(tasks[i]); });
    }
    group.wait();
    std::uint64_t sum = 0;
    for (const std::uint64_t result : results) sum += result;
    return sum;
  }

 private:
  control limit_{control::max_allowed_parallelism, bench::busy_workers};
};

void stream() {
  const control limit(control::max_allowed_parallelism, 2);
  const int tasks = bench::scaled(200'000, 20'000);
  std::atomic<int> ran{0};
  {
    tbb::task_group group;
    for (int i = 0; i < tasks; ++i) group.run([&ran] { ++ran; });
    group.wait();
  }
  bench::require(ran == tasks, "the number of tasks");
  const double cost = bench::median_ns(3, [&] {
    tbb::task_group group;
    for (int i = 0; i < tasks; ++i) group.run(nothing);
    group.wait();
  });
  bench::report("stream", "oneTBB", cost / tasks, "ns");
}

using busy = bench::busy<runner>;

}  // namespace

BENCH_MAIN({"stream", stream}, {"busy_50_us", busy::task_50_us}, {"busy_1_ms", busy::task_1_ms},
           {"mixed", busy::mixed})

#else
#include <cstdio>

int main() {
  std::puts("built without oneTBB (Debian: libtbb-dev)");
  return 77;
}
#endif
