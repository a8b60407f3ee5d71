// SPDX-License-Identifier: MIT
/// @file
/// The speed floor: what the cheapest things cost. Prints medians and the spread; asserts nothing.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <procpool/procpool.hpp>

namespace {

using clock_type = std::chrono::steady_clock;

long square(long x) {
  return x * x;
}
void nothing() {}

/// Nanoseconds that @p work takes.
double nanoseconds(const std::function<void()>& work) {
  const auto begin = clock_type::now();
  work();
  return std::chrono::duration<double, std::nano>(clock_type::now() - begin).count();
}

/// Runs @p work @p times and prints the median and the range of its cost for one of @p units.
void report(const std::string& what, const char* unit, double divisor, int times,
            const std::function<void()>& work) {
  std::vector<double> costs;
  for (int i = 0; i < times; ++i) costs.push_back(nanoseconds(work) / divisor);
  std::ranges::sort(costs);
  fmt::print("{:<52} {:>10.3f} {} (min {:.3f}, max {:.3f}, n {})\n", what, costs[costs.size() / 2],
             unit, costs.front(), costs.back(), costs.size());
}

void pool_start() {
  procpool::Pool pool{2};
  if (pool.apply(square, 7L) != 49) std::abort();
}

void futures(procpool::Pool<>& pool, int tasks) {
  std::vector<procpool::AsyncResult<void>> results;
  results.reserve(static_cast<std::size_t>(tasks));
  for (int i = 0; i < tasks; ++i) results.push_back(pool.apply_async(nothing));
  for (auto& result : results) result.get();
}

void squares(procpool::Pool<>& pool, const std::vector<long>& numbers,
             const procpool::map_options& options) {
  if (pool.map(square, numbers, options).back() != square(numbers.back())) std::abort();
}

}  // namespace

int main() {
  report("Pool(2): construction to first result", "ms", 1e6, 21, pool_start);
  procpool::Pool pool{2};
  pool.apply(nothing);
  report("apply of an empty function, worker spinning", "us", 1e3, 20'000,
         [&] { pool.apply(nothing); });
  constexpr int tasks = 200'000;
  report("apply_async + get of 200,000 empty tasks, each", "ns", tasks, 7,
         [&] { futures(pool, tasks); });
  std::vector<long> numbers(1'000'000);
  std::iota(numbers.begin(), numbers.end(), 0);
  report("map over 1,000,000 longs, default chunks, each", "ns", 1e6, 21,
         [&] { squares(pool, numbers, {}); });
  report("map over 1,000,000 longs, chunksize 1, each", "ns", 1e6, 3,
         [&] { squares(pool, numbers, {.chunksize = 1}); });
}
