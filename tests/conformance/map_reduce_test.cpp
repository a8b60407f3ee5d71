// SPDX-License-Identifier: MIT
// Pool::map_reduce, measured against functools.reduce over a map.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <list>
#include <map>
#include <numeric>
#include <optional>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

#include "support/shared.hpp"
#include "tasks.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using procpool::current_worker;
using support::shared;

long squared(long x) {
  return x * x;
}
long add(long a, long b) {
  return a + b;
}
std::string text_of(long x) {
  return std::to_string(x) + ",";
}
std::string joined(std::string a, const std::string& b) {
  return std::move(a) + b;
}

/// What a reduction over 0 .. n-1 in one go gives.
std::string all_texts(long n) {
  std::string all;
  for (long i = 0; i < n; ++i) all += text_of(i);
  return all;
}

/// A function object with members that travel by their codec.
struct weighted {
  std::vector<double> weights;
  double operator()(std::size_t index) const { return weights[index % weights.size()]; }
};
struct clipped_sum {
  std::vector<double> limits;
  double operator()(double a, double b) const { return std::min(a + b, limits.front()); }
};

/// Notes in shared memory how often each item ran.
using runs = std::array<std::atomic<int>, 64>;

}  // namespace

// ---- results -----------------------------------------------------------------------------------

TEST_CASE("map_reduce gives what reduce over map gives", "[conformance][map_reduce]") {
  procpool::Pool pool{3};
  CHECK(pool.map_reduce(squared, numbers(1000), add) == 332'833'500);
  CHECK(pool.map_reduce(squared, numbers(1000), std::plus<>()) == 332'833'500);
  CHECK(pool.map_reduce(squared, {1L, 2L, 3L}, add) == 14);
  CHECK(pool.map_reduce(squared, std::views::iota(0L, 10L), add) == 285);
  CHECK(pool.map_reduce(squared, std::list<long>{3, 4}, add) == 25);
  std::istringstream text("1 2 3 4");
  CHECK(pool.map_reduce(squared, std::views::istream<long>(text), add) == 30);
  CHECK(pool.map_reduce([](long x) { return x; }, numbers(50),
                        [](long a, long b) { return std::max(a, b); }) == 49);
  CHECK(pool.map_reduce(weighted{{1.0, 2.0}}, std::views::iota(std::size_t{0}, std::size_t{10}),
                        clipped_sum{{14.5}}) == 14.5);
}

TEST_CASE("results are reduced in the order of the input, for any chunks and workers",
          "[conformance][map_reduce]") {
  for (const int workers : {1, 2, 5}) {
    procpool::Pool pool{workers};
    for (const std::ptrdiff_t chunksize : {1, 2, 7, 99, 100, 1000}) {
      INFO(workers << " workers, chunks of " << chunksize);
      CHECK(pool.map_reduce(text_of, numbers(100), joined, {.chunksize = chunksize}) ==
            all_texts(100));
      CHECK(pool.map_reduce(text_of, numbers(100), joined, "first,", {.chunksize = chunksize}) ==
            "first," + all_texts(100));
    }
  }
}

TEST_CASE(
    "an initial value is in front once, and the result for no items; without one no items "
    "are std::invalid_argument",
    "[conformance][map_reduce]") {
  procpool::Pool pool{2};
  CHECK(pool.map_reduce(squared, numbers(4), add, 100) == 114);
  CHECK(pool.map_reduce(squared, std::vector<long>{}, add, 7) == 7);
  CHECK(pool.map_reduce(text_of, std::vector<long>{}, joined, "none") == "none");
  CHECK_THROWS_AS(pool.map_reduce(squared, std::vector<long>{}, add), std::invalid_argument);
  std::istringstream nothing;
  CHECK_THROWS_AS(pool.map_reduce(squared, std::views::istream<long>(nothing), add),
                  std::invalid_argument);
  // One item is not reduced at all, as in Python.
  const auto never = [](long, long) -> long { throw std::logic_error("reduced"); };
  CHECK(pool.map_reduce(squared, {5L}, never) == 25);
  CHECK(pool.map_reduce(squared, numbers(3), add, std::optional<long>(1)) == 6);
}

TEST_CASE("floating-point sums depend on the chunks only", "[conformance][map_reduce]") {
  const auto inverse = [](long x) { return 1.0 / static_cast<double>(x + 1); };
  const auto sum = [&](int workers, std::ptrdiff_t chunksize) {
    procpool::Pool pool{workers};
    return pool.map_reduce(inverse, numbers(10'000), std::plus<double>(), {.chunksize = chunksize});
  };
  double expected = 0;
  for (long first = 0; first < 10'000; first += 128) {
    double chunk = inverse(first);
    for (long i = first + 1; i < std::min(first + 128, 10'000L); ++i) chunk += inverse(i);
    expected = first == 0 ? chunk : expected + chunk;
  }
  for (const int workers : {1, 2, 4}) CHECK(sum(workers, 128) == expected);
}

TEST_CASE("large callables, items and results", "[conformance][map_reduce]") {
  procpool::Pool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
  const weighted heavy{std::vector<double>(4000, 0.5)};
  CHECK(pool.map_reduce(heavy, std::views::iota(std::size_t{0}, std::size_t{100}),
                        std::plus<double>()) == 50.0);
  const std::vector<std::string> items(6, std::string(50'000, 'x'));
  const auto length = [](const std::string& text) { return text.size(); };
  CHECK(pool.map_reduce(length, items, std::plus<std::size_t>(), {.chunksize = 2}) == 300'000);
  const auto block = [](long x) { return std::vector<long>(40'000, x); };
  const auto append = [](std::vector<long> a, const std::vector<long>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  const auto whole = pool.map_reduce(block, numbers(5), append, {.chunksize = 2});
  REQUIRE(whole.size() == 200'000);
  for (std::size_t i = 0; i < whole.size(); i += 1000) {
    CHECK(whole[i] == static_cast<long>(i / 40'000));
  }
}

TEST_CASE("items of a map_reduce have their numbers, and random numbers that depend on them only",
          "[conformance][map_reduce]") {
  const auto own = [](long) {
    return std::vector<std::uint64_t>{current_worker().task_number(), current_worker().random()()};
  };
  const auto append = [](std::vector<std::uint64_t> a, const std::vector<std::uint64_t>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  std::vector<std::vector<std::uint64_t>> got;
  for (const std::ptrdiff_t chunksize : {1, 7, 30}) {
    procpool::Pool pool{{.processes = 2, .seed = 3}};
    pool.apply([] {});
    got.push_back(pool.map_reduce(own, numbers(30), append, {.chunksize = chunksize}));
    CHECK(pool.apply([] { return current_worker().task_number(); }) == 31);
  }
  for (std::size_t i = 0; i < 30; ++i) CHECK(got[0].at(2 * i) == i + 1);
  CHECK(got[1] == got[0]);
  CHECK(got[2] == got[0]);
}

// ---- failures ----------------------------------------------------------------------------------

TEST_CASE("the first failing item by index is thrown; the pool stays usable",
          "[conformance][map_reduce]") {
  procpool::Pool pool{2};
  const auto picky = [](long x) {
    if (x == 3) std::this_thread::sleep_for(50ms);  // the other one is sooner
    if (x == 3 || x == 17) throw std::range_error("item " + std::to_string(x));
    return x;
  };
  for (const std::ptrdiff_t chunksize : {1, 5, 20}) {
    CHECK_THROWS_WITH(pool.map_reduce(picky, numbers(20), add, {.chunksize = chunksize}), "item 3");
  }
  CHECK(pool.map_reduce(squared, numbers(4), add) == 14);
}

TEST_CASE("an exception of reduce is the map_reduce's, from the workers and from the program",
          "[conformance][map_reduce]") {
  procpool::Pool pool{2};
  const auto refuse = [](long, long) -> long { throw std::domain_error("not these two"); };
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), refuse, {.chunksize = 2}),
                  std::domain_error);
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), refuse, {.chunksize = 1}),
                  std::domain_error);
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(1), refuse, 0L), std::domain_error);
}

TEST_CASE(
    "an item that kills its worker is named by its index in the input, and no item runs twice",
    "[conformance][map_reduce][processes]") {
  for (const std::ptrdiff_t chunksize : {1, 4, 10, 40}) {
    for (const long culprit : {0L, 13L, 39L}) {
      INFO("item " << culprit << ", chunks of " << chunksize);
      shared<runs> ran;
      procpool::Pool pool{2};
      const auto task = [culprit, count = ran.get()](long x) {
        ++(*count)[static_cast<std::size_t>(x)];
        if (x == culprit) kill(getpid(), SIGKILL);
        return x;
      };
      try {
        pool.map_reduce(task, numbers(40), add, {.chunksize = chunksize});
        FAIL("nothing was thrown");
      } catch (const procpool::WorkerDied& died) {
        CHECK(died.item() == static_cast<std::size_t>(culprit));
        CHECK(died.signal() == SIGKILL);
      }
      for (const auto& times : *ran) CHECK(times <= 1);
      CHECK(pool.map_reduce(squared, numbers(4), add) == 14);
    }
  }
}

TEST_CASE("retries begin with the chunk again", "[conformance][map_reduce][processes]") {
  shared<runs> ran;
  procpool::Pool pool{2};
  const auto task = [count = ran.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    if (x % 10 == 4 && current_worker().attempt() == 1) kill(getpid(), SIGKILL);
    if (x == 27 && current_worker().attempt() == 2) std::abort();
    return x;
  };
  CHECK(pool.map_reduce(task, numbers(40), add, {.chunksize = 10, .retries = 2}) == 780);
  for (long i = 0; i < 40; ++i) {
    const int times = i % 10 <= 4 ? 2 : 1;
    const int more = i >= 20 && i <= 27 ? 1 : 0;
    CHECK((*ran)[static_cast<std::size_t>(i)] == times + more);
  }
  try {
    pool.map_reduce(task, numbers(40), add, {.chunksize = 10, .retries = 1});
    FAIL("nothing was thrown");
  } catch (const procpool::WorkerDied& died) {
    CHECK(died.item() == 27U);
    CHECK(died.attempt() == 2);
  }
}

TEST_CASE("a time limit holds for each item, and names the one that was late",
          "[conformance][map_reduce][limit:60][processes]") {
  procpool::Pool pool{2};
  const auto nap = [](long x) {
    std::this_thread::sleep_for(x == 7 ? 1h : 50ms);
    return x;
  };
  // Together longer than the limit.
  const procpool::map_options options{.chunksize = 7, .timeout = 250ms};
  CHECK(pool.map_reduce(nap, numbers(7), add, options) == 21);
  try {
    pool.map_reduce(nap, numbers(10), add, {.chunksize = 5, .timeout = 1s});
    FAIL("nothing was thrown");
  } catch (const procpool::TimeoutError& late) {
    CHECK(std::string(late.what()).find("item 7 of") != std::string::npos);
  }
  CHECK(pool.map_reduce(squared, numbers(4), add) == 14);
}

TEST_CASE("a CPU limit holds for each item of a map_reduce",
          "[conformance][map_reduce][limit:60][processes]") {
  procpool::Pool pool{{.processes = 1, .cpu_limit = 400ms}};
  const auto burn = [](long milliseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (std::chrono::steady_clock::now() < end) {
    }
    return milliseconds;
  };
  CHECK(pool.map_reduce(burn, std::vector<long>(8, 100), add, {.chunksize = 8}) == 800);
  CHECK_THROWS_AS(pool.map_reduce(burn, {10L, 100'000L}, add, {.chunksize = 2}),
                  procpool::TimeoutError);
}

TEST_CASE("a requested stop ends a map_reduce", "[conformance][map_reduce][limit:60][processes]") {
  procpool::Pool pool{2};
  std::stop_source source;
  const auto forever = [](long x) {
    std::this_thread::sleep_for(1h);
    return x;
  };
  const std::jthread stopper([&] {
    std::this_thread::sleep_for(50ms);
    source.request_stop();
  });
  CHECK_THROWS_AS(pool.map_reduce(forever, numbers(8), add, {.stop = source.get_token()}),
                  procpool::CancelledError);
  CHECK(pool.map_reduce(squared, numbers(4), add) == 14);
}

TEST_CASE("bad arguments of a map_reduce", "[conformance][map_reduce]") {
  procpool::Pool pool{2};
  long (*null_map)(long) = nullptr;
  long (*null_reduce)(long, long) = nullptr;
  CHECK_THROWS_AS(pool.map_reduce(null_map, numbers(4), add), std::invalid_argument);
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), null_reduce), std::invalid_argument);
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), add, {.chunksize = 0}),
                  std::invalid_argument);
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), add, {.retries = -1}),
                  std::invalid_argument);
  const auto broken = std::views::iota(0L, 20L) | std::views::transform([](long x) {
                        if (x == 10) throw std::range_error("ten");
                        return x;
                      });
  CHECK_THROWS_AS(pool.map_reduce(squared, broken, add, {.chunksize = 2}), std::range_error);
  CHECK(pool.map_reduce(squared, numbers(4), add) == 14);
  pool.close();
  CHECK_THROWS_AS(pool.map_reduce(squared, numbers(4), add), procpool::PoolClosed);
  pool.join();
}
