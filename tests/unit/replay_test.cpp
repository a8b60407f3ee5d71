// SPDX-License-Identifier: MIT
// replay(): what failed runs once more, here, with the very same arguments.
#include <signal.h>

#include <catch2/catch_test_macros.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

#include "support/shared.hpp"

namespace sample {

/// Workers encode it, nobody can decode it.
struct unreadable {
  std::string text;
};

}  // namespace sample

template <>
struct procpool::codec<sample::unreadable> {
  static void encode(encoder& out, const sample::unreadable& value) { out.put(value.text); }
  static sample::unreadable decode(decoder& in) {
    static_cast<void>(in.get<std::string>());
    throw std::runtime_error("nobody can read this");
  }
};

namespace {

/// What a task was called with the last time in this process.
struct call {
  std::string text;
  std::vector<int> numbers;
  std::uint64_t number = 0;
  std::uint64_t random = 0;
  int attempt = 0;
};
call last;

int remember(const std::string& text, const std::vector<int>& numbers) {
  const auto& worker = procpool::current_worker();
  last = {text, numbers, worker.task_number(), worker.random()(), worker.attempt()};
  throw std::out_of_range(text + " " + std::to_string(last.number) + " " +
                          std::to_string(last.random));
}

bool in_the_program() {
  return procpool::current_process().name() == "MainProcess";
}

int die_in_a_worker(int x) {
  last.number = procpool::current_worker().task_number();
  last.attempt = procpool::current_worker().attempt();
  if (x == 57 && !in_the_program()) raise(SIGKILL);
  if (x == 57) throw std::range_error("57");
  return x;
}

int fail_at_57(int x) {
  if (x == 57) throw std::range_error("57");
  return x;
}

std::vector<int> up_to(int n) {
  std::vector<int> items;
  for (int i = 0; i < n; ++i) items.push_back(i);
  return items;
}

template <class Result>
void check_replays_57(const Result& result) {
  result.wait();
  CHECK_THROWS_AS(result.replay(), std::range_error);
  CHECK_THROWS_AS(result.replay(), std::range_error);  // any number of times
}

}  // namespace

TEST_CASE("replay of a task that threw: same arguments, number and random numbers", "[replay]") {
  procpool::Pool pool{2};
  static_cast<void>(pool.apply([] { return 1; }));  // so that its number is not 0
  const auto result = pool.apply_async(remember, "abc", std::vector<int>{1, 2, 3});
  std::string there;
  try {
    result.get();
  } catch (const std::out_of_range& error) {
    there = error.what();
  }
  std::string here;
  try {
    result.replay();
  } catch (const std::out_of_range& error) {
    here = error.what();
  }
  CHECK(here == there);
  CHECK(last.text == "abc");
  CHECK(last.numbers == std::vector<int>{1, 2, 3});
  CHECK(last.number == 1);
  CHECK(last.attempt == 1);
}

TEST_CASE("replay by WorkerDied: the item that killed its worker", "[replay]") {
  procpool::Pool pool{2};
  last = {};
  try {
    pool.map(die_in_a_worker, up_to(100), {.chunksize = 20, .retries = 1});
    FAIL("nothing died");
  } catch (const procpool::WorkerDied& died) {
    CHECK(died.item() == 57);
    CHECK_THROWS_AS(died.replay(), std::range_error);
    CHECK(last.number == 57);
    CHECK(last.attempt == 2);
  }
}

TEST_CASE("replay of a map: the first item that failed, by index", "[replay]") {
  procpool::Pool pool{2};
  check_replays_57(pool.map_async(fail_at_57, up_to(100)));
  check_replays_57(pool.map_async(fail_at_57, up_to(100), {.chunksize = 1}));
  check_replays_57(pool.map_outcomes_async(fail_at_57, up_to(100)));
  check_replays_57(pool.map_async([](int x) { return std::to_string(fail_at_57(x)); }, up_to(100)));
  const auto two = pool.map_async(
      [](int x) {
        if (x == 3) throw std::range_error("3");
        if (x == 90) throw std::out_of_range("90");
        return x;
      },
      up_to(100), {.chunksize = 1});
  two.wait();
  CHECK_THROWS_AS(two.replay(), std::range_error);
}

TEST_CASE("replay of large arguments, in the arena and streamed", "[replay]") {
  struct sum {
    long operator()(const std::vector<long>& numbers) const {
      throw std::length_error(
          std::to_string(numbers.size() + static_cast<std::size_t>(numbers.back())));
    }
  };
  procpool::Pool pool{
      {.processes = 1, .arena_bytes = std::size_t{1} << 20, .replay_bytes = std::size_t{64} << 20}};
  for (const std::size_t size : {std::size_t{20'000}, std::size_t{1'000'000}}) {
    const auto result = pool.apply_async(sum{}, std::vector<long>(size, 7));
    CHECK_THROWS_AS(result.get(), std::length_error);
    CHECK_THROWS_AS(result.replay(), std::length_error);
  }
}

TEST_CASE("replay of a callable that is shared by the chunks of a map", "[replay]") {
  struct table {
    std::vector<int> numbers;
    int operator()(int i) const { return fail_at_57(numbers[static_cast<std::size_t>(i)]); }
  };
  procpool::Pool pool{2};
  check_replays_57(pool.map_async(table{up_to(5'000)}, up_to(100), {.chunksize = 10}));
}

TEST_CASE("replay of an item whose result could not be decoded", "[replay]") {
  const auto make = [](int size) {
    last.number = static_cast<std::uint64_t>(size);
    return sample::unreadable{std::string(static_cast<std::size_t>(size), 'x')};
  };
  const auto check = [&](auto pool) {
    for (const int size : {5, 3'000'000}) {
      const auto result = pool->apply_async(make, size);
      CHECK_THROWS_AS(result.get(), std::runtime_error);
      last.number = 0;
      CHECK_NOTHROW(result.replay());
      CHECK(last.number == static_cast<std::uint64_t>(size));
    }
  };
  check(std::make_unique<procpool::Pool<>>(1));
  check(std::make_unique<procpool::Pool<procpool::Serial>>());
}

TEST_CASE("replay when there is nothing to replay says so", "[replay]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{{.processes = 1, .replay_bytes = 100}};
  const auto waiting = pool.apply_async([gate = door.get()] { gate->pass(); });
  CHECK_THROWS_AS(waiting.replay(), std::logic_error);  // not ready
  door->open();
  waiting.get();
  CHECK_THROWS_AS(waiting.replay(), std::logic_error);  // did not fail
  const auto large = pool.apply_async(remember, std::string(1'000, 'x'), std::vector<int>{});
  large.wait();
  CHECK_THROWS_AS(large.replay(), std::logic_error);  // too large to keep
  const auto cancelled = pool.apply_async(fail_at_57, 57);
  pool.terminate();
  cancelled.wait();
}

TEST_CASE("replay when the pool has gone, by another thread's pool, and in Serial and threads",
          "[replay]") {
  auto kept = [] {
    procpool::Pool pool{1};
    auto result = pool.apply_async(fail_at_57, 57);
    result.wait();
    return result;
  }();
  check_replays_57(kept);
  procpool::ThreadPool threads{2};
  check_replays_57(threads.map_async(fail_at_57, up_to(100)));
  procpool::Pool<procpool::Serial> serial;
  check_replays_57(serial.map_async(fail_at_57, up_to(100)));
}

TEST_CASE("replay inside a task, and of a task that submits to a pool", "[replay]") {
  procpool::Pool pool{1};
  const bool right = pool.apply([] {
    procpool::Pool inner{1};
    const auto result = inner.apply_async(fail_at_57, 57);
    result.wait();
    const auto number = procpool::current_worker().task_number();
    try {
      result.replay();
    } catch (const std::range_error&) {
      return procpool::current_worker().task_number() == number;  // as it was before
    }
    return false;
  });
  CHECK(right);
  CHECK_THROWS_AS(procpool::current_worker(), std::logic_error);
}
