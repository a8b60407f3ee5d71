// SPDX-License-Identifier: MIT
// Large results that go straight from the worker's object through the ring into the caller's: of
// all element sizes, through small rings, in maps, and when a worker dies in the middle of one.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using namespace std::chrono_literals;

struct point {  // twelve bytes: never fits the end of a ring
  float x, y, z;
  friend bool operator==(const point&, const point&) = default;
};

template <class T>
T element(std::size_t i) {
  return static_cast<T>(i * 2654435761U);
}
template <>
point element(std::size_t i) {
  return {float(i % 1000), float(i % 77), float(i)};
}

template <class Container>
Container made(std::size_t size) {
  Container all;
  for (std::size_t i = 0; i < size; ++i) {
    all.push_back(element<typename Container::value_type>(i));
  }
  return all;
}

template <class Container>
void check_sizes(procpool::Pool<>& pool) {
  for (const std::size_t size : {1UL, 5'000UL, 8'191UL, 8'192UL, 8'193UL, 65'537UL, 300'001UL}) {
    INFO("size " << size);
    CHECK((pool.apply(made<Container>, size) == made<Container>(size)));
  }
}

procpool::pool_options with_ring(std::size_t bytes) {
  return {.processes = 2, .ring_bytes = bytes};
}

TEST_CASE("large results arrive whole through rings of any size", "[large][limit:120]") {
  for (const std::size_t ring : {std::size_t{4096}, std::size_t{65'536}, std::size_t{262'144}}) {
    INFO("ring " << ring);
    procpool::Pool pool{with_ring(ring)};
    check_sizes<std::vector<double>>(pool);
    check_sizes<std::vector<std::uint8_t>>(pool);
    check_sizes<std::vector<point>>(pool);
    check_sizes<std::vector<long double>>(pool);
    check_sizes<std::string>(pool);
    check_sizes<std::u32string>(pool);
  }
}

TEST_CASE("a map of large results keeps their order", "[large][limit:120]") {
  procpool::Pool pool{with_ring(65'536)};
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < 40; ++i) sizes.push_back((i * 7919) % 50'000);
  const auto results = pool.map(made<std::vector<double>>, sizes, {.chunksize = 3});
  const auto outcomes = pool.map_outcomes(made<std::vector<point>>, sizes, {.chunksize = 3});
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    CHECK((results[i] == made<std::vector<double>>(sizes[i])));
    CHECK((outcomes[i].value() == made<std::vector<point>>(sizes[i])));
  }
}

/// To be called when the result is there: the worker dies while it sends it.
void die_on_the_way() {
  std::thread([] {
    std::this_thread::sleep_for(2ms);
    kill(getpid(), SIGKILL);
  }).detach();
}

std::vector<double> die_but_for_the_last(std::size_t size, int attempts) {
  if (procpool::current_worker().attempt() == attempts) return made<std::vector<double>>(size);
  std::vector<double> longer(std::size_t{32} << 20, 1.5);
  die_on_the_way();
  return longer;
}

TEST_CASE("half a large result of a worker that died is forgotten", "[large][limit:120]") {
  procpool::Pool pool{with_ring(4096)};
  const auto expected = made<std::vector<double>>(100'000);
  for (int i = 0; i < 5; ++i) {
    CHECK((pool.apply({.retries = 2}, die_but_for_the_last, 100'000UL, 3) == expected));
    CHECK_THROWS_AS(pool.apply(die_but_for_the_last, 100'000UL, 2), procpool::WorkerDied);
    CHECK((pool.apply(made<std::vector<double>>, 100'000UL) == expected));
  }
}

template <class Container>
Container die_in_a_longer_one(std::size_t size) {
  if (procpool::current_worker().attempt() > 1) return made<Container>(size);
  Container longer(std::size_t{32} << 20, typename Container::value_type{1});
  die_on_the_way();
  return longer;
}

template <class Container>
void check_second_attempts(const std::vector<std::size_t>& sizes) {
  procpool::Pool pool{with_ring(4096)};
  const auto results =
      pool.map(die_in_a_longer_one<Container>, sizes, {.chunksize = 2, .retries = 1});
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    CHECK((results[i] == made<Container>(sizes[i])));
    CHECK(results[i].capacity() < std::size_t{1} << 20);
  }
}

TEST_CASE("half a large result in a map leaves nothing behind, nor memory", "[large][limit:120]") {
  const std::vector<std::size_t> sizes{60'000, 70'001, 3, 100'000};  // one comes in one piece
  check_second_attempts<std::vector<double>>(sizes);
  check_second_attempts<std::string>(sizes);
}

}  // namespace
