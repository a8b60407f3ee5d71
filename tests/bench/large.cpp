// SPDX-License-Identifier: MIT
/// @file
/// 64 MiB there and back.
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

constexpr std::size_t bytes = std::size_t{64} << 20;
constexpr std::size_t count = bytes / sizeof(double);

double ends_of(const std::vector<double>& values) {
  return values.front() + values[values.size() / 2] + values.back();
}
double ends_of_view(std::span<const double> values) {
  return values.front() + values[values.size() / 2] + values.back();
}

std::vector<double> kept;  // in the worker: what it answers with is not made anew each time
std::vector<double> answer() {
  return kept;
}
const std::vector<double>& answer_with_it() {
  return kept;
}
void fill() {
  kept.resize(count);
  std::iota(kept.begin(), kept.end(), 0.0);
}

std::vector<double> values() {
  std::vector<double> made(count);
  std::iota(made.begin(), made.end(), 0.0);
  return made;
}

template <class Call>
void report(const char* measure, Call call) {
  for (int i = 0; i < 3; ++i) call();
  bench::report(measure, "procpool",
                static_cast<double>(bytes) / bench::median_ns(bench::scaled(9, 3), call), "GB/s");
}

procpool::pool_options keeping(std::optional<std::size_t> memory) {
  return {.processes = 2, .keep_memory = memory};
}
constexpr std::size_t enough = std::size_t{256} << 20;

void argument_in(const char* measure, std::optional<std::size_t> memory) {
  procpool::Pool pool{keeping(memory)};
  const auto sent = values();
  const double expected = ends_of(sent);
  report(measure, [&] { bench::require(pool.apply(ends_of, sent) == expected, "argument"); });
}
void argument() {
  argument_in("large_argument", std::nullopt);
}
void argument_again() {
  argument_in("large_argument_again", enough);
}

void argument_view() {
  procpool::Pool pool{2};
  const auto sent = values();
  const double expected = ends_of(sent);
  report("large_view", [&] { bench::require(pool.apply(ends_of_view, sent) == expected, "view"); });
}

void result_in(const char* measure, std::optional<std::size_t> memory) {
  fill();
  procpool::Pool pool{keeping(memory)};  // the workers have it from here
  const double expected = ends_of(kept);
  report(measure, [&] { bench::require(ends_of(pool.apply(answer)) == expected, "result"); });
}
void result() {
  result_in("large_result", std::nullopt);
}
void result_again() {
  result_in("large_result_again", enough);
}

// A vector that the worker has already: the function touches no fresh memory, as memcpy does not.
void result_kept() {
  fill();
  procpool::Pool pool{2};
  const double expected = ends_of(kept);
  report("large_kept",
         [&] { bench::require(ends_of(pool.apply(answer_with_it)) == expected, "result"); });
}

}  // namespace

BENCH_MAIN({"large_argument", argument}, {"large_argument_again", argument_again},
           {"large_view", argument_view}, {"large_result", result},
           {"large_result_again", result_again}, {"large_kept", result_kept})
