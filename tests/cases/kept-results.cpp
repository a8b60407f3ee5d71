// SPDX-License-Identifier: MIT
// A server keeps one in fifty of its results, in a cache. 0: a kept AsyncResult<long> costs less
// than 1 KiB. 1: it keeps the memory of its neighbours.
#include <fmt/format.h>
#include <malloc.h>

#include <cstddef>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

long square(long x) {
  return x * x;
}

std::size_t allocated() {
  return mallinfo2().uordblks;
}

// Bytes for each kept result when so many are submitted at a time.
std::size_t cost(std::size_t batch_size) {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<long>> kept;
  kept.reserve(3'000);
  std::size_t before = 0;
  for (long number = 0; number < 120'000;) {
    if (number == 20'000) {  // what the pool itself keeps for so many is there
      kept.clear();
      before = allocated();
    }
    std::vector<procpool::AsyncResult<long>> batch;
    for (std::size_t i = 0; i < batch_size; ++i) {
      batch.push_back(pool.apply_async(square, number++));
    }
    for (const auto& result : batch) result.wait();
    for (std::size_t i = 0; i < batch_size; i += 50) kept.push_back(batch[i]);
  }
  return (allocated() - before) / kept.size();
}

}  // namespace

int main() {
  bool right = true;
  for (const std::size_t batch : {50U, 200U, 2000U, 20000U}) {
    const std::size_t each = cost(batch);
    if (each < 1024) continue;
    fmt::print("of batches of {}: a kept result costs {} bytes\n", batch, each);
    right = false;
  }
  return right ? 0 : 1;
}
