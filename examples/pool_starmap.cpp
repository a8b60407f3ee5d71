// SPDX-License-Identifier: MIT
//
// starmap: map for functions of several parameters; each item is a tuple of arguments.
//
//     with multiprocessing.Pool(2) as pool:
//         print(pool.starmap(pow, [(2, 3), (3, 2), (10, 3)]))

#include <fmt/ranges.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

long power(long base, int exponent) {
  long result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

std::string repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

int main() {
  procpool::Pool pool{2};
  const std::vector<std::tuple<long, int>> powers{{2, 3}, {3, 2}, {10, 3}};
  fmt::print("{}\n", pool.starmap(power, powers));

  const std::vector<std::pair<std::string, int>> words{{"ab", 2}, {"c", 5}};
  fmt::print("{}\n", pool.starmap(repeat, words));
}
