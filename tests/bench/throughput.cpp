// SPDX-License-Identifier: MIT
/// @file
/// What one of many tasks costs: streams of calls, maps, and the number of workers.
#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

void nothing() {}
long square(long x) {
  return x * x;
}
std::string reversed(const std::string& text) {
  return {text.rbegin(), text.rend()};
}

void futures(procpool::Pool<>& pool, int tasks) {
  std::vector<procpool::AsyncResult<void>> results;
  results.reserve(static_cast<std::size_t>(tasks));
  for (int i = 0; i < tasks; ++i) results.push_back(pool.apply_async(nothing));
  for (auto& result : results) result.get();
}

void stream() {
  const int tasks = bench::scaled(200'000, 20'000);
  procpool::Pool pool{2};
  auto last = pool.apply_async(square, 7L);
  bench::require(last.get() == 49, "apply_async");
  futures(pool, tasks / 10);
  const double cost = bench::median_ns(3, [&] { futures(pool, tasks); });
  bench::report("stream", "procpool", cost / tasks, "ns");
}

std::vector<long> numbers(std::size_t count) {
  std::vector<long> found(count);
  std::iota(found.begin(), found.end(), 0);
  return found;
}

void check_squares(const std::vector<long>& squares, std::size_t count) {
  bench::require(squares.size() == count, "the number of results");
  for (std::size_t i = 0; i < count; ++i) {
    bench::require(squares[i] == static_cast<long>(i * i), "a square");
  }
}

void map_single() {
  const auto items = numbers(bench::scaled<std::size_t>(200'000, 20'000));
  procpool::Pool pool{2};
  check_squares(pool.map(square, items, {.chunksize = 1}), items.size());
  pool.map([](long) {}, items, {.chunksize = 1});
  const double cost = bench::median_ns(5, [&] { pool.map([](long) {}, items, {.chunksize = 1}); });
  bench::report("map_single", "procpool", cost / static_cast<double>(items.size()), "ns");
}

template <class F>
void map_longs_by(const char* who, F function) {
  const auto items = numbers(1'000'000);
  procpool::Pool pool{2};
  std::vector<long> squares;
  for (int i = 0; i < 3; ++i) squares = pool.map(function, items);
  check_squares(squares, items.size());
  const double cost = bench::median_ns(bench::scaled(21, 5), [&] {
    bench::require(pool.map(function, items).back() == square(items.back()), "the last square");
  });
  bench::report("map_longs", who, cost / 1e6, "ns");
}

// The compiler sees into a lambda, and calls a function through a pointer.
void map_longs() {
  map_longs_by("procpool", square);
  map_longs_by("lambda", [](long x) { return x * x; });
}

void map_strings() {
  std::vector<std::string> items;
  for (int i = 0; i < 10'000; ++i) {
    std::string text = std::to_string(i);
    text.resize(100, 'x');
    items.push_back(std::move(text));
  }
  procpool::Pool pool{2};
  std::vector<std::string> results = pool.map(reversed, items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    bench::require(results[i] == reversed(items[i]), "a string");
  }
  const double cost = bench::median_ns(bench::scaled(21, 5), [&] {
    bench::require(pool.map(reversed, items).back().size() == 100, "the last string");
  });
  bench::report("map_strings", "procpool", cost / 1e4, "ns");
}

template <int Workers>
void crowd() {
  const int tasks = bench::scaled(50'000, 5'000);
  procpool::Pool pool{Workers};
  futures(pool, tasks / 5);
  const double cost = bench::median_ns(3, [&] { futures(pool, tasks); });
  bench::report("crowd", ("procpool " + std::to_string(Workers)).c_str(), cost / tasks, "ns");
}

}  // namespace

BENCH_MAIN({"stream", stream}, {"map_single", map_single}, {"map_longs", map_longs},
           {"map_strings", map_strings}, {"crowd_1", crowd<1>}, {"crowd_2", crowd<2>},
           {"crowd_4", crowd<4>}, {"crowd_16", crowd<16>}, {"crowd_64", crowd<64>},
           {"crowd_256", crowd<256>})
