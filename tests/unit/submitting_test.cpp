// SPDX-License-Identifier: MIT
/// @file
/// A thread that submits and submits reads results between its submissions, and so keeps the
/// service thread away. Nothing else may have to wait for its end.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr auto generous = 5s;

void nothing() {}
void die() {
  kill(getpid(), SIGKILL);
}
void hang() {
  while (true) pause();
}

// Submits empty tasks at this pace until @p done() says so, or for too long.
template <class Done>
bool submit_until(procpool::Pool<>& pool, std::chrono::microseconds pace, Done done) {
  const auto end = clock_type::now() + generous;
  auto next = clock_type::now();
  while (!done()) {
    pool.apply_async(nothing);
    for (next += pace; clock_type::now() < next;) std::this_thread::yield();
    if (clock_type::now() > end) return false;
  }
  return true;
}

// Its objects are counted in the program.
struct counted {
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }

  static inline std::atomic<int> alive = 0;
};

counted make_counted() {
  return {};
}

}  // namespace

template <>
struct procpool::codec<counted> {
  static void encode(encoder& /*out*/, const counted& /*value*/) {}
  static counted decode(decoder& /*in*/) { return {}; }
};

TEST_CASE("deaths and time limits are told while a thread submits and submits", "[submitting]") {
  const auto pace = GENERATE(0us, 20us, 50us);
  CAPTURE(pace.count());
  procpool::Pool pool{2};
  submit_until(pool, pace,
               [begin = clock_type::now()] { return clock_type::now() - begin > 50ms; });
  auto dead = pool.apply_async(die);
  CHECK(submit_until(pool, pace, [&] { return dead.ready(); }));
  auto late = pool.apply_async({.timeout = 50ms}, hang);
  CHECK(submit_until(pool, pace, [&] { return late.ready(); }));
  CHECK_THROWS_AS(dead.get(), procpool::WorkerDied);
  CHECK_THROWS_AS(late.get(), procpool::TimeoutError);
}

TEST_CASE("results that nobody wants are dropped while a thread submits and submits",
          "[submitting]") {
  constexpr int tasks = 200'000;
  procpool::Pool pool{2};
  int most = 0;
  for (int i = 0; i < tasks; ++i) {
    pool.apply_async(make_counted);
    most = std::max(most, counted::alive.load());
  }
  CHECK(most < tasks / 4);
}

namespace {

struct stamp {
  clock_type::time_point made;  ///< in the worker
  pid_t by;
  clock_type::time_point seen;  ///< by the program
};

stamp work_for(std::chrono::nanoseconds time) {
  if (time >= 1ms) {
    std::this_thread::sleep_for(time);
  } else {
    for (const auto end = clock_type::now() + time; clock_type::now() < end;) continue;
  }
  return {clock_type::now(), getpid(), {}};
}

}  // namespace

template <>
struct procpool::codec<stamp> {
  static void encode(encoder& out, const stamp& value) {
    out.put(value.made.time_since_epoch().count());
    out.put(value.by);
  }
  static stamp decode(decoder& in) {
    stamp found{clock_type::time_point(clock_type::duration(in.get<clock_type::rep>())),
                in.get<pid_t>(), clock_type::now()};
    while (clock_type::now() < found.seen + pause) continue;
    return found;
  }
  static inline auto pause = 0us;
};

namespace {

// Both workers sleep while all is submitted, so that nothing is read beside that. Then decoding
// takes longer than a task: the program nearly always finds another result of the worker that has
// no long task. @returns how late the program saw a result of the one that has it, at the worst
clock_type::duration longest_held_back() {
  constexpr std::chrono::nanoseconds all_is_submitted = 300ms;
  constexpr std::chrono::nanoseconds long_time = 500ms;
  constexpr int before = 1'000;
  constexpr int behind = 200'000;
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<stamp>> results;
  results.reserve(before + behind);
  for (int i = 0; i < 2; ++i) pool.apply_async(work_for, all_is_submitted);
  std::this_thread::sleep_for(50ms);  // one for each worker
  for (int i = 0; i < before; ++i) results.push_back(pool.apply_async(work_for, 200ns));
  auto lengthy = pool.apply_async(work_for, long_time);
  for (int i = 0; i < behind; ++i) results.push_back(pool.apply_async(work_for, 200ns));
  procpool::codec<stamp>::pause = 2us;
  const pid_t busy = lengthy.get().by;
  procpool::codec<stamp>::pause = 0us;
  auto longest = clock_type::duration::zero();
  for (auto& each : results) {
    const stamp found = each.get();
    if (found.by == busy) longest = std::max(longest, found.seen - found.made);
  }
  return longest;
}

}  // namespace

TEST_CASE("results are not held back behind a long task while another worker sends and sends",
          "[submitting]") {
  constexpr auto noticeable = 20ms;  // usually it is less than one
  constexpr int rounds = 6;
  int late = 0;
  for (int i = 0; i < rounds; ++i) late += longest_held_back() > noticeable ? 1 : 0;
  CHECK(late <= 1);  // this machine may have stood still
}
