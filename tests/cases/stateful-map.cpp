// SPDX-License-Identifier: MIT
// A callable that counts its calls. 0: what an item gives does not depend on how many others are in
// its chunk. 1: it does.
#include <fmt/format.h>

#include <vector>

#include <procpool/procpool.hpp>

int main() {
  procpool::Pool pool{2};
  const std::vector<int> items(6);
  const auto count = [n = 0](int) mutable { return ++n; };
  const std::vector<int> singly = pool.map(count, items, {.chunksize = 1});
  for (const int size : {2, 3, 6}) {
    if (pool.map(count, items, {.chunksize = size}) == singly) continue;
    fmt::print("chunks of {} give other results\n", size);
    return 1;
  }
  return 0;
}
