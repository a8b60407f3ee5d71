// SPDX-License-Identifier: MIT
/// @file
/// current_worker().random(): random numbers in tasks that do not depend on which worker runs what.
///
///     double wind(double mean) {
///       std::normal_distribution<double> around(mean, 1.0);
///       return around(procpool::current_worker().random());
///     }
///     procpool::Pool pool{{.processes = 4, .seed = 2024}};
///     auto samples = pool.map(wind, means);   // the same for any number of processes
///
/// Not part of <procpool/procpool.hpp>, because <random> takes long to compile.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstdint>
#include <random>

#include <procpool/detail/base/splitmix.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/worker.hpp>

namespace procpool {

namespace detail {

/// A generator of a worker, made by the first task that asks for it. There is one for each depth,
/// so that a task that runs inside another one leaves that one's sequence alone.
struct item_random {
  /// Its key in the worker's worker_locals, from 0 down. Keys of worker_local values go up from 1.
  static constexpr std::uint64_t key(std::uint64_t depth) { return 0 - depth; }

  std::uint64_t item = nothing_started;  ///< for which it is seeded, as in `started`
  std::mt19937_64 engine;

  // Without std::seed_seq, which takes ten times as long.
  void seed_for(std::uint64_t mark, std::uint64_t seed, std::uint64_t number) {
    engine.seed(splitmix(splitmix(seed) + number));
    item = mark;
  }
};

}  // namespace detail

/// A generator for the running item: a std::mt19937_64, seeded with one number that is mixed from
/// the pool's seed and the item's task_number(). So the numbers of an item depend on nothing else:
/// not on the number of workers, chunk sizes, or which worker runs it, and a retry gets the same
/// again. Further calls in the same item continue the same sequence. The first call in an item
/// takes about 2 us; items without a call pay nothing.
///
/// The engine's numbers are the same on every platform. Those of the standard distributions depend
/// on the standard library.
///
/// Not for secrets. To be used on the task's own thread, until the item ends. Python: none.
/// @throws std::logic_error in an initializer, which is not an item; std::bad_alloc
inline auto& WorkerContext::random() const {
  using detail::item_random;
  const std::uint64_t number = task_number();
  const std::uint64_t mark = running();
  const std::uint64_t key = item_random::key(depth_);
  auto* state = static_cast<item_random*>(locals_.find(key));
  if (state == nullptr) state = &locals_.add<item_random>(key, [] { return item_random{}; });
  if (state->item != mark) state->seed_for(mark, seed_, number);
  return state->engine;
}

}  // namespace procpool
