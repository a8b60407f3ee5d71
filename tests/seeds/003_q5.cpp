// SPDX-License-Identifier: MIT
#include <fmt/ranges.h>

#include <vector>

#include <procpool/procpool.hpp>

long square(long x) {
  return x * x;
}

int main() {
  // creating a pool with 3 worker processes
  procpool::Pool pool{3};
  // applying the square function to a list of numbers
  const auto result = pool.map(square, std::vector<long>{1, 2, 3, 4, 5});
  fmt::print("Result: {}\n", result);
}
