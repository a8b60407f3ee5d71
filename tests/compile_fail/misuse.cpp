// expect: options come first, as in apply_async
// expect: options come first: apply
// expect: an imap has no .stop
// expect: use starmap, which spreads it
// expect: starmap takes the items as one range of tuples
// expect: map takes the items as one range
// expect: the function comes first, then the items
// expect: the options of a map are in braces
// expect: a callback is called with the result of the task
// expect: the callback of a task that returns nothing
// expect: an error_callback takes a std::exception_ptr
// errors: one each
// SPDX-License-Identifier: MIT
// What people try first who know Python's pool, each with one error.
#include <chrono>
#include <procpool/procpool.hpp>
#include <stop_token>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

long twice(long a) {
  return 2 * a;
}
long add(long a, long b) {
  return a + b;
}
void nothing(long) {}

int main() {
  procpool::Pool pool{1};
  const std::vector<long> items{1, 2, 3};
  const std::vector<std::pair<long, long>> pairs{{1, 2}};
  pool.apply_async({.timeout = 2s, .callback = [](long) {}}, twice, 3);
  pool.starmap(add, pairs);
  static_cast<void>(pool.imap(twice, items, {.chunksize = 2}));
  static_cast<void>(pool.imap(twice, items, {}));
#ifndef PROCPOOL_CONTROL
  pool.apply_async(twice, 3, {.timeout = 2s});
  pool.apply(twice, 3, procpool::call_options{.timeout = 2s});
  static_cast<void>(pool.imap(twice, items, {.stop = std::stop_token()}));
  pool.map(add, pairs);
  pool.starmap(add, 1, 2);
  pool.map(twice, 3);
  pool.map_async(items, twice);
  pool.imap_unordered(twice, items, 20);
  pool.apply_async({.callback = [] {}}, twice, 3);
  pool.apply_async({.callback = [](int) {}}, nothing, 3);
  pool.apply_async({.error_callback = [] {}}, twice, 3);
#endif
}
