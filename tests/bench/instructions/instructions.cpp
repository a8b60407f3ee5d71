// SPDX-License-Identifier: MIT
/// @file
/// Empty tasks, for an instruction counter: `program apply` and `program stream`. The parts to
/// count are the functions whose names begin with counted_; check.py runs this under callgrind.
///
/// The clock is replaced by one that counts how often it was asked, so that nothing depends on how
/// fast this runs; and while the pool waits the worker works, see inline_backend.hpp.
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/procpool.hpp>

#include "inline_backend.hpp"

namespace {

using core = procpool::detail::worker_pool;
using call = decltype(procpool::detail::start_call(procpool::detail::intrusive_ptr<core>(),
                                                   procpool::detail::attended::yes, {},
                                                   static_cast<void (*)()>(nullptr), {}));

constexpr int tasks = 2'000;
bool counting = false;  // what comes before warms up
int ran = 0;

void nothing() {
  ++ran;
}

procpool::detail::intrusive_ptr<core> make_pool() {
  procpool::detail::scheduling_rules rules;
  rules.spinning_workers = 1;
  constexpr std::size_t ring = std::size_t{256} << 10;
  constexpr std::size_t arena = std::size_t{1} << 20;
  return new core(
      {procpool::detail::worker_kind::threads, 1, {1, ring, arena}, rules, {}, nullptr, 2},
      &bench::inline_backend::make);
}

call submit(const procpool::detail::intrusive_ptr<core>& pool) {
  return procpool::detail::start_call(pool, procpool::detail::attended::yes, {},
                                      static_cast<void (*)()>(nothing), {});
}

void round_trips(const procpool::detail::intrusive_ptr<core>& pool) {
  for (int i = 0; i < tasks; ++i) procpool::detail::finish(*submit(pool));
}
void submit_all(const procpool::detail::intrusive_ptr<core>& pool, std::vector<call>& calls) {
  for (int i = 0; i < tasks; ++i) calls.push_back(submit(pool));
}
void finish_all(std::vector<call>& calls) {
  for (auto& each : calls) {
    procpool::detail::finish(*each);
    each = nullptr;
  }
}

}  // namespace

// Known to callgrind by these names.
extern "C" {
[[gnu::noinline]] void counted_work() {
  bench::the_worker->work();
}
[[gnu::noinline]] void counted_round_trips(const procpool::detail::intrusive_ptr<core>& pool) {
  round_trips(pool);
}
[[gnu::noinline]] void counted_submit(const procpool::detail::intrusive_ptr<core>& pool,
                                      std::vector<call>& calls) {
  submit_all(pool, calls);
}
[[gnu::noinline]] void counted_finish(std::vector<call>& calls) {
  finish_all(calls);
}

// Stands in for the one of the C library, also in the C++ library.
int clock_gettime(clockid_t /*clock*/, timespec* now) noexcept {
  static long ticks = 0;
  static bool working = false;
  ++ticks;
  *now = {1000 + ticks / 10'000'000, ticks % 10'000'000 * 100};
  if (working || bench::the_worker == nullptr || bench::the_worker->idle()) return 0;
  working = true;
  counting ? counted_work() : bench::the_worker->work();
  working = false;
  return 0;
}
}

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  const auto pool = make_pool();
  if (what == "apply") {
    round_trips(pool);
    counting = true;
    counted_round_trips(pool);
  } else if (what == "submit" || what == "drain") {
    std::vector<call> calls;
    calls.reserve(tasks);
    submit_all(pool, calls);
    finish_all(calls);
    calls.clear();
    // The work of the other part must not count: it switches counting on and off.
    counting = what == "submit";
    counted_submit(pool, calls);
    counting = what == "drain";
    counted_finish(calls);
  } else {
    return std::fputs("usage: instructions apply|submit|drain\n", stderr), 2;
  }
  counting = false;
  pool->terminate();
  std::printf("tasks %d\n", tasks);
  return ran == 2 * tasks ? 0 : 1;
}
