// SPDX-License-Identifier: MIT
// Python's Pool.terminate() deadlocks when it comes at a wrong moment (numbers of CPython's
// tracker). Here it comes at all of them, hundreds of times.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "conformance/tasks.hpp"
#include "family.hpp"
#include "support/shared.hpp"

namespace {

using namespace fault;
using namespace std::chrono_literals;
using conformance::numbers;
using conformance::square;
using bytes = std::vector<std::uint8_t>;

long slow_square(long x) {
  std::this_thread::sleep_for(200us);
  return x * x;
}

bytes echo(const bytes& data) {
  return data;
}

/// What a submission came to while another thread terminated its pool.
struct endings {
  std::atomic<long> values{0}, cancelled{0}, refused{0}, other{0};

  template <class Work>
  void count(Work work, long expected) {
    try {
      (work() == expected ? values : other) += 1;
    } catch (const procpool::CancelledError&) {
      ++cancelled;
    } catch (const procpool::PoolClosed&) {
      ++refused;
    } catch (...) {
      ++other;
    }
  }
  [[nodiscard]] long all() const { return values + cancelled + refused + other; }
};

int rounds() {
  return full_run() ? 2000 : 200;
}

void print(const char* what, int count, const endings& ends) {
  std::printf("%s: %d rounds, %ld values, %ld cancelled, %ld refused, %ld else, 0 hangs\n", what,
              count, ends.values.load(), ends.cancelled.load(), ends.refused.load(),
              ends.other.load());
}

}  // namespace

TEST_CASE("cpython#73945: terminate while another thread submits", "[fault][hangs][limit:300]") {
  endings ends;
  for (int round = 0; round < rounds(); ++round) {
    procpool::Pool pool{2};
    std::vector<procpool::AsyncResult<long>> results;
    std::atomic<bool> begun = false;
    std::thread submitter([&] {
      try {
        for (;;) {
          results.push_back(pool.apply_async(square, 3L));
          begun = true;
        }
      } catch (const procpool::PoolClosed&) {
        ++ends.refused;
      }
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(round * 7 % 1000));
    pool.terminate();
    submitter.join();
    for (auto& result : results) ends.count([&] { return result.get(10s); }, 9);
  }
  CHECK(ends.refused == rounds());
  CHECK(ends.other == 0);
  print("#73945, terminate during apply_async", rounds(), ends);
}

TEST_CASE("cpython#78178: terminate with a full queue and workers in the middle of it",
          "[fault][hangs][limit:300]") {
  endings ends;
  const bytes large(100'000, 1);
  for (int round = 0; round < rounds() / 4; ++round) {
    procpool::Pool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
    std::vector<procpool::AsyncResult<long>> results;
    std::vector<procpool::AsyncResult<bytes>> fat;
    for (long i = 0; i < 1000; ++i) results.push_back(pool.apply_async(slow_square, i));
    for (int i = 0; i < 10; ++i) fat.push_back(pool.apply_async(echo, large));
    std::this_thread::sleep_for(std::chrono::microseconds(round * 97 % 5000));
    pool.terminate();
    pool.join();
    for (std::size_t i = 0; i < results.size(); ++i) {
      ends.count([&] { return results[i].get(10s); }, static_cast<long>(i * i));
    }
    for (auto& each : fat) {
      ends.count([&] { return static_cast<long>(each.get(10s).size()); }, 100'000);
    }
  }
  CHECK(ends.other == 0);
  CHECK(ends.cancelled > 0);
  print("#78178, terminate with a full queue", rounds() / 4, ends);
}

TEST_CASE("cpython#96995: terminate from a callback", "[fault][hangs][limit:300]") {
  endings ends;
  for (int round = 0; round < rounds(); ++round) {
    std::atomic<bool> ended = false;
    procpool::Pool pool{2};
    auto first = pool.apply_async({.callback =
                                       [&](long) {
                                         pool.terminate();
                                         ended = true;
                                       }},
                                  square, 3L);
    ends.count([&] { return pool.map_async(slow_square, numbers(200)).get(10s).back(); },
               199 * 199);
    ends.count([&] { return first.get(10s); }, 9);
    CHECK(support::eventually([&] { return ended.load(); }, 10s));
  }
  CHECK(ends.other == 0);
  print("#96995, terminate from a callback", rounds(), ends);
}

TEST_CASE("cpython#87129: terminate while other threads wait in map, imap and apply",
          "[fault][hangs][limit:300]") {
  endings ends;
  for (int round = 0; round < rounds(); ++round) {
    procpool::Pool pool{2};
    std::atomic<int> begun = 0;
    const auto run = [&](auto work, long expected) {
      return std::thread([&ends, &begun, work, expected] {
        ++begun;
        ends.count(work, expected);
      });
    };
    std::vector<std::thread> threads;
    threads.push_back(run([&] { return pool.map(slow_square, numbers(400)).back(); }, 399 * 399));
    threads.push_back(run([&] { return pool.apply(slow_square, 5L); }, 25));
    threads.push_back(run(
        [&] {
          auto results = pool.imap(slow_square, numbers(400));
          long last = 0;
          while (auto value = results.next()) last = *value;
          return last;
        },
        399 * 399));
    while (begun < 3) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(round * 31 % 3000));
    pool.terminate();
    for (auto& thread : threads) thread.join();
  }
  CHECK(ends.other == 0);
  CHECK(ends.all() == 3L * rounds());
  print("#87129, terminate during map, imap and apply", rounds(), ends);
}
