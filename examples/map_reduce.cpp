// SPDX-License-Identifier: MIT
//
// map_reduce: the workers combine their results before they send them, so that the program gets one
// result for each chunk instead of one for each item.
//
//     with multiprocessing.Pool(4) as pool:
//         print(functools.reduce(add_up, pool.map(letters, words)))

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <ranges>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

using histogram = std::map<char, long>;

/// The value of a single item, to be added up.
histogram letters(const std::string& word) {
  histogram counts;
  for (const char letter : word) ++counts[letter];
  return counts;
}

histogram add_up(histogram sum, const histogram& more) {
  for (const auto& [letter, times] : more) sum[letter] += times;
  return sum;
}

/// A slice of the area under 4 / (1 + x^2) between 0 and 1, which is pi.
double slice(int number) {
  const double x = (number + 0.5) / 1'000'000;
  return 4 / (1 + x * x) / 1'000'000;
}

int main() {
  procpool::Pool pool{4};
  const std::vector<std::string> words{"map", "and", "reduce", "and", "map", "again"};
  fmt::print("{}\n", pool.map_reduce(letters, words, add_up));

  // Sums of floating-point numbers depend only on where the chunks begin. With a given chunk size
  // they are the same for any number of workers.
  const auto pi = [](int workers) {
    procpool::Pool some{workers};
    return some.map_reduce(slice, std::views::iota(0, 1'000'000), std::plus<double>(),
                           {.chunksize = 10'000});
  };
  fmt::print("pi is {:.10f}, the same by 1 and by 3 workers: {}\n", pi(1), pi(1) == pi(3));

  // Without items the result is the initial value; without an initial value it is an error.
  const std::vector<std::string> none;
  fmt::print("{}\n", pool.map_reduce(letters, none, add_up, histogram{{'a', 1}}));
  try {
    pool.map_reduce(letters, none, add_up);
  } catch (const std::invalid_argument& error) {
    fmt::print("{}\n", error.what());
  }

  // As with map, the first failure by index is thrown.
  try {
    pool.map_reduce([](int x) { return x == 7 ? std::abort(), 0 : x; }, std::views::iota(0, 20),
                    [](int a, int b) { return std::max(a, b); });
  } catch (const procpool::WorkerDied& died) {
    fmt::print("item {} ended its worker\n", died.item().value());
  }
}
