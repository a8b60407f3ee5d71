// expect: returns nothing, so there is nothing to reduce
// expect: must take two of them and return one; let the function return what is accumulated
// expect: initial value of a map_reduce does not convert
// expect: holds something that cannot be sent as bytes
// SPDX-License-Identifier: MIT
#include <procpool/procpool.hpp>
#include <string>
#include <vector>

long twice(long x) {
  return 2 * x;
}
long add(long a, long b) {
  return a + b;
}

int main() {
  procpool::Pool pool{1};
  const std::vector<long> items{1, 2};
  pool.map_reduce(twice, items, add, 5, {.chunksize = 1});
#ifndef PROCPOOL_CONTROL
  pool.map_reduce([](long) {}, items, add);
  pool.map_reduce(twice, items, [](std::string all, long x) { return all + std::to_string(x); });
  pool.map_reduce(twice, items, add, "none");
  const std::string word = "captured";
  pool.map_reduce(twice, items,
                  [word](long a, long b) { return a + b + static_cast<long>(word.size()); });
#endif
}
