// SPDX-License-Identifier: MIT
//
// imap and imap_unordered: results one by one, while the rest is still being computed. The input
// may be endless: the pool reads only as many items as the buffer holds.
//
//     with multiprocessing.Pool(2) as pool:
//         for x in pool.imap(square, itertools.count(), buffersize=8):
//             if x > 100: break
//         for x in pool.imap_unordered(square, range(5)): ...

#include <fmt/ranges.h>

#include <algorithm>
#include <ranges>
#include <stdexcept>
#include <vector>

#include <procpool/procpool.hpp>

long square(long x) {
  return x * x;
}

long half(long x) {
  if (x % 2 != 0) throw std::domain_error("odd");
  return x / 2;
}

int main() {
  procpool::Pool pool{2};

  std::vector<long> small;
  for (long x : pool.imap(square, std::views::iota(0L), {.buffersize = 8})) {
    if (x > 100) break;
    small.push_back(x);
  }
  fmt::print("in order: {}\n", small);

  std::vector<long> arrived;
  for (long x : pool.imap_unordered(square, std::views::iota(0L, 5L))) arrived.push_back(x);
  std::ranges::sort(arrived);  // they arrived in the order in which they finished
  fmt::print("all there: {}\n", arrived);

  // next() takes a time limit, and goes on after a failed item.
  auto halves = pool.imap(half, std::views::iota(0L, 5L));
  for (bool more = true; more;) {
    try {
      const auto x = halves.next();
      more = x.has_value();
      if (more) fmt::print("half: {}\n", *x);
    } catch (const std::domain_error& error) {
      fmt::print("half: {}\n", error.what());
    }
  }
}
