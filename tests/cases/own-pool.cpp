// SPDX-License-Identifier: MIT
// A task uses the very pool that it runs in, a global one: recursion, or a helper that works in
// parallel. 0: it is told so by an exception, or it works. 1: the worker crashes.
#include <cstdio>
#include <procpool/procpool.hpp>
#include <stdexcept>

namespace {

procpool::Pool pool{2};

long fibonacci(long n) {
  if (n < 2) return n;
  auto one = pool.apply_async(fibonacci, n - 1);
  return fibonacci(n - 2) + one.get();
}

}  // namespace

int main() {
  try {
    std::printf("%ld\n", pool.apply(fibonacci, 10));
    return 0;
  } catch (const procpool::WorkerDied& died) {
    std::printf("WorkerDied: %s\n", died.what());
    return 1;
  } catch (const std::logic_error& told) {
    std::printf("std::logic_error: %s\n", told.what());
    return 0;
  }
}
