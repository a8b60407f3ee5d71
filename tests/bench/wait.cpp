// SPDX-License-Identifier: MIT
/// @file
/// What waiting for many results costs, for each of them, when there are more and more.
#include <cstddef>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

using results = std::vector<procpool::AsyncResult<void>>;

void nothing() {}

results submitted(procpool::Pool<>& pool, std::size_t tasks) {
  results all;
  all.reserve(tasks);
  for (std::size_t i = 0; i < tasks; ++i) all.push_back(pool.apply_async(nothing));
  return all;
}

void take_as_completed(const results& all) {
  std::size_t count = 0;
  for (auto& each : procpool::as_completed(all)) count += each.ready() ? 1U : 0U;
  bench::require(count == all.size(), "as_completed");
}

void take_by_wait(const results& all) {
  bench::require(procpool::wait(all).done.size() == all.size(), "wait");
}

void take_by_first_exception(const results& all) {
  const auto found = procpool::wait(all, procpool::FIRST_EXCEPTION);
  bench::require(found.done.size() == all.size(), "wait for the first exception");
}

// From the submission to the last result; then for results that are there.
template <std::size_t Tasks, void Take(const results&)>
void take(const char* measure, const char* ready_measure) {
  const std::size_t tasks = bench::scaled(Tasks, Tasks / 10);
  const int times = tasks > 500'000 ? 3 : 9;
  const std::string who = "procpool " + std::to_string(Tasks);
  const auto each = [&](double cost) { return cost / static_cast<double>(tasks); };
  procpool::Pool pool{2};
  Take(submitted(pool, tasks));
  bench::report(measure, who.c_str(),
                each(bench::median_ns(times, [&] { Take(submitted(pool, tasks)); })), "ns");
  const results ready = submitted(pool, tasks);
  Take(ready);
  bench::report(ready_measure, who.c_str(), each(bench::median_ns(times, [&] { Take(ready); })),
                "ns");
}

template <std::size_t Tasks>
void as_completed() {
  take<Tasks, take_as_completed>("as_completed", "as_completed_ready");
}
template <std::size_t Tasks>
void wait() {
  take<Tasks, take_by_wait>("wait", "wait_ready");
}
template <std::size_t Tasks>
void first_exception() {
  take<Tasks, take_by_first_exception>("first_exception", "first_exception_ready");
}

}  // namespace

BENCH_MAIN({"as_completed_10000", as_completed<10'000>},
           {"as_completed_100000", as_completed<100'000>},
           {"as_completed_1000000", as_completed<1'000'000>}, {"wait_10000", wait<10'000>},
           {"wait_100000", wait<100'000>}, {"wait_1000000", wait<1'000'000>},
           {"first_exception_10000", first_exception<10'000>},
           {"first_exception_100000", first_exception<100'000>},
           {"first_exception_1000000", first_exception<1'000'000>})
