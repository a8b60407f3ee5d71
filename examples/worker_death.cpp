// SPDX-License-Identifier: MIT
//
// A task that crashes affects only itself: its result is WorkerDied, the worker is replaced, the
// pool goes on. (Python's Pool waits for ever here.)

#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <stdexcept>
#include <vector>

#include <procpool/procpool.hpp>

/// Stands for a library with a bug.
long fragile(long x) {
  if (x == 3) raise(SIGSEGV);
  if (x == 4) _exit(7);
  if (x == 5) throw std::invalid_argument("five");
  return x * x;
}

int main() {
  procpool::Pool pool{2};

  // One by one: each item has its own value or error.
  auto results = pool.imap(fragile, std::vector<long>{1, 2, 3, 4, 5, 6});
  for (bool more = true; more;) {
    try {
      const auto value = results.next();
      more = value.has_value();
      if (more) fmt::print("value {}\n", *value);
    } catch (const procpool::WorkerDied& death) {
      fmt::print("item {} ended its worker: exit code {}\n", *death.item(), death.exitcode());
    } catch (const std::invalid_argument& error) {
      fmt::print("exception: {}\n", error.what());
    }
  }

  // All at once: map finishes the other items, then throws.
  try {
    static_cast<void>(pool.map(fragile, std::vector<long>{1, 2, 3}));
  } catch (const procpool::WorkerDied& death) {
    fmt::print("map: item {}, signal {}\n", *death.item(), *death.signal());
  }
  fmt::print("still there: {}\n", pool.map(fragile, std::vector<long>{1, 2}));
}
