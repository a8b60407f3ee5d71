// SPDX-License-Identifier: MIT
/// @file
/// What the benchmark programs have in common. A program is called as `program MEASURE...` and
/// prints one JSON line for each figure; a wrong result ends it with status 1.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace bench {

using clock_type = std::chrono::steady_clock;

/// Set by `--quick`: less of everything, to see whether it works.
inline bool quick = false;
/// Set by `--per-us N`: turns of spin_work() in a microsecond; the driver measures it once, so that
/// all contenders do the same work.
inline double turns_per_us = 500;

inline void require(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::exit(1);
}

/// One figure. @param who the contender
inline void report(const char* measure, const char* who, double value, const char* unit) {
  std::printf(R"({"measure": "%s", "who": "%s", "value": %.6g, "unit": "%s"})"
              "\n",
              measure, who, value, unit);
  std::fflush(stdout);
}

/// Nanoseconds that @p work takes.
template <class Work>
double nanoseconds(Work&& work) {
  const auto begin = clock_type::now();
  work();
  return std::chrono::duration<double, std::nano>(clock_type::now() - begin).count();
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// The median of what @p work takes, of @p times runs.
template <class Work>
double median_ns(int times, Work&& work) {
  std::vector<double> values;
  for (int i = 0; i < times; ++i) values.push_back(nanoseconds(work));
  return median(std::move(values));
}

/// The median for one call of something that is too short for the clock.
template <class Work>
double median_ns_of_short(int batches, int batch, Work&& work) {
  return median_ns(batches,
                   [&] {
                     for (int i = 0; i < batch; ++i) work();
                   }) /
         batch;
}

template <class Int>
Int scaled(Int full, Int short_run) {
  return quick ? short_run : full;
}

/// Work that only a CPU can do; the result tells whether it was done.
[[gnu::noinline]] inline std::uint64_t spin_work(std::uint64_t turns) {
  std::uint64_t x = 88172645463325252ULL;
  for (std::uint64_t i = 0; i < turns; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    asm volatile("" : "+r"(x));  // not pure: no call may be left out because of an equal one
  }
  return x;
}

inline std::uint64_t turns(double microseconds) {
  return static_cast<std::uint64_t>(microseconds * turns_per_us);
}

struct measure {
  std::string_view name;
  void (*run)();
};

inline int main_of(std::span<char*> words, std::span<const measure> measures) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--quick") {
      quick = true;
    } else if (word == "--per-us" && i + 1 < words.size()) {
      turns_per_us = std::atof(words[++i]);
    } else {
      const auto found = std::ranges::find(measures, word, &measure::name);
      require(found != measures.end(), "no such measure");
      found->run();
    }
  }
  return 0;
}

}  // namespace bench

/// The rest of a program: BENCH_MAIN({"name", function}, ...)
#define BENCH_MAIN(...)                                                                      \
  int main(int argc, char** argv) {                                                          \
    static constexpr bench::measure measures[] = {__VA_ARGS__};                              \
    return bench::main_of(std::span<char*>(argv, static_cast<std::size_t>(argc)), measures); \
  }
