// SPDX-License-Identifier: MIT
#include <fmt/ranges.h>

#include <vector>

#include <procpool/procpool.hpp>

long square(long n) {
  return n * n;
}

int main() {
  procpool::Pool pool{{.processes = 5}};
  const auto output = pool.map(square, std::vector<long>{1, 2, 3});
  fmt::print("{}\n", output);
}
