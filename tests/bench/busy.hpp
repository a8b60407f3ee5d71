// SPDX-License-Identifier: MIT
/// @file
/// CPU-bound tasks: what all contenders do with them. Each gives a way to run a list of tasks, the
/// rest is the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "bench.hpp"

namespace bench {

/// Two workers each.
inline constexpr int busy_workers = 2;

inline std::uint64_t serially(const std::vector<std::uint64_t>& tasks) {
  std::uint64_t sum = 0;
  for (const std::uint64_t task : tasks) sum += spin_work(task);
  return sum;
}

/// Speed-up of @p run(tasks), the sum of the results, over a loop in this thread.
template <class Run>
void report_speedup(const char* measure, const char* who, double microseconds, Run run) {
  const std::vector<std::uint64_t> tasks(
      static_cast<std::size_t>(scaled(200'000.0, 20'000.0) / microseconds), turns(microseconds));
  const std::uint64_t expected = serially(tasks);
  require(run(tasks) == expected, "sum of the tasks");
  std::vector<double> speedups;
  for (int i = 0; i < 3; ++i) {
    const double before = nanoseconds([&] { require(serially(tasks) == expected, "sum"); });
    const double parallel = nanoseconds([&] { require(run(tasks) == expected, "sum"); });
    const double after = nanoseconds([&] { require(serially(tasks) == expected, "sum"); });
    speedups.push_back((before + after) / 2 / parallel);
  }
  report(measure, who, median(speedups), "x");
}

/// 1 % of the tasks are 100 times longer; where they come is chance, the same each time.
inline std::vector<std::uint64_t> mixed_tasks() {
  constexpr double shorter = 20;
  std::vector<std::uint64_t> tasks(scaled<std::size_t>(5'000, 500), turns(shorter));
  std::fill_n(tasks.begin(), tasks.size() / 100, turns(100 * shorter));
  std::mt19937 random(20260101);
  for (std::size_t i = tasks.size(); i > 1; --i) std::swap(tasks[i - 1], tasks[random() % i]);
  return tasks;
}

/// Time of @p run(tasks) over the ideal: all work shared evenly, and the longest task at the end.
template <class Run>
void report_mixed(const char* who, Run run) {
  const auto tasks = mixed_tasks();
  const auto whole = static_cast<double>(std::accumulate(tasks.begin(), tasks.end(), 0ULL));
  const double longest = static_cast<double>(std::ranges::max(tasks)) / whole;
  const std::uint64_t expected = serially(tasks);
  require(run(tasks) == expected, "sum of the tasks");
  std::vector<double> ratios;
  for (int i = 0; i < 3; ++i) {
    const double before = nanoseconds([&] { require(serially(tasks) == expected, "sum"); });
    const double parallel = nanoseconds([&] { require(run(tasks) == expected, "sum"); });
    const double after = nanoseconds([&] { require(serially(tasks) == expected, "sum"); });
    ratios.push_back(parallel / ((before + after) / 2 * (1.0 / busy_workers + longest)));
  }
  report("mixed", who, median(ratios), "x");
}

/// The measures of a contender whose Runner makes a way to run tasks.
template <class Runner>
struct busy {
  static void task_50_us() {
    Runner run;
    report_speedup("busy_50_us", Runner::name, 50, std::ref(run));
  }
  static void task_1_ms() {
    Runner run;
    report_speedup("busy_1_ms", Runner::name, 1000, std::ref(run));
  }
  static void mixed() {
    Runner run;
    report_mixed(Runner::name, std::ref(run));
  }
};

}  // namespace bench
