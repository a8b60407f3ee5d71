// SPDX-License-Identifier: MIT
// Workers are killed at random moments while SharedArrays and shared_vectors go to them and come
// back: what arrives is whole, arrays that are held stay, and no memory is left behind.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/detail/heap/heap_of_program.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/procpool.hpp>

#include "support/shared.hpp"

using namespace std::chrono_literals;

namespace {

constexpr int kills_wanted = 2'000;
constexpr std::size_t small = 3'000;
constexpr std::size_t large = 50'000;  // of a shared_vector: it is sent as a descriptor

support::common<std::atomic<int>*> kills;

struct work {
  procpool::SharedArray<long> part;
  long number;
  long delay_us;  ///< until this process is killed; none: it is not
};

struct answer {
  procpool::SharedArray<long> array;
  procpool::shared_vector<long> vector;
};

// Fills its part, and makes an array and a vector. In between, some time, it is killed.
answer fill(const work& todo) {
  std::thread killer;
  if (todo.delay_us != 0) {
    killer = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(todo.delay_us));
      ++*kills.get();
      kill(getpid(), SIGKILL);
    });
    killer.detach();
  }
  for (long& x : todo.part) x = todo.number;
  answer made{procpool::SharedArray<long>(small), procpool::shared_vector<long>(large)};
  for (long& x : made.array) x = todo.number;
  for (long& x : made.vector) x = todo.number;
  if (todo.delay_us != 0) std::this_thread::sleep_for(1ms);
  return made;
}

std::uint64_t memory_in_use() {
  struct stat about {};
  REQUIRE(fstat(procpool::detail::use_heap()->file().get(), &about) == 0);
  return static_cast<std::uint64_t>(about.st_blocks) * 512;
}

template <class Range>
bool all_are(const Range& range, long number) {
  for (const long each : range) {
    if (each != number) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("workers are killed while arrays and vectors are on their way", "[fault]") {
  const support::shared<std::atomic<int>> count;
  kills = count.get();
  procpool::Pool pool{2};
  std::mt19937 random(2026);  // NOLINT(cert-msc51-cpp): the same each time
  const std::uint64_t before = memory_in_use();
  int whole = 0;
  int died = 0;
  {
    const procpool::SharedArray<long> data(small * 16);
    for (int round = 0; *count < kills_wanted && round < 10 * kills_wanted; ++round) {
      std::vector<work> todo;
      for (const auto& part : data.slices(16)) {
        const bool kill_it = random() % 3 == 0;
        todo.push_back({part, round, kill_it ? 1 + static_cast<long>(random() % 600) : 0});
      }
      for (auto& each : pool.map_outcomes(fill, todo)) {
        if (!each) {
          ++died;
          continue;
        }
        ++whole;
        REQUIRE(all_are(each->array, round));
        REQUIRE(all_are(each->vector, round));
      }
    }
    REQUIRE(data.size() == small * 16);
  }
  pool.close();
  pool.join();
  procpool::detail::collect_dead_processes();
  const std::uint64_t after = memory_in_use();
  std::printf("%d kills: %d tasks died, %d answers whole; heap %llu KiB before, %llu after\n",
              count->load(), died, whole, static_cast<unsigned long long>(before >> 10U),
              static_cast<unsigned long long>(after >> 10U));
  CHECK(*count >= kills_wanted);
  CHECK(after <= before + (1 << 20));
}
