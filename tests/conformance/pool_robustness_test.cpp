// SPDX-License-Identifier: MIT
// Corners in which a pool once hung, leaked or ended its program; each stays a test.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"

using namespace std::chrono_literals;

namespace {

int slow(int x) {
  std::this_thread::sleep_for(100ms);
  return x;
}
std::size_t length(const std::string& text) {
  return text.size();
}
std::string filled(std::size_t size) {
  return std::string(size, 'g');
}

procpool::Pool<>* nested = nullptr;

// Its decoder in the parent uses the pool that it came from.
struct nosy {
  int value = 0;
};

// One of its moves throws, when armed.
struct unmovable {
  int value = 0;
  static inline bool armed = false;
  explicit unmovable(int number) : value(number) {}
  unmovable(const unmovable&) = default;
  unmovable(unmovable&& other) : value(other.value) {
    if (armed && value == 3 && ++moves == 1) throw std::runtime_error("cannot be moved");
  }
  static inline int moves = 0;
};

}  // namespace

template <>
struct procpool::codec<nosy> {
  static void encode(encoder& out, const nosy& from) { out.put(from.value); }
  static nosy decode(decoder& in) {
    const int value = in.get<int>();
    return {nested == nullptr ? value : nested->apply(slow, value)};
  }
};
template <>
struct procpool::codec<unmovable> {
  static void encode(encoder& out, const unmovable& from) { out.put(from.value); }
  static unmovable decode(decoder& in) { return unmovable(in.get<int>()); }
};

namespace {

TEST_CASE("cancelling the last task of a worker does not cancel its retirement",
          "[pool][robust][workers]") {
  procpool::Pool pool{{.processes = 1, .maxtasksperchild = 2}};
  auto first = pool.apply_async(slow, 1);
  std::this_thread::sleep_for(20ms);
  auto second = pool.apply_async(slow, 2);
  auto third = pool.apply_async(slow, 3);
  CHECK(second.cancel());
  CHECK(first.get(20s) == 1);
  CHECK(third.get(20s) == 3);
  pool.close();
  pool.join();
}

TEST_CASE("a ring that was full of cancelled tasks is used again", "[pool][robust][workers]") {
  procpool::Pool pool{{.processes = 1,
                       .initializer = {[] { std::this_thread::sleep_for(300ms); }},
                       .ring_bytes = 4096}};
  const std::string text(840, 'x');
  for (int i = 0; i < 3; ++i) CHECK(pool.apply_async(length, text).cancel());
  auto cancelled = pool.apply_async(length, text);
  auto kept = pool.apply_async(length, text);
  CHECK(cancelled.cancel());
  CHECK(kept.get(20s) == 840);
}

TEST_CASE("a result that cannot be moved is a failure of its map alone", "[pool][robust]") {
  procpool::Pool pool{1};
  const auto make = [](int x) { return unmovable(x); };
  unmovable::armed = true;
  CHECK_THROWS_AS(pool.map(make, {1, 2, 3, 4}, {.chunksize = 1}), std::runtime_error);
  CHECK(unmovable::moves == 1);  // in this process, where results take their places
  unmovable::moves = 0;
  auto later = pool.map_async(make, std::vector<int>{1, 2, 3, 4}, {.chunksize = 1});
  CHECK(later.wait(20s));
  CHECK_FALSE(later.successful());
  unmovable::armed = false;
  CHECK(pool.apply(slow, 7) == 7);
}

TEST_CASE("a decoder that uses the pool of its result is told so", "[pool][robust][workers]") {
  procpool::Pool pool{1};
  nested = &pool;
  CHECK_THROWS_AS(pool.apply([] { return nosy{5}; }), std::logic_error);
  nested = nullptr;
  CHECK(pool.apply([] { return nosy{5}; }).value == 5);
}

TEST_CASE("results of imap_unordered that nobody reads are given back", "[pool][robust]") {
  const auto use = [] {
    procpool::Pool pool{2};
    auto results = pool.imap_unordered(slow, std::views::iota(0, 20));
    CHECK(results.next(20s));
  };
  use();
  const auto before = support::count_fds();
  for (int i = 0; i < 5; ++i) use();
  CHECK(support::count_fds() == before);
}

TEST_CASE("assigning to an imap drops what it had under way", "[pool][robust]") {
  procpool::Pool pool{2};
  auto results = pool.imap(slow, std::views::iota(0, 40));
  results = pool.imap(slow, std::views::iota(1000, 1040));
  CHECK(results.next(20s) == 1000);
}

TEST_CASE("workers killed while they write large results, again and again",
          "[pool][robust][processes]") {
  procpool::Pool pool{{.processes = 2, .ring_bytes = 4096}};
  int died = 0;
  for (int i = 0; i < 60; ++i) {
    auto pid = pool.apply([] { return getpid(); });
    auto result = pool.apply_async(filled, std::size_t{500'000});
    std::this_thread::sleep_for(std::chrono::microseconds(20 * i));
    kill(pid, SIGKILL);
    try {
      const auto text = result.get(20s);
      CHECK(text.size() == 500'000);
    } catch (const procpool::WorkerDied&) {
      ++died;
    }
  }
  CHECK(pool.apply(slow, 3) == 3);
  INFO(died << " results were lost with their workers");
}

}  // namespace
