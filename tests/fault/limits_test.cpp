// SPDX-License-Identifier: MIT
// Limits of tasks and workers: time, cancelling, stop tokens, memory, CPU time, recycling.
#include <cstring>

namespace {

// The library's system calls go by here, so that a test can make one of them slow.
void (*before_system_call)(const char* call) = nullptr;
inline void announce_call(const char* call) {
  if (before_system_call != nullptr) before_system_call(call);
}

}  // namespace

#define PROCPOOL_SYSTEM(call) (announce_call(#call), ::call)

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <map>
#include <new>
#include <random>
#include <ranges>
#include <set>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;
using procpool::CancelledError;
using procpool::TimeoutError;
using procpool::WorkerDied;
using std::chrono::steady_clock;
using support::eventually;
using support::shared;

namespace {

constexpr std::size_t most_items = 4000;
using run_counts = std::array<std::atomic<int>, most_items>;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::size_t mebibyte = std::size_t{1} << 20;

long square(long x) {
  return x * x;
}

void sleep_for_ms(long time) {
  std::this_thread::sleep_for(std::chrono::milliseconds(time));
}

pid_t worker_pid() {
  return getpid();
}

// Busy for so long by the clock on the wall.
void spin(std::chrono::nanoseconds time) {
  const auto end = steady_clock::now() + time;
  while (steady_clock::now() < end) {
  }
}

std::chrono::nanoseconds cpu_time() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// Uses so much CPU time.
void burn(std::chrono::nanoseconds time) {
  const auto end = cpu_time() + time;
  while (cpu_time() < end) {
  }
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

std::set<pid_t> worker_processes() {
  std::set<pid_t> workers;
  for (const auto& each : support::descendants_of(getpid())) {
    if (each.name == "procpool-worker" && !each.zombie()) workers.insert(each.pid);
  }
  return workers;
}

bool gone(pid_t process) {
  return eventually([process] { return !support::is_running(process); });
}

template <class E, class Call>
E caught(Call call) {
  try {
    static_cast<void>(call());
  } catch (const E& error) {
    return error;
  }
  throw std::logic_error("the call threw nothing");
}

template <class E>
bool failed_with(const std::exception_ptr& what) {
  try {
    if (what != nullptr) std::rethrow_exception(what);
  } catch (const E&) {
    return true;
  } catch (...) {
  }
  return false;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool all_ran_once(const run_counts& runs, std::size_t count) {
  bool right = true;
  for (std::size_t i = 0; i < count; ++i) {
    if (runs[i] == 1) continue;
    std::printf("item %zu ran %d times\n", i, runs[i].load());
    right = false;
  }
  return right;
}

// A task that says where it runs and does not end by itself.
struct endless {
  std::atomic<pid_t>* where;
  int operator()() const {
    *where = getpid();
    while (true) std::this_thread::sleep_for(1s);
  }
};

bool begun(const std::atomic<pid_t>& where) {
  return eventually([&] { return where != 0; });
}

}  // namespace

// ---- time limits ------------------------------------------------------------------------------

TEST_CASE("a task that runs too long is killed and TimeoutError says so", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  const auto begin = steady_clock::now();
  const auto late =
      caught<TimeoutError>([&] { return pool.apply({.timeout = 100ms}, endless{where.get()}); });
  const auto took = steady_clock::now() - begin;
  INFO(late.what());
  CHECK(took >= 100ms);
  CHECK(took < 10s);
  CHECK(contains(late.what(), "time limit of 0.1 s"));
  CHECK(contains(late.what(), std::to_string(*where)));
  CHECK(contains(late.what(), "PoolWorker-"));
  CHECK(contains(late.what(), "endless"));
  CHECK(gone(*where));
  CHECK(pool.map(square, numbers(100)).back() == 99 * 99);
}

TEST_CASE("waiting for a worker does not count as running", "[fault][limits]") {
  procpool::Pool pool{1};
  std::vector<procpool::AsyncResult<void>> results;
  for (int i = 0; i < 12; ++i) {
    results.push_back(pool.apply_async({.timeout = 400ms}, sleep_for_ms, 60));
  }
  for (const auto& each : results) CHECK_NOTHROW(each.get(20s));
}

TEST_CASE("the limit is one for each item of a chunk", "[fault][limits]") {
  procpool::Pool pool{1};
  const std::vector<long> items(10, 50);
  CHECK_NOTHROW(pool.map(sleep_for_ms, items, {.chunksize = 10, .timeout = 200ms}));
  auto results = pool.imap([](long t) { return sleep_for_ms(t), t; }, items,
                           {.chunksize = 10, .timeout = 200ms});
  int count = 0;
  for (const long each : results) count += each == 50 ? 1 : 0;
  CHECK(count == 10);
}

TEST_CASE("only the item that ran too long is charged, and nothing runs twice", "[fault][limits]") {
  for (const long chunksize : {1L, 4L, 20L}) {
    shared<run_counts> runs;
    procpool::Pool pool{2};
    const auto task = [count = runs.get()](long x) {
      ++(*count)[static_cast<std::size_t>(x)];
      if (x % 10 == 3) std::this_thread::sleep_for(1h);
      return x;
    };
    const auto outcomes =
        pool.map_outcomes(task, numbers(20), {.chunksize = chunksize, .timeout = 200ms});
    for (std::size_t i = 0; i < 20; ++i) {
      INFO("item " << i << " of chunks of " << chunksize);
      CHECK(outcomes[i].has_value() == (i % 10 != 3));
      if (i % 10 == 3) CHECK(failed_with<TimeoutError>(outcomes[i].error()));
    }
    const auto late = caught<TimeoutError>([&] { return outcomes[13].value(); });
    CHECK(contains(late.what(), "item 13"));
    CHECK(all_ran_once(*runs, 20));
  }
}

TEST_CASE("tasks of other jobs on the worker of a late one run once", "[fault][limits]") {
  shared<run_counts> runs;
  procpool::Pool pool{1};
  for (int round = 0; round < 30; ++round) {
    for (auto& each : *runs) each = 0;
    const auto count_run = [count = runs.get()](long x) {
      ++(*count)[static_cast<std::size_t>(x)];
      return x;
    };
    std::vector<procpool::AsyncResult<long>> others;
    for (long i = 0; i < 5; ++i) others.push_back(pool.apply_async(count_run, i));
    auto late = pool.apply_async({.timeout = 3ms}, sleep_for_ms, 60'000);
    for (long i = 5; i < 10; ++i) others.push_back(pool.apply_async(count_run, i));
    auto map =
        pool.map_async(count_run, std::views::iota(10L, 50L), {.chunksize = 7, .timeout = 1h});
    CHECK_THROWS_AS(late.get(20s), TimeoutError);
    for (std::size_t i = 0; i < 10; ++i) CHECK(others[i].get(20s) == long(i));
    CHECK(map.get(20s).size() == 40);
    CHECK(all_ran_once(*runs, 50));
  }
}

TEST_CASE("items about as long as their limit end as value or TimeoutError, run once at the most",
          "[fault][limits]") {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::size_t late = 0;
  std::size_t never_ran = 0;
  std::size_t wrong = 0;
  constexpr long count = 700;
  for (const long chunksize : {1L, 13L, 700L}) {
    shared<run_counts> runs;
    procpool::Pool pool{2};
    std::vector<std::pair<long, long>> items;  // index, microseconds
    std::uniform_int_distribution<long> length(0, 2000);
    for (long i = 0; i < count; ++i) items.emplace_back(i, length(random));
    const auto task = [runs = runs.get()](long index, long time) {
      ++(*runs)[static_cast<std::size_t>(index)];
      spin(std::chrono::microseconds(time));
      return index;
    };
    const auto outcomes =
        pool.starmap_outcomes(task, items, {.chunksize = chunksize, .timeout = 1ms});
    REQUIRE(outcomes.size() == count);
    for (std::size_t i = 0; i < count; ++i) {
      const int ran = (*runs)[i];
      if (outcomes[i]) {
        wrong += *outcomes[i] == long(i) && ran == 1 ? 0U : 1U;
      } else {
        wrong += failed_with<TimeoutError>(outcomes[i].error()) && ran <= 1 ? 0U : 1U;
        never_ran += ran == 0 ? 1U : 0U;  // it lost its CPU just when it was to begin
        ++late;
      }
    }
    CHECK(pool.map(square, numbers(100)).back() == 99 * 99);
  }
  std::printf(
      "items about as long as their limit: 2100, %zu too late (%zu had not begun), %zu "
      "outcomes wrong\n",
      late, never_ran, wrong);
  CHECK(wrong == 0);
  CHECK(late > 50);
  CHECK(never_ran <= 5);
}

TEST_CASE("an item that finishes while its worker is being killed counts, each time",
          "[fault][limits]") {
  shared<run_counts> runs;
  // Orders to kill are slow here, so the items are done when they come.
  before_system_call = [](const char* call) {
    if (std::strncmp(call, "sendmsg", 7) == 0) std::this_thread::sleep_for(60ms);
  };
  procpool::Pool pool{1};
  const auto task = [count = runs.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    std::this_thread::sleep_for(30ms);
    return x;
  };
  const auto outcomes = pool.map_outcomes(task, numbers(24), {.chunksize = 24, .timeout = 10ms});
  before_system_call = nullptr;
  std::size_t values = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    INFO("item " << i);
    values += outcomes[i] ? 1U : 0U;
    if (!outcomes[i]) CHECK(failed_with<TimeoutError>(outcomes[i].error()));
  }
  CHECK(all_ran_once(*runs, 24));
  std::printf("killed when it was done: %zu of 24 items\n", values);
}

TEST_CASE("the limit of a task in a stopped worker works", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  const auto brief = [](std::atomic<pid_t>* at) {
    return [at] {
      *at = getpid();
      std::this_thread::sleep_for(100ms);
      return 1;
    };
  };
  for (int round = 0; round < 5; ++round) {
    *where = 0;
    auto result = pool.apply_async({.timeout = 300ms}, brief(where.get()));
    REQUIRE(begun(*where));
    REQUIRE(kill(*where, SIGSTOP) == 0);
    CHECK_THROWS_AS(result.get(20s), TimeoutError);
    CHECK(gone(*where));
  }
  CHECK(pool.apply({.timeout = 5s}, brief(where.get())) == 1);
}

TEST_CASE("limits that are no span of time are refused", "[fault][limits]") {
  procpool::Pool pool{1};
  for (const double bad : {0.0, -0.0, -1e-9, -3.0, -infinity, std::nan("")}) {
    const procpool::time_limit limit(bad);
    const auto error =
        caught<std::invalid_argument>([&] { return pool.apply({.timeout = limit}, square, 1); });
    CHECK(contains(error.what(), "timeout must be positive"));
    CHECK_THROWS_AS(pool.apply_async({.timeout = limit}, square, 1), std::invalid_argument);
    CHECK_THROWS_AS(pool.map(square, numbers(2), {.timeout = limit}), std::invalid_argument);
    CHECK_THROWS_AS(pool.map(square, numbers(0), {.timeout = limit}), std::invalid_argument);
    CHECK_THROWS_AS(pool.map_outcomes(square, numbers(2), {.timeout = limit}),
                    std::invalid_argument);
    CHECK_THROWS_AS(pool.map_async(square, numbers(2), {.timeout = limit}), std::invalid_argument);
    CHECK_THROWS_AS(pool.imap(square, numbers(2), {.timeout = limit}), std::invalid_argument);
  }
  CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("huge limits are any time, and tiny ones are over at once", "[fault][limits]") {
  procpool::Pool pool{1};
  for (const procpool::time_limit huge :
       {procpool::time_limit(std::chrono::hours::max()), procpool::time_limit::max(),
        procpool::time_limit(infinity), procpool::time_limit(std::chrono::nanoseconds::max()),
        procpool::time_limit(9.2e9), procpool::time_limit(9.3e9), procpool::time_limit(1e9)}) {
    CHECK(pool.apply({.timeout = huge}, square, 3) == 9);
    CHECK(pool.apply_async({.timeout = huge}, square, 3).get() == 9);
    CHECK(pool.map(square, numbers(5), {.timeout = huge}).back() == 16);
  }
  for (const procpool::time_limit tiny :
       {procpool::time_limit(std::numeric_limits<double>::denorm_min()),
        procpool::time_limit(1e-9)}) {
    CHECK_THROWS_AS(pool.apply({.timeout = tiny}, sleep_for_ms, 60'000), TimeoutError);
  }
  CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("limits hold while nobody waits", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{1};
  std::atomic<int> told{0};
  auto late = pool.apply_async(
      {.timeout = 200ms, .error_callback = [&](const std::exception_ptr&) { ++told; }},
      endless{where.get()});
  auto behind = pool.apply_async(square, 3);
  CHECK(eventually([&] { return late.ready() && behind.ready(); }, 20s));
  CHECK(told == 1);
  CHECK_THROWS_AS(late.get(), TimeoutError);
  CHECK(behind.get() == 9);
}

TEST_CASE("limits hold while a thread waits for something else", "[fault][limits]") {
  shared<support::gate> gate;
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  std::jthread waits([&] { pool.apply([door = gate.get()] { door->pass(); }); });
  REQUIRE(gate->wait_for(1));
  std::this_thread::sleep_for(600ms);  // it sleeps deeply, and the service thread dozes
  const auto begin = steady_clock::now();
  auto late = pool.apply_async({.timeout = 100ms}, endless{where.get()});
  CHECK(eventually([&] { return late.ready(); }, 20s));
  CHECK(steady_clock::now() - begin < 10s);
  CHECK_THROWS_AS(late.get(), TimeoutError);
  CHECK_THROWS_AS(pool.apply({.timeout = 100ms}, endless{where.get()}), TimeoutError);
  gate->open();
}

TEST_CASE("many short tasks with a limit cost little more than without", "[fault][limits]") {
  procpool::Pool pool{2};
  const auto run = [&](procpool::task_options<long> options) {
    const auto begin = steady_clock::now();
    std::vector<procpool::AsyncResult<long>> results;
    results.reserve(100'000);
    for (long i = 0; i < 100'000; ++i) results.push_back(pool.apply_async(options, square, i));
    long wrong = 0;
    for (long i = 0; i < 100'000; ++i) {
      wrong += results[static_cast<std::size_t>(i)].get() == i * i ? 0 : 1;
    }
    CHECK(wrong == 0);
    return steady_clock::now() - begin;
  };
  const auto without = run({});
  const auto with = run({.timeout = 1h, .retries = 3});
  std::printf("100,000 tasks: %ld ms without a limit, %ld ms with one\n", long(without / 1ms),
              long(with / 1ms));
  CHECK(with < 20s);
}

// ---- cancelling -------------------------------------------------------------------------------

TEST_CASE("cancelling a pending task removes it", "[fault][limits]") {
  shared<support::gate> gate;
  shared<std::atomic<int>> ran;
  procpool::Pool pool{1};
  auto running = pool.apply_async([door = gate.get()] { return door->pass(), 1; });
  REQUIRE(gate->wait_for(1));
  for (const bool kill : {false, true}) {
    auto pending = pool.apply_async([count = ran.get()] { ++*count; });
    CHECK(pending.cancel({.kill = kill}));
    CHECK(pending.ready());
    CHECK_THROWS_AS(pending.get(), CancelledError);
    CHECK_FALSE(pending.cancel({.kill = kill}));
  }
  gate->open();
  CHECK(running.get() == 1);
  CHECK(pool.apply(square, 3) == 9);
  CHECK(*ran == 0);
}

TEST_CASE("a running task is left alone by cancel, unless it is to be killed", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  shared<std::atomic<int>> ran;
  procpool::Pool pool{1};
  for (int round = 0; round < 20; ++round) {
    *where = 0;
    *ran = 0;
    auto running = pool.apply_async(endless{where.get()});
    REQUIRE(begun(*where));
    auto behind = pool.apply_async([count = ran.get()] { return ++*count; });
    CHECK_FALSE(running.cancel());
    CHECK_FALSE(running.ready());
    CHECK(running.cancel({.kill = true}));
    CHECK_THROWS_AS(running.get(), CancelledError);
    CHECK(behind.get(20s) == 1);
    CHECK(gone(*where));
    CHECK_FALSE(running.cancel({.kill = true}));
  }
  auto done = pool.apply_async(square, 3);
  done.wait();
  CHECK_FALSE(done.cancel({.kill = true}));
  CHECK(done.get() == 9);
}

TEST_CASE("cancelling a map with kill ends what runs of it and nothing else", "[fault][limits]") {
  shared<run_counts> runs;
  shared<std::array<std::atomic<pid_t>, 2>> where;
  procpool::Pool pool{3};
  for (int round = 0; round < 20; ++round) {
    for (auto& each : *runs) each = 0;
    for (auto& each : *where) each = 0;
    auto doomed = pool.map_async(
        [at = where.get()](long x) {
          if (x < 2) endless{&(*at)[static_cast<std::size_t>(x)]}();
          return x;
        },
        numbers(200), {.chunksize = 1});
    auto other = pool.map_async(
        [count = runs.get()](long x) {
          ++(*count)[static_cast<std::size_t>(x)];
          return x;
        },
        numbers(200), {.chunksize = 3});
    REQUIRE(begun((*where)[0]));
    REQUIRE(begun((*where)[1]));
    CHECK(doomed.cancel({.kill = true}));
    CHECK_THROWS_AS(doomed.get(), CancelledError);
    CHECK(other.get(20s) == numbers(200));
    CHECK(all_ran_once(*runs, 200));
    CHECK(gone((*where)[0]));
    CHECK(gone((*where)[1]));
  }
  auto spared = pool.map_async(sleep_for_ms, std::vector<long>(30, 20), {.chunksize = 1});
  REQUIRE(eventually([] { return worker_processes().size() == 3; }));
  const auto before = worker_processes();
  CHECK(spared.cancel());
  CHECK_THROWS_AS(spared.get(), CancelledError);
  CHECK(pool.map(square, numbers(20)).back() == 361);
  CHECK(worker_processes() == before);  // none was killed for it
}

TEST_CASE("whenever a map is cancelled with kill, none of its tasks goes on", "[fault][limits]") {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::uniform_int_distribution<long> moment(0, 1500);
  procpool::Pool pool{2};
  constexpr int rounds = 150;
  for (int round = 0; round < rounds; ++round) {
    // Short chunks, then some that last: the cancel comes when one follows the other.
    auto doomed = pool.map_async(
        [](long x) {
          spin(100us);
          if (x >= 10) std::this_thread::sleep_for(1h);
        },
        numbers(14), {.chunksize = 1});
    std::this_thread::sleep_for(std::chrono::microseconds(moment(random)));
    CHECK(doomed.cancel({.kill = true}));
    CHECK_THROWS_AS(doomed.get(), CancelledError);
    auto first = pool.map_async(sleep_for_ms, std::vector<long>(4, 1), {.chunksize = 1});
    REQUIRE(first.wait(20s));  // both workers are free
  }
  std::printf("cancelled with kill: %d maps at random moments, none went on\n", rounds);
}

// ---- stop tokens ------------------------------------------------------------------------------

TEST_CASE("a stop that was requested before ends the call", "[fault][limits]") {
  procpool::Pool pool{2};
  std::stop_source stopped;
  stopped.request_stop();
  const auto token = stopped.get_token();
  CHECK_THROWS_AS(pool.apply({.stop = token}, sleep_for_ms, 60'000), CancelledError);
  const std::vector<long> items(20, 60'000);
  CHECK_THROWS_AS(pool.map(sleep_for_ms, items, {.stop = token}), CancelledError);
  for (const auto& each : pool.map_outcomes(sleep_for_ms, items, {.stop = token})) {
    CHECK(failed_with<CancelledError>(each.error()));
  }
  auto result = pool.apply_async(sleep_for_ms, 300);
  CHECK_FALSE(result.wait(token));
  CHECK_THROWS_AS(result.get(token), CancelledError);
  CHECK_NOTHROW(result.get(20s));  // it went on
  CHECK(result.wait(token));       // it is there
  CHECK_NOTHROW(result.get(token));
  CHECK(pool.map(square, numbers(20)).back() == 361);
}

TEST_CASE("a stop while it runs ends a call and its worker", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  for (int round = 0; round < 10; ++round) {
    *where = 0;
    std::stop_source source;
    std::jthread stops([&] {
      static_cast<void>(begun(*where));
      source.request_stop();
    });
    CHECK_THROWS_AS(pool.apply({.stop = source.get_token()}, endless{where.get()}), CancelledError);
    CHECK(gone(*where));
  }
  *where = 0;
  std::stop_source source;
  std::jthread stops([&] {
    static_cast<void>(begun(*where));
    source.request_stop();
  });
  const auto task = [at = where.get()](long x) {
    if (x == 7) endless{at}();
    return x;
  };
  const auto outcomes =
      pool.map_outcomes(task, numbers(40), {.chunksize = 1, .stop = source.get_token()});
  REQUIRE(outcomes.size() == 40);
  CHECK(outcomes[0].has_value());
  CHECK(failed_with<CancelledError>(outcomes[7].error()));
  CHECK(pool.map(square, numbers(20)).back() == 361);
}

TEST_CASE("a stop after the result was there changes nothing", "[fault][limits]") {
  procpool::Pool pool{2};
  std::stop_source source;
  CHECK(pool.apply({.stop = source.get_token()}, square, 3) == 9);
  auto result = pool.apply_async(square, 4);
  result.wait();
  source.request_stop();
  CHECK(result.get(source.get_token()) == 16);
}

TEST_CASE("stops from several threads at random moments: a value or CancelledError",
          "[fault][limits]") {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::uniform_int_distribution<long> length(0, 2000);
  procpool::Pool pool{2};
  int values = 0;
  int stopped = 0;
  int wrong = 0;
  for (int round = 0; round < 200; ++round) {
    std::stop_source source;
    const long moment = length(random);
    const auto stop = [&] {
      spin(std::chrono::microseconds(moment));
      source.request_stop();
    };
    std::jthread one(stop);
    std::jthread two(stop);
    try {
      const long time = length(random);
      const auto work = [time](long x) {
        spin(std::chrono::microseconds(time));
        return x;
      };
      if (round % 2 == 0) {
        wrong += pool.apply({.stop = source.get_token()}, work, 3) == 3 ? 0 : 1;
      } else {
        const std::vector<long> items{1, 2, 3};
        wrong += pool.map(work, items, {.stop = source.get_token()}) == items ? 0 : 1;
      }
      ++values;
    } catch (const CancelledError&) {
      ++stopped;
    }
  }
  std::printf("stops at random moments: %d values, %d CancelledErrors\n", values, stopped);
  CHECK(wrong == 0);
  CHECK(values + stopped == 200);
  CHECK(values > 0);
  CHECK(stopped > 0);
}

TEST_CASE("an imap whose reader was stopped goes on later", "[fault][limits]") {
  shared<support::gate> gate;
  procpool::Pool pool{2};
  for (const bool ordered : {true, false}) {
    gate->opened = false;
    const auto task = [door = gate.get()](long x) {
      door->pass();
      return x;
    };
    const auto items = numbers(6);
    auto results = ordered ? pool.imap(task, items) : pool.imap_unordered(task, items);
    std::stop_source source;
    std::jthread stops([&] {
      std::this_thread::sleep_for(50ms);
      source.request_stop();
    });
    CHECK_THROWS_AS(results.next(source.get_token()), CancelledError);
    CHECK_THROWS_AS(results.next(source.get_token()), CancelledError);
    gate->open();
    std::set<long> seen;
    std::stop_source unused;
    while (const auto each = results.next(unused.get_token())) seen.insert(*each);
    CHECK(seen.size() == 6);
  }
}

TEST_CASE("a join that was stopped can be repeated", "[fault][limits]") {
  shared<support::gate> gate;
  procpool::Pool pool{2};
  auto result = pool.apply_async([door = gate.get()] { return door->pass(), 5; });
  pool.close();
  std::stop_source before;
  before.request_stop();
  CHECK_FALSE(pool.join(before.get_token()));
  std::stop_source source;
  std::jthread stops([&] {
    std::this_thread::sleep_for(50ms);
    source.request_stop();
  });
  CHECK_FALSE(pool.join(source.get_token()));
  CHECK_FALSE(result.ready());
  gate->open();
  CHECK(pool.join(std::stop_source{}.get_token()));
  CHECK(result.get() == 5);
}

TEST_CASE("a stop requested in a callback ends the wait of another thread", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  std::stop_source source;
  std::jthread stops([&] {
    static_cast<void>(begun(*where));
    static_cast<void>(
        pool.apply_async({.callback = [&](long&) { source.request_stop(); }}, square, 3));
  });
  CHECK_THROWS_AS(pool.apply({.stop = source.get_token()}, endless{where.get()}), CancelledError);
  stops.join();
  CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("stop callbacks may use the pool", "[fault][limits]") {
  shared<std::atomic<pid_t>> where;
  procpool::Pool pool{2};
  std::stop_source source;
  long answer = 0;
  const std::stop_callback asks(source.get_token(), [&] { answer = pool.apply(square, 5); });
  std::jthread stops([&] {
    static_cast<void>(begun(*where));
    source.request_stop();
  });
  CHECK_THROWS_AS(pool.apply({.stop = source.get_token()}, endless{where.get()}), CancelledError);
  stops.join();
  CHECK(answer == 25);
}

// ---- memory -----------------------------------------------------------------------------------

namespace {

// Takes so much memory, uses it and gives it back.
pid_t take_memory(std::size_t bytes) {
  const std::vector<char> memory(bytes, 'x');
  if (memory[bytes / 2] != 'x') std::abort();
  return getpid();
}

}  // namespace

TEST_CASE("a task that takes too much memory fails and its worker goes on", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .memory_limit = 64 * mebibyte}};
  const pid_t before = pool.apply(take_memory, 16 * mebibyte);
  try {
    pool.apply(take_memory, 512 * mebibyte);
    FAIL("it should have thrown");
  } catch (const procpool::MemoryLimitError& error) {
    INFO(error.what());
    const std::bad_alloc& base = error;
    CHECK(contains(base.what(), std::to_string(64 * mebibyte)));
    CHECK_THROWS_AS(std::rethrow_if_nested(error), procpool::RemoteTraceback);
  }
  CHECK_THROWS_AS(pool.apply(take_memory, 512 * mebibyte), std::bad_alloc);
  CHECK(pool.apply(take_memory, 16 * mebibyte) == before);

  const auto outcomes =
      pool.map_outcomes(take_memory, std::vector<std::size_t>{1, 1 << 30, mebibyte, 1 << 29, 3},
                        {.chunksize = 5, .retries = 2});
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(outcomes[i].has_value() == (i % 2 == 0));
    if (i % 2 == 0) CHECK(*outcomes[i] == before);
    if (i % 2 == 1) CHECK(failed_with<procpool::MemoryLimitError>(outcomes[i].error()));
  }
}

TEST_CASE("code that does not look at what malloc returns crashes, and that is reported",
          "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .memory_limit = 64 * mebibyte}};
  const auto died = caught<WorkerDied>([&] {
    return pool.apply([] {
      volatile std::size_t size = 512 * mebibyte;
      auto* memory = static_cast<volatile char*>(std::malloc(size));
      memory[100] = 'x';
      return memory[100];
    });
  });
  CHECK(died.signal() == SIGSEGV);
  CHECK(pool.apply(take_memory, mebibyte) > 0);
}

TEST_CASE("each worker has its own memory limit", "[fault][limits]") {
  shared<support::gate> gate;
  procpool::Pool pool{{.processes = 4, .memory_limit = 48 * mebibyte}};
  auto all = pool.map_async(
      [door = gate.get()](long) {
        const std::vector<char> memory(32 * mebibyte, 'x');
        door->pass();
        return getpid();
      },
      numbers(4), {.chunksize = 1});
  CHECK(gate->wait_for(4));
  gate->open();
  const auto pids = all.get();
  CHECK(std::set<pid_t>(pids.begin(), pids.end()).size() == 4);
}

TEST_CASE("the memory that a worker is born with does not count", "[fault][limits]") {
  const std::vector<char> fat(300 * mebibyte, 'x');
  procpool::Pool pool{{.processes = 1, .memory_limit = 64 * mebibyte}};
  CHECK(pool.apply(take_memory, 40 * mebibyte) > 0);
  CHECK_THROWS_AS(pool.apply(take_memory, 128 * mebibyte), procpool::MemoryLimitError);
  CHECK(fat[mebibyte] == 'x');
}

TEST_CASE("the largest memory limit is none", "[fault][limits]") {
  for (const std::size_t limit :
       {std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max() / 2}) {
    procpool::Pool pool{{.processes = 1, .memory_limit = limit}};
    CHECK(pool.apply(take_memory, 40 * mebibyte) > 0);
  }
}

TEST_CASE("a worker whose memory is full to the brim holds nothing up", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .memory_limit = 8 * mebibyte}};
  int shortages = 0;
  int deaths = 0;
  for (int round = 0; round < 6; ++round) {
    try {
      pool.apply([] {
        static std::vector<std::vector<char>>* const kept = new std::vector<std::vector<char>>;
        static void* volatile last;
        for (std::size_t size = 4096; size > 0; size /= 2) {
          do {
            last = std::malloc(size);
          } while (last != nullptr);
        }
        kept->emplace_back(mebibyte);  // throws
      });
      FAIL("it should have thrown");
    } catch (const std::bad_alloc&) {
      ++shortages;
    } catch (const WorkerDied&) {
      ++deaths;
    }
  }
  std::printf("memory full to the brim: %d shortages reported, %d workers died\n", shortages,
              deaths);
  CHECK(shortages == 6);
  CHECK(pool.apply(take_memory, 2 * mebibyte) > 0);  // a new worker, since the old one was full
}

TEST_CASE("a memory limit that leaves nothing breaks the pool or works, but hangs nothing",
          "[fault][limits]") {
  for (const std::size_t limit : {std::size_t{1}, std::size_t{4096}, std::size_t{100'000}}) {
    procpool::Pool pool{{.processes = 2, .memory_limit = limit}};
    try {
      CHECK(pool.apply_async(square, 3).get(30s) == 9);
    } catch (const procpool::BrokenPool& broken) {
      std::printf("memory limit %zu: %s\n", limit, broken.what());
    } catch (const std::bad_alloc&) {
    } catch (const WorkerDied&) {
    }
  }
}

// ---- CPU time ---------------------------------------------------------------------------------

TEST_CASE("a task that uses too much CPU time ends with TimeoutError", "[fault][limits]") {
  shared<run_counts> runs;
  procpool::Pool pool{{.processes = 1, .cpu_limit = 100ms}};
  const auto late = caught<TimeoutError>([&] { return pool.apply([] { return burn(1h), 1; }); });
  INFO(late.what());
  CHECK(contains(late.what(), "CPU time"));
  CHECK(contains(late.what(), "0.1 s"));
  CHECK_NOTHROW(pool.apply([] { burn(20ms); }));

  const auto outcomes = pool.map_outcomes(
      [count = runs.get()](long x) {
        ++(*count)[static_cast<std::size_t>(x)];
        if (x == 3) burn(1h);
        return x;
      },
      numbers(8), {.chunksize = 8});
  for (std::size_t i = 0; i < 8; ++i) CHECK(outcomes[i].has_value() == (i != 3));
  CHECK(failed_with<TimeoutError>(outcomes[3].error()));
  CHECK(all_ran_once(*runs, 8));
  CHECK(pool.apply({.retries = 2}, [] {
    if (procpool::current_worker().attempt() < 3) burn(1h);
    return procpool::current_worker().attempt();
  }) == 3);
}

TEST_CASE("sleeping uses no CPU time, threads of a task do", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .cpu_limit = 150ms}};
  CHECK_NOTHROW(pool.apply(sleep_for_ms, 500));
  CHECK_THROWS_AS(pool.apply([] {
    std::jthread one([] { burn(1h); });
    std::jthread two([] { burn(1h); });
  }),
                  TimeoutError);
}

TEST_CASE("each item has its CPU time anew, and none while the worker idles", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .cpu_limit = 200ms}};
  const auto work = [](long x) {
    burn(60ms);
    return std::pair<long, long>(x, getpid());
  };
  const auto results = pool.map(work, numbers(12), {.chunksize = 12});
  for (const auto& each : results) CHECK(each.second == results[0].second);
  for (long i = 0; i < 6; ++i) CHECK(pool.apply(work, i).second == results[0].second);
}

TEST_CASE("an item is not charged for the CPU time of the one before", "[fault][limits]") {
  static shared<run_counts>* runs = nullptr;
  shared<run_counts> counts;
  runs = &counts;
  // The moment between two items is long here: what the first one left of its time runs out in it.
  before_system_call = [](const char* call) {
    const bool between = (**runs)[0] == 1 && std::strncmp(call, "timer_settime", 13) == 0;
    if (between && ++(**runs)[100] == 1) burn(150ms);
  };
  procpool::Pool pool{{.processes = 1, .cpu_limit = 200ms}};
  const auto outcomes = pool.map_outcomes(
      [](long x) {
        ++(**runs)[static_cast<std::size_t>(x)];
        if (x == 0) burn(120ms);
        return x;
      },
      numbers(4), {.chunksize = 4});
  before_system_call = nullptr;
  CHECK((*counts)[100] > 0);
  for (std::size_t i = 0; i < 4; ++i) {
    INFO("item " << i);
    CHECK(outcomes[i].has_value());
  }
  CHECK(all_ran_once(*counts, 4));
}

TEST_CASE("the initializer has the CPU time it needs", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .initializer = {[] { burn(300ms); }}, .cpu_limit = 100ms}};
  CHECK(pool.apply(square, 3) == 9);
}

// ---- recycling --------------------------------------------------------------------------------

namespace {

// How many tasks in a row each worker has run.
std::vector<int> lives(procpool::Pool<>& pool, int tasks) {
  std::vector<int> found;
  pid_t last = 0;
  for (int i = 0; i < tasks; ++i) {
    const pid_t now = pool.apply(worker_pid);
    if (std::exchange(last, now) != now) found.push_back(0);
    ++found.back();
  }
  found.pop_back();  // has not ended yet
  return found;
}

}  // namespace

TEST_CASE("without jitter a worker leaves after exactly its number of tasks", "[fault][limits]") {
  procpool::Pool pool{{.processes = 1, .maxtasksperchild = 7, .recycle_jitter = 0}};
  for (const int each : lives(pool, 70)) CHECK(each == 7);
}

TEST_CASE("jitter spreads when workers leave", "[fault][limits]") {
  procpool::Pool half{{.processes = 1, .maxtasksperchild = 40, .recycle_jitter = 0.5}};
  const auto found = lives(half, 900);
  REQUIRE(found.size() >= 20);
  const auto [least, most] = std::minmax_element(found.begin(), found.end());
  std::printf("recycling after 40 tasks, jitter 0.5: %zu lives of %d to %d tasks\n", found.size(),
              *least, *most);
  CHECK(*least >= 20);
  CHECK(*most <= 40);
  CHECK(*most - *least >= 5);
  procpool::Pool all{{.processes = 1, .maxtasksperchild = 10, .recycle_jitter = 1}};
  for (const int each : lives(all, 100)) {
    CHECK(each >= 1);
    CHECK(each <= 10);
  }
}

TEST_CASE("a worker that has grown too large is replaced between two tasks", "[fault][limits]") {
  shared<run_counts> runs;
  procpool::Pool pool{{.processes = 2, .max_resident = 96 * mebibyte}};
  const auto leak = [count = runs.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    static std::vector<std::vector<char>> lost;
    lost.emplace_back(8 * mebibyte, 'x');
    sleep_for_ms(2);
    return std::pair<long, long>(x, getpid());
  };
  std::map<long, int> tasks;
  for (const auto& [x, pid] : pool.map(leak, numbers(100), {.chunksize = 1})) ++tasks[pid];
  CHECK(all_ran_once(*runs, 100));
  int most = 0;
  for (const auto& [pid, count] : tasks) most = std::max(most, count);
  std::printf("leaking 8 MiB a task, at most 96 MiB: %zu workers, at most %d tasks each\n",
              tasks.size(), most);
  CHECK(tasks.size() >= 7);
  CHECK(most <= 13);
}

TEST_CASE("a limit below what a worker is born with replaces it after every task",
          "[fault][limits]") {
  shared<run_counts> runs;
  procpool::Pool pool{{.processes = 2, .max_resident = 1, .recycle_jitter = 1}};
  const auto task = [count = runs.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    sleep_for_ms(2);
    return x;
  };
  CHECK(pool.map(task, numbers(60), {.chunksize = 1}) == numbers(60));
  CHECK(all_ran_once(*runs, 60));
}

// ---- options ----------------------------------------------------------------------------------

TEST_CASE("options of a pool that cannot be are refused by name", "[fault][limits]") {
  const double nan = std::nan("");
  const std::vector<std::pair<procpool::pool_options, std::string>> bad{
      {{.memory_limit = 0}, "memory_limit"},
      {{.max_resident = 0}, "max_resident"},
      {{.max_result_bytes = 0}, "max_result_bytes"},
      {{.cpu_limit = 0s}, "cpu_limit"},
      {{.cpu_limit = -1s}, "cpu_limit"},
      {{.cpu_limit = procpool::time_limit(nan)}, "cpu_limit"},
      {{.recycle_jitter = -0.1}, "recycle_jitter"},
      {{.recycle_jitter = 1.1}, "recycle_jitter"},
      {{.recycle_jitter = nan}, "recycle_jitter"},
      {{.processes = 0}, "processes"},
      {{.maxtasksperchild = 0}, "maxtasksperchild"},
  };
  for (const auto& [options, name] : bad) {
    INFO(name);
    const auto error =
        caught<std::invalid_argument>([&options = options] { return procpool::Pool(options), 0; });
    CHECK(contains(error.what(), name));
  }
  for (const procpool::time_limit huge :
       {procpool::time_limit(std::chrono::hours::max()), procpool::time_limit(infinity)}) {
    procpool::Pool pool{{.processes = 1, .cpu_limit = huge}};
    CHECK(pool.apply(square, 3) == 9);
  }
  procpool::Pool tiny{{.processes = 1, .cpu_limit = procpool::time_limit(1e-300)}};
  CHECK_THROWS_AS(tiny.apply([] { burn(1h); }), TimeoutError);
}
