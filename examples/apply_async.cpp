// SPDX-License-Identifier: MIT
//
// One call in another process: apply waits for the result, apply_async returns a handle of it.
//
//     with multiprocessing.Pool(2) as pool:
//         print(pool.apply(count_primes, (1000,)))
//         result = pool.apply_async(count_primes, (100000,))
//         print(result.get())
//         print(pool.apply_async(time.sleep, (60,)).get(timeout=0.1))     # TimeoutError

#include <fmt/core.h>

#include <chrono>
#include <thread>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

/// The number of primes below `limit`; slow on purpose.
int count_primes(int limit) {
  int count = 0;
  for (int n = 2; n < limit; ++n) {
    int divisor = 2;
    while (divisor * divisor <= n && n % divisor != 0) ++divisor;
    if (divisor * divisor > n) ++count;
  }
  return count;
}

int main() {
  procpool::Pool pool{2};
  fmt::print("{} primes below 1000\n", pool.apply(count_primes, 1000));

  procpool::AsyncResult<int> result = pool.apply_async(count_primes, 100'000);
  fmt::print("the caller is free meanwhile\n");
  result.wait();
  fmt::print("ready: {}, successful: {}\n", result.ready(), result.successful());
  fmt::print("{} primes below 100000\n", result.get());

  auto late = pool.apply_async([] { std::this_thread::sleep_for(60s); });
  try {
    late.get(100ms);
  } catch (const procpool::TimeoutError&) {
    fmt::print("not finished after 100 ms\n");
  }
  // The destructor terminates the pool and its sleeping task.
}
