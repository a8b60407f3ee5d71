// SPDX-License-Identifier: MIT
/// @file
/// Callables that change when they are called: each item calls a fresh one, so that its result does
/// not depend on chunks, workers and deaths.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

// Travels by its codec.
struct journal {
  std::string lines;

  std::string operator()(int line) {
    lines += std::to_string(line);
    return lines;
  }
};

// Too large to travel with every chunk.
struct large_counter {
  std::array<int, 1000> unused;
  int calls;

  int operator()(int) { return ++calls; }
};

// Has no state that could change, whatever it says.
struct careless {
  int operator()(int x) { return x + 1; }
};

// One that is called as const, since that gives the same type.
struct both_ways {
  int calls = 0;

  int operator()(int) { return ++calls; }
  int operator()(int) const { return -1; }
};

template <class Backend>
procpool::Pool<Backend> make_pool() {
  return procpool::Pool<Backend>({.processes = 2});
}
template <>
procpool::Pool<procpool::Serial> make_pool() {
  return {};
}

}  // namespace

TEMPLATE_TEST_CASE("items of a chunk do not see each other through a callable", "[callable]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  const std::vector<int> items(6, 7);
  const std::vector<int> ones(6, 1);
  const auto count = [n = 0](int) mutable { return ++n; };
  const auto count_any = [n = 0](auto) mutable { return ++n; };
  for (const std::ptrdiff_t chunksize : {1, 3, 6}) {
    CAPTURE(chunksize);
    const procpool::map_options options{.chunksize = chunksize};
    CHECK(pool.map(count, items, options) == ones);
    CHECK(pool.map(count_any, items, options) == ones);
    CHECK(pool.map(journal{"a"}, items, options) == std::vector<std::string>(6, "a7"));
    CHECK(pool.map(large_counter{{}, 0}, items, options) == ones);
    CHECK(pool.map(careless{}, items, options) == std::vector<int>(6, 8));
    CHECK(pool.map(both_ways{}, items, options) == std::vector<int>(6, -1));
    CHECK(pool.map([n = std::size_t{0}](const std::string& s) mutable { return n += s.size(); },
                   std::vector<std::string>(6, "ab"), options) == std::vector<std::size_t>(6, 2));

    const std::vector<std::pair<int, int>> pairs(6);
    CHECK(pool.starmap([n = 0](int, int) mutable { return ++n; }, pairs, options) == ones);
    for (const auto& each : pool.map_outcomes(count, items, options)) CHECK(each.value() == 1);
    CHECK(pool.map_async(count, items).get() == ones);
    int seen = 0;
    for (const int each : pool.imap(count, items, {.chunksize = chunksize})) seen += each;
    for (const int each : pool.imap_unordered(count, items, {.chunksize = chunksize})) seen += each;
    CHECK(seen == 12);
  }
  CHECK(pool.apply(count, 1) == 1);
  CHECK(pool.apply(journal{"b"}, 2) == "b2");
}

TEMPLATE_TEST_CASE("both callables of a reduction are fresh for each item", "[callable]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  const std::vector<int> items(6, 7);
  const auto count = [n = 0](int) mutable { return ++n; };
  const auto one = [](int) { return 1; };
  const auto add = [](int a, int b) { return a + b; };
  const auto add_more = [more = 0](int a, int b) mutable { return a + b + more++; };
  for (const std::ptrdiff_t chunksize : {1, 3, 6}) {
    CAPTURE(chunksize);
    CHECK(pool.map_reduce(count, items, add, {.chunksize = chunksize}) == 6);
    CHECK(pool.map_reduce(one, items, add_more, {.chunksize = chunksize}) == 6);
    CHECK(pool.map_reduce(count, items, add_more, {.chunksize = chunksize}) == 6);
  }
}
