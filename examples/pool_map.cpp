// SPDX-License-Identifier: MIT
//
// map: one function over many items, results in the order of the items.
//
//     with multiprocessing.Pool(4) as pool:
//         print(pool.map(str.upper, ["ein", "zwei", "drei"]))
//         print(sum(pool.map(square, range(1000), chunksize=20)))
//         result = pool.map_async(square, range(5))
//         print(result.get())

#include <fmt/ranges.h>

#include <cctype>
#include <numeric>
#include <ranges>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

long square(long x) {
  return x * x;
}

int main() {
  procpool::Pool pool{4};

  const std::vector<std::string> words{"ein", "zwei", "drei"};
  fmt::print("{}\n", pool.map(upper, words));

  // Takes any range. Many small items are sent in chunks; by default the pool chooses the size.
  const auto squares = pool.map(square, std::views::iota(0L, 1000L), {.chunksize = 20});
  fmt::print("sum of 1000 squares: {}\n", std::reduce(squares.begin(), squares.end()));

  auto later = pool.map_async(square, std::views::iota(0L, 5L));
  fmt::print("{}\n", later.get());
}
