// SPDX-License-Identifier: MIT
//
// Q5: create a pool of worker processes.
//
//     import multiprocessing
//
//     def square(number):
//         return number * number
//
//     if __name__ == "__main__":
//         with multiprocessing.Pool(processes=4) as pool:
//             numbers = [1, 2, 3, 4, 5]
//             results = pool.map(square, numbers)
//             print("Squares:", results)

#include <fmt/ranges.h>

#include <vector>

#include <procpool/procpool.hpp>

long square(long number) {
  return number * number;
}

int main() {
  procpool::Pool pool{4};
  const std::vector<long> numbers{1, 2, 3, 4, 5};
  const auto results = pool.map(square, numbers);
  fmt::print("Squares: {}\n", results);
}
