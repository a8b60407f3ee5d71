// expect: deleted
// expect: \.processes = true
// expect: \.maxtasksperchild = 'x'
// expect: pool_of_flag\{true\}
// expect: \.chunksize = 2\.5
// expect: \.retries = true
// SPDX-License-Identifier: MIT
#include <procpool/procpool.hpp>
#include <vector>

int leaf(int x) {
  return x + 1;
}

int main() {
  procpool::Pool pool{
      {.processes = 2, .maxtasksperchild = 100L, .ring_bytes = 1 << 16, .seed = 7U}};
  const std::vector<int> items{1, 2, 3};
  pool.map(leaf, items, {.chunksize = items.size(), .retries = 1});
#ifndef PROCPOOL_CONTROL
  procpool::Pool pool_of_true{{.processes = true}};
  procpool::Pool pool_of_character{{.maxtasksperchild = 'x'}};
  procpool::Pool pool_of_flag{true};
  pool.map(leaf, items, {.chunksize = 2.5});
  pool.apply({.retries = true}, leaf, 1);
#endif
}
