// SPDX-License-Identifier: MIT
// A second translation unit with a pool of its own.
#include <fmt/ranges.h>

#include <procpool/procpool.hpp>
#include <vector>

void print_doubles() {
  procpool::Pool pool{2};
  const std::vector<int> numbers{1, 2, 3};
  fmt::print("Doubles: {}\n", pool.map([](int x) { return 2 * x; }, numbers));
}
