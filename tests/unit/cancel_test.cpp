// SPDX-License-Identifier: MIT
// Cancelling among many: what it costs, and that nobody else loses anything.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using support::waiting_at;

long square(long x) {
  return x * x;
}
std::string repeated(const std::string& text) {
  return text + text;
}
std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

}  // namespace

// Each of them looked at all others: 40,000 took minutes.
TEST_CASE("cancelling tens of thousands of waiting tasks takes no time", "[cancel][limit:20]") {
  constexpr std::size_t many = 60'000;
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<long>> running;
  for (int i = 0; i < 2; ++i) running.push_back(pool.apply_async(waiting_at(door)));
  REQUIRE(door->wait_for(2));
  std::vector<procpool::AsyncResult<long>> results;
  for (std::size_t i = 0; i < many; ++i) {
    results.push_back(pool.apply_async(square, static_cast<long>(i)));
  }
  const auto begin = steady_clock::now();
  for (std::size_t i = 0; i < many; ++i) {
    if (i % 10 != 0) REQUIRE(results[i].cancel());
  }
  for (int i = 0; i < 10'000; ++i) static_cast<void>(running[0].running());
  CHECK(steady_clock::now() - begin < 5s);
  door->open();
  for (std::size_t i = 0; i < many; i += 10) {
    REQUIRE(results[i].get() == square(static_cast<long>(i)));
  }
  for (std::size_t i = 0; i < many; ++i) REQUIRE(results[i].cancelled() == (i % 10 != 0));
}

TEST_CASE("maps that are stopped, and imaps left early, cost nothing behind a long queue",
          "[cancel][limit:20]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  auto running = pool.apply_async(waiting_at(door));
  REQUIRE(door->wait_for(1));
  std::vector<procpool::AsyncResult<long>> others;
  for (long i = 0; i < 50'000; ++i) others.push_back(pool.apply_async(square, i));
  const auto begin = steady_clock::now();
  const std::vector<long> items = numbers(4);
  for (int i = 0; i < 500; ++i) {
    auto left = pool.imap(square, items);
    CHECK_THROWS_AS(left.next(0ms), procpool::TimeoutError);
  }
  std::stop_source stopped;
  stopped.request_stop();
  for (int i = 0; i < 500; ++i) {
    CHECK_THROWS_AS(pool.apply({.stop = stopped.get_token()}, square, 1L),
                    procpool::CancelledError);
    CHECK_THROWS_AS(pool.map(square, items, {.stop = stopped.get_token()}),
                    procpool::CancelledError);
  }
  CHECK(steady_clock::now() - begin < 10s);
  for (auto& each : others) static_cast<void>(each.cancel());
  door->open();
  CHECK(running.get() == 1);
}

// Tasks that are cancelled lie in the rings of workers beside those that are not.
TEST_CASE("cancelling at random, also what is with workers already, hits nobody else",
          "[cancel][limit:120]") {
  std::mt19937 random(7);
  for (const int workers : {1, 2}) {
    procpool::Pool pool{{.processes = workers, .ring_bytes = 8192}};
    for (int round = 0; round < 60; ++round) {
      std::vector<procpool::AsyncResult<std::string>> results;
      std::vector<procpool::AsyncResult<std::vector<long>>> maps;
      std::vector<bool> cancelled;
      for (std::size_t i = 0; i < 300; ++i) {
        const std::string text(random() % 20 == 0 ? 20'000 : random() % 300, 'a');
        results.push_back(pool.apply_async(repeated, text));
        if (i % 60 == 0) maps.push_back(pool.map_async(square, numbers(200), {.chunksize = 3}));
        cancelled.push_back(false);
        if (random() % 2 == 0) continue;
        const std::size_t which = random() % results.size();
        if (results[which].cancel({.kill = random() % 50 == 0})) cancelled[which] = true;
      }
      const bool map_gone = maps[1].cancel();
      for (std::size_t i = 0; i < results.size(); ++i) {
        if (cancelled[i]) {
          REQUIRE_THROWS_AS(results[i].get(), procpool::CancelledError);
        } else {
          REQUIRE(results[i].get().find_first_not_of('a') == std::string::npos);
        }
      }
      for (std::size_t i = 0; i < maps.size(); ++i) {
        if (i == 1 && map_gone) continue;
        REQUIRE(maps[i].get()[199] == 199 * 199);
      }
    }
    CHECK(pool.apply(square, 5L) == 25);
  }
}
