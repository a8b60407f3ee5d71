// SPDX-License-Identifier: MIT
//
// Monte Carlo in parallel, with the same result for any number of workers: each item has a random
// number generator that depends only on the pool's seed and the item's number.
//
// In Python the program has to seed a generator for each item:
//
//     def walk(seed_and_steps): rng = random.Random(seed_and_steps[0]); ...
//
//     with multiprocessing.Pool(4) as pool:
//         print(max(pool.map(walk, enumerate(steps))))

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

/// The greatest distance from its start that a random walk of this number of steps reaches.
int walk(int steps) {
  auto& random = procpool::current_worker().random();
  int place = 0;
  int farthest = 0;
  for (int i = 0; i < steps; ++i) {
    place += random() % 2 == 0 ? 1 : -1;
    farthest = std::max(farthest, std::abs(place));
  }
  return farthest;
}

double mean_of_walks(int workers, int chunksize) {
  procpool::Pool pool{{.processes = workers, .seed = 2024}};
  double sum = 0;
  for (const int farthest : pool.map(walk, std::vector<int>(1000, 400), {.chunksize = chunksize})) {
    sum += farthest;
  }
  return sum / 1000;
}

int main() {
  const double mean = mean_of_walks(1, 1000);
  fmt::print("1000 walks of 400 steps get {:.3f} steps away on average\n", mean);
  for (const int workers : {2, 4}) {
    const bool same = mean_of_walks(workers, 10 * workers) == mean;
    fmt::print("the same with {} workers: {}\n", workers, same);
  }

  // By default each pool has a new seed. A task can read it, so that a run can be repeated.
  procpool::Pool pool{2};
  const auto seed = pool.apply([] { return procpool::current_worker().seed(); });
  procpool::Pool again{{.processes = 2, .seed = seed}};
  fmt::print(
      "repeated: {}\n", pool.apply(walk, 400) == [&] {
        again.apply([] {});  // so that the walk is the second item, as in the first pool
        return again.apply(walk, 400);
      }());
}
