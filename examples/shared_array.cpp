// SPDX-License-Identifier: MIT
//
// A large array that workers read and write in place: a handle travels, not the data.
//
//     data = RawArray("d", 1 << 24)
//     pool = Pool(2, initializer=init, initargs=(data,))   # cannot be an argument of a task
//     pool.map(fill, ranges)

#include <fmt/core.h>

#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

/// A task: fills one part, whose first element has the number `from`.
void fill(procpool::SharedArray<double> part, std::size_t from) {
  for (double& x : part) x = std::sqrt(static_cast<double>(from++));
}

/// A task that only reads. Its memory is mapped read-only.
double sum(procpool::SharedArray<const double> part) {
  return std::accumulate(part.begin(), part.end(), 0.0);
}

int main() {
  procpool::Pool pool{2};
  procpool::SharedArray<double> data(1 << 24);  // 128 MiB

  std::vector<std::pair<procpool::SharedArray<double>, std::size_t>> parts;
  std::size_t from = 0;
  for (const auto& part : data.slices(16)) {
    parts.emplace_back(part, from);
    from += part.size();
  }
  pool.starmap(fill, parts);
  fmt::print("the root of 1000000 is {}\n", data[1'000'000]);

  const procpool::SharedArray<const double> view = data;
  const auto sums = pool.map(sum, view.slices(16));
  fmt::print("sum of all roots: {:.6e}\n", std::accumulate(sums.begin(), sums.end(), 0.0));

  try {
    const procpool::SharedArray<double> huge(1UL << 37U);
  } catch (const procpool::ProcessError& error) {
    fmt::print("{}\n", error.what());
  }
}
