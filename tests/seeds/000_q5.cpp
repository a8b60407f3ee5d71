// SPDX-License-Identifier: MIT
#include <fmt/ranges.h>

#include <vector>

#include <procpool/procpool.hpp>

long square(long number) {
  return number * number;
}

int main() {
  procpool::Pool pool{4};
  const std::vector<long> numbers{1, 2, 3, 4, 5};
  const auto results = pool.map(square, numbers);
  fmt::print("Squares: {}\n", results);
}
