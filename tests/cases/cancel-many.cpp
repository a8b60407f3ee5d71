// SPDX-License-Identifier: MIT
// What one cancel() of a pending task costs with 1,000 and with 20,000 other tasks outstanding.
// 0: about the same. 1: it grows with their number, so cancelling all of them is quadratic.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

void nap() {
  std::this_thread::sleep_for(10ms);
}

/// Microseconds for each cancel(), the best of several rounds: other programs run here, too.
double cost_of_cancel(int outstanding) {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<void>> others;
  others.reserve(static_cast<std::size_t>(outstanding));
  for (int i = 0; i < outstanding; ++i) others.push_back(pool.apply_async(nap));
  double best = 1e9;
  for (int round = 0; round < 10; ++round) {
    std::vector<procpool::AsyncResult<void>> ours;
    for (int i = 0; i < 50; ++i) ours.push_back(pool.apply_async(nap));
    const auto begin = std::chrono::steady_clock::now();
    for (auto& result : ours) result.cancel();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count() / 50);
  }
  return best;
}

int main() {
  const double few = cost_of_cancel(1000);
  const double many = cost_of_cancel(20000);
  std::printf("a cancel(): %.1f us beside 1,000 tasks, %.1f us beside 20,000\n", few, many);
  return many < 5 * few + 2 ? 0 : 1;
}
