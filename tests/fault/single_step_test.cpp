// SPDX-License-Identifier: MIT
// Every instruction: a worker is taken through a task step by step and killed with SIGKILL after
// the first, the second, the third ... Each time the task must have exactly one outcome, the truth:
// its value, or the death of this worker.
//
// PROCPOOL_FULL=1 kills at every place, and mostly steps all the way to it (minutes). Without it
// short cuts are taken to as many places as the time allows; see step_attack.hpp.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "fault/step_attack.hpp"
#include "fault/stepper.hpp"
#include "support/leaks.hpp"
#include "support/processes.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"
#include "support/watchdog.hpp"

namespace {

using namespace std::chrono_literals;
using fault::ending;
using fault::ending_of;
using fault::notes;
using fault::result_processor;
using fault::small_task;
using fault::small_value;
using fault::step_attack;
using pool_type = procpool::Pool<>;
using clock_type = std::chrono::steady_clock;

// ---- what is submitted --------------------------------------------------------------------------

constexpr int argument(int round, int item) {
  return round * fault::most_items + item;
}

result_processor submit_small(pool_type& pool, int round) {
  const int x = argument(round, 0);
  return [x, result = pool.apply_async(small_task, x)] {
    return std::vector{ending_of(small_value(x), [&] { return result.get(fault::patience); })};
  };
}

std::string large_value(int x) {
  std::string text(std::size_t{64} << 10, static_cast<char>('a' + x % 23));
  for (std::size_t at = 0; at < text.size(); at += 1000) text[at] = static_cast<char>(at % 128);
  return text;
}

std::string large_task(int x) {
  fault::note_run(x);
  return large_value(x);
}

result_processor submit_large(pool_type& pool, int round) {
  const int x = argument(round, 0);
  return [x, result = pool.apply_async(large_task, x)] {
    return std::vector{ending_of(large_value(x), [&] { return result.get(fault::patience); })};
  };
}

result_processor submit_chunk(pool_type& pool, int round) {
  const std::array xs{argument(round, 0), argument(round, 1), argument(round, 2)};
  auto lazy = pool.imap(small_task, std::vector(xs.begin(), xs.end()), {.chunksize = 3});
  auto results = std::make_shared<decltype(lazy)>(std::move(lazy));
  return [xs, results] {
    std::vector<ending> all;
    for (const int x : xs) {
      all.push_back(ending_of(small_value(x), [&] { return results->next(fault::patience); }));
    }
    return all;
  };
}

// One worker is kept busy; the other, which is attacked, gets tasks that the first will want to
// take from it when the door opens.
class busy_neighbour {
 public:
  pid_t prepare(pool_type& pool, int round) {
    held_ = std::make_unique<result>(pool.apply_async(wait_at_door, argument(round, last)));
    pid_t other = 0;
    const bool two = support::eventually([&] {
      auto workers = support::children_of(support::children_of(getpid()).at(0).pid);
      std::erase_if(workers, [](const auto& each) { return each.zombie(); });
      const pid_t busy = notes->by[last];
      for (const auto& each : workers) other = each.pid != busy ? each.pid : other;
      return busy != 0 && workers.size() == 2;
    });
    REQUIRE(two);
    usleep(3000);  // by now a thread of the pool waits for the long task
    return other;
  }

  result_processor launch(pool_type& pool, int round) {
    std::vector<result> results;
    for (int item = 0; item < last; ++item) {
      results.push_back(pool.apply_async(small_task, argument(round, item)));
    }
    results.push_back(*held_);
    return [round, results] {
      std::vector<ending> all;
      for (std::size_t item = 0; item < results.size(); ++item) {
        const int wanted = small_value(argument(round, static_cast<int>(item)));
        all.push_back(ending_of(wanted, [&] { return results[item].get(fault::patience); }));
      }
      return all;
    };
  }

 private:
  using result = procpool::AsyncResult<int>;
  static constexpr int last = 4;

  static int wait_at_door(int x) {
    fault::note_run(x);
    while (!notes->door_open) usleep(20);
    return small_value(x);
  }

  std::unique_ptr<result> held_;
};

// ---- how often, and where ----------------------------------------------------------------------

bool everything() {
  const char* wish = std::getenv("PROCPOOL_FULL");
  return wish != nullptr && std::string(wish) == "1";
}

struct plan {
  const char* name;
  clock_type::duration time;  ///< of a run that is not full
  bool short_cuts = true;     ///< taken in such a run
  bool steps_only = true;     ///< in a full run; else it takes short cuts as well
  std::size_t relapse = any;  ///< that is allowed, where the path is always the same

  static constexpr std::size_t any = ~std::size_t{0};
};

/// AddressSanitizer's allocator takes another path now and then.
constexpr std::size_t on_one_path(std::size_t relapse) {
  return support::address_sanitizer ? plan::any : relapse;
}

void kill_everywhere(const plan& how, step_attack& on) {
  support::extend_limit(std::chrono::hours(3));
  for (std::size_t at = 1; at <= on.length(); ++at) on.kill_after(at, !how.steps_only);
}

/// All places that a short cut comes near to, in a mixed order because the time may not do.
std::vector<std::size_t> places_for_short_cuts(const step_attack& on, std::mt19937& random) {
  constexpr std::size_t near = 500;
  std::vector<std::size_t> places;
  for (std::size_t at = 1; at <= on.length(); ++at) {
    if (on.steps_behind(at) <= near) places.push_back(at);
  }
  std::shuffle(places.begin(), places.end(), random);
  return places;
}

/// With short cuts first, then stepping all the way to random places until the time is over.
void kill_for_some_time(const plan& how, step_attack& on, std::mt19937& random) {
  const auto begin = clock_type::now();
  if (how.short_cuts && fault::has_breakpoints) {
    for (const std::size_t at : places_for_short_cuts(on, random)) {
      if (clock_type::now() > begin + how.time * 4 / 5) break;
      on.kill_after(at, true);
    }
  }
  while (clock_type::now() < begin + how.time) on.kill_after(1 + random() % on.length(), false);
}

// A pool hears of the death of an idle worker when it next waits for something.
support::snapshot snapshot_of_whole(pool_type& pool, int workers) {
  const auto nap = [] { usleep(1000); };
  CHECK(support::eventually([&] {
    pool.apply(nap);
    const auto all = support::descendants_of(getpid());
    return static_cast<int>(all.size()) == workers + 1;  // and their parent
  }));
  return support::take_snapshot();
}

void report(const plan& how, step_attack& on, std::size_t relapse) {
  const fault::tally& all = on.counts();
  std::printf(
      "single step, %s: %zu instructions, killed after %zu of them in %zu kills (%zu at another "
      "place than planned): %zu values of the killed worker, %zu WorkerDied, %zu values of "
      "another worker, relapse %zu; %zu outcomes wrong\n",
      how.name, on.length(), on.places(), all.kills, all.elsewhere, all.own, all.deaths, all.others,
      relapse, all.wrong);
}

void attack(const plan& how, procpool::pool_options options, fault::scenario what) {
  if (const std::string why = fault::tracing_refused(); !why.empty()) SKIP("no ptrace: " << why);
  const support::shared<fault::record> memory;
  notes = memory.get();
  const unsigned seed = std::random_device{}();
  std::printf("single step, %s: seed %u\n", how.name, seed);
  std::mt19937 random(seed);
  pool_type pool{options};
  step_attack on(pool, std::move(what), seed);
  const support::snapshot before = snapshot_of_whole(pool, *options.processes);
  everything() ? kill_everywhere(how, on) : kill_for_some_time(how, on, random);
  const std::size_t relapse = on.relapse();
  report(how, on, relapse);
  for (const std::string& each : on.counts().complaints) UNSCOPED_INFO(each);
  CHECK(on.counts().wrong == 0);
  CHECK(relapse <= how.relapse);
  const support::snapshot after = snapshot_of_whole(pool, *options.processes);
  CHECK(after.fds.size() == before.fds.size());
  CHECK(after.mappings == before.mappings);
  CHECK(after.threads == before.threads);
}

}  // namespace

TEST_CASE("a worker may be killed at every instruction of a small task", "[fault][limit:120]") {
  attack({.name = "small result", .time = 7s, .relapse = on_one_path(8)}, {.processes = 1},
         {.launch = submit_small});
}

TEST_CASE("a worker may be killed at every instruction of a result that streams",
          "[fault][limit:120]") {
  attack({.name = "streamed result", .time = 13s, .relapse = on_one_path(500)},
         {.processes = 1, .ring_bytes = 4096}, {.launch = submit_large, .wanders = true});
}

TEST_CASE("a worker may be killed at every instruction of a chunk", "[fault][limit:120]") {
  attack({.name = "chunk of 3", .time = 9s, .relapse = on_one_path(8)}, {.processes = 1},
         {.launch = submit_chunk});
}

TEST_CASE("a worker may be killed while another takes tasks from it", "[fault][limit:120]") {
  busy_neighbour busy;
  attack({.name = "two workers", .time = 8s, .short_cuts = false}, {.processes = 2},
         {.launch = [&](pool_type& pool, int round) { return busy.launch(pool, round); },
          .prepare = [&](pool_type& pool, int round) { return busy.prepare(pool, round); },
          .one_task = false});
}

TEST_CASE("a worker may be killed at any instruction while it comes up", "[fault][limit:120]") {
  // Workers have numbers, and copying a longer one takes another path.
  attack(
      {.name = "start of a worker", .time = 11s, .steps_only = false, .relapse = on_one_path(500)},
      {.processes = 1}, {.launch = submit_small, .wanders = true, .newborn = true});
}
