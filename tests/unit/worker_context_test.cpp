// SPDX-License-Identifier: MIT
// current_worker(): the number of the item that runs, and random numbers that depend on nothing
// else.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <numeric>
#include <optional>
#include <random>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::current_worker;
using support::shared;
using numbers = std::vector<std::uint64_t>;

std::uint64_t own_number() {
  return current_worker().task_number();
}
std::uint64_t number_of(long) {
  return own_number();
}
std::string number_as_text(const std::string&) {
  return std::to_string(own_number());
}
/// Fails for odd items, and is slow now and then.
std::uint64_t moody_number(long x) {
  if (x % 50 == 0) std::this_thread::sleep_for(1ms);
  if (x % 2 != 0) throw std::runtime_error(std::to_string(own_number()));
  return own_number();
}

std::uint64_t draw(long) {
  return current_worker().random()();
}

numbers counted(std::uint64_t first, std::size_t count) {
  numbers all(count);
  std::iota(all.begin(), all.end(), first);
  return all;
}

std::vector<long> items(long count) {
  std::vector<long> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0L);
  return all;
}

/// What random() gives first. Known to be so, so that results of programs stay the same.
std::uint64_t first_draw(std::uint64_t seed, std::uint64_t number) {
  const auto mix = [](std::uint64_t x) {
    x += 0x9e37'79b9'7f4a'7c15;
    x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9;
    x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11eb;
    return x ^ (x >> 31);
  };
  return std::mt19937_64(mix(mix(seed) + number))();
}

/// What kind of std::logic_error a call of random() or task_number() gives; empty for none.
template <class Call>
std::string complaint(Call call) {
  try {
    static_cast<void>(call());
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return {};
}

/// Cannot be encoded.
struct unwilling {
  long value = 0;
};

}  // namespace

template <>
struct procpool::codec<unwilling> {
  static void encode(encoder& out, const unwilling& what) {
    if (what.value == 3) throw std::domain_error("three is never sent");
    out.put(what.value);
  }
  static unwilling decode(decoder& in) { return {in.get<long>()}; }
};

// ---- numbers -----------------------------------------------------------------------------------

TEST_CASE("items are numbered in the order of their submission, whatever they are submitted by",
          "[worker_context]") {
  procpool::Pool pool{2};
  CHECK(pool.apply(own_number) == 0);
  CHECK(pool.apply_async(own_number).get() == 1);
  CHECK(pool.map(number_of, items(5)) == counted(2, 5));
  CHECK(pool.map_async(number_of, items(7), {.chunksize = 2}).get() == counted(7, 7));
  const std::vector<std::pair<long, long>> pairs(3);
  CHECK(pool.starmap([](long, long) { return own_number(); }, pairs) == counted(14, 3));
  numbers lazy;
  for (const auto number : pool.imap(number_of, items(10), {.chunksize = 3})) {
    lazy.push_back(number);
  }
  CHECK(lazy == counted(17, 10));
  CHECK(pool.map(number_of, std::vector<long>{}).empty());
  CHECK(pool.apply(own_number) == 27);
}

TEST_CASE("results come out of order, numbers do not", "[worker_context]") {
  procpool::Pool pool{3};
  std::vector<procpool::AsyncResult<std::uint64_t>> results;
  for (long i = 0; i < 100; ++i) results.push_back(pool.apply_async(number_of, i));
  for (std::size_t i = 0; i < results.size(); ++i) CHECK(results[i].get() == i);
}

TEST_CASE("an item of a map has its number however the map is cut and its items travel",
          "[worker_context]") {
  for (const int workers : {1, 3}) {
    for (const std::ptrdiff_t chunksize : {1, 7, 1000, 100'000}) {
      INFO(workers << " workers, chunks of " << chunksize);
      procpool::Pool pool{{.processes = workers, .ring_bytes = 16384}};
      pool.apply(own_number);
      CHECK(pool.map(number_of, items(20'000), {.chunksize = chunksize}) == counted(1, 20'000));
      // Watched items begin one by one.
      CHECK(pool.map(number_of, items(300), {.chunksize = chunksize, .timeout = 100s}) ==
            counted(20'001, 300));
      const std::vector<std::string> texts(300, std::string(100, 'x'));
      const auto told = pool.map(number_as_text, texts, {.chunksize = chunksize});
      for (std::size_t i = 0; i < told.size(); ++i) {
        CHECK(told[i] == std::to_string(20'301 + i));
      }
    }
  }
}

TEST_CASE("items that throw have their number, and so have those behind them", "[worker_context]") {
  procpool::Pool pool{2};
  const auto outcomes = pool.map_outcomes(moody_number, items(1000), {.chunksize = 100});
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (i % 2 == 0) {
      CHECK(outcomes[i].value() == i);
    } else {
      CHECK_THROWS_WITH(outcomes[i].value(), std::to_string(i));
    }
  }
}

TEST_CASE("an item keeps its number when it is tried again, and those behind it theirs",
          "[worker_context]") {
  procpool::Pool pool{2};
  const auto task = [](long x) {
    if (x % 5 == 2 && current_worker().attempt() < 3) kill(getpid(), SIGKILL);
    return own_number();
  };
  CHECK(pool.map(task, items(20), {.chunksize = 10, .retries = 2}) == counted(0, 20));
  CHECK(pool.apply(own_number) == 20);
}

TEST_CASE("a body too large for its ring and the arena has its number", "[worker_context]") {
  procpool::Pool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
  const std::vector<std::string> large(5, std::string(100'000, 'x'));
  const auto told = pool.map(number_as_text, large, {.chunksize = 2});
  CHECK(told == std::vector<std::string>{"0", "1", "2", "3", "4"});
}

TEST_CASE("a map whose input throws has taken all its numbers, whatever its chunks are",
          "[worker_context]") {
  for (const std::ptrdiff_t chunksize : {1, 4, 100}) {
    procpool::Pool pool{2};
    const auto input = std::views::iota(0L, 20L) | std::views::transform([](long x) {
                         if (x == 10) throw std::range_error("ten");
                         return x;
                       });
    CHECK_THROWS_AS(pool.map(number_of, input, {.chunksize = chunksize}), std::range_error);
    CHECK(pool.apply(own_number) == 20);
  }
}

TEST_CASE("items of an imap that cannot be encoded have taken their numbers", "[worker_context]") {
  procpool::Pool pool{2};
  std::vector<unwilling> input;
  for (long i = 0; i < 6; ++i) input.push_back({i});
  auto results = pool.imap([](const unwilling&) { return own_number(); }, input);
  for (std::uint64_t i = 0; i < 6; ++i) {
    if (i == 3) {
      CHECK_THROWS_AS(static_cast<void>(results.next()), std::domain_error);
    } else {
      CHECK(results.next() == std::optional(i));
    }
  }
  CHECK(pool.apply(own_number) == 6);
}

TEST_CASE("threads that submit at once share the numbers; a map's lie one behind the other",
          "[worker_context]") {
  procpool::Pool pool{2};
  std::array<numbers, 4> got;
  {
    std::vector<std::jthread> threads;
    for (auto& mine : got) {
      threads.emplace_back([&pool, &mine] {
        for (int round = 0; round < 20; ++round) {
          const auto some = pool.map(number_of, items(25), {.chunksize = 4});
          for (std::size_t i = 0; i < some.size(); ++i) {
            if (some[i] != some[0] + i) throw std::logic_error("a gap");
          }
          mine.insert(mine.end(), some.begin(), some.end());
          mine.push_back(pool.apply(own_number));
        }
      });
    }
  }
  numbers all;
  for (const auto& some : got) all.insert(all.end(), some.begin(), some.end());
  std::ranges::sort(all);
  CHECK(all == counted(0, 4 * 20 * 26));
}

// ---- random numbers ----------------------------------------------------------------------------

TEST_CASE("what items draw depends on the seed and their numbers only", "[worker_context]") {
  constexpr std::uint64_t seed = 0xfedc'ba98'7654'3210;
  numbers expected;
  for (std::uint64_t i = 0; i < 200; ++i) expected.push_back(first_draw(seed, i));
  for (const int workers : {1, 2, 4}) {
    for (const std::ptrdiff_t chunksize : {1, 9, 200}) {
      INFO(workers << " workers, chunks of " << chunksize);
      procpool::Pool pool{{.processes = workers, .maxtasksperchild = 5, .seed = seed}};
      CHECK(pool.map(draw, items(200), {.chunksize = chunksize}) == expected);
    }
  }
}

TEST_CASE("an item goes on in its sequence; the next one has another", "[worker_context]") {
  procpool::Pool pool{{.processes = 1, .seed = 7}};
  const auto twice = [](long) {
    const auto& worker = current_worker();
    return std::pair(worker.random()(), worker.random()());
  };
  const auto drawn = pool.map(twice, items(3), {.chunksize = 3});
  numbers all;
  for (const auto& [first, second] : drawn) all.insert(all.end(), {first, second});
  std::ranges::sort(all);
  CHECK(std::ranges::unique(all).empty());
  // With the same number in another pool it is the same again.
  procpool::Pool other{{.processes = 1, .seed = 7}};
  CHECK(other.map(twice, items(3)) == drawn);
}

TEST_CASE("an item that did not draw leaves no trace in the next one", "[worker_context]") {
  procpool::Pool pool{{.processes = 1, .seed = 1}};
  const auto sometimes = [](long x) { return x % 3 == 0 ? draw(x) : 0; };
  const auto drawn = pool.map(sometimes, items(12), {.chunksize = 12});
  for (std::uint64_t i = 0; i < 12; ++i) CHECK(drawn[i] == (i % 3 == 0 ? first_draw(1, i) : 0));
}

TEST_CASE("another attempt draws the same again", "[worker_context]") {
  shared<std::atomic<std::uint64_t>> before;
  procpool::Pool pool{2};
  const auto task = [seen = before.get()] {
    const std::uint64_t drawn = draw(0);
    if (current_worker().attempt() > 1) return drawn;
    *seen = drawn;
    kill(getpid(), SIGKILL);
    return drawn;
  };
  pool.apply(own_number);
  const auto drawn = pool.apply({.retries = 1}, task);
  CHECK(drawn == *before);
  CHECK(drawn != 0);
}

TEST_CASE("without a seed each pool has its own, which tasks can tell", "[worker_context]") {
  const auto seed = [] { return current_worker().seed(); };
  procpool::Pool one{1};
  procpool::Pool two{1};
  CHECK(one.apply(seed) != two.apply(seed));
  procpool::Pool given{{.processes = 1, .seed = 0}};
  CHECK(given.apply(seed) == 0);
  const std::uint64_t drawn = one.apply(seed);
  procpool::Pool again{{.processes = 1, .seed = drawn}};
  CHECK(again.apply(draw, 0) == first_draw(drawn, 0));
}

// ---- where there is no item --------------------------------------------------------------------

namespace {

std::string told_to_initializer;
void initialize() {
  told_to_initializer = complaint([] { return own_number(); });
  if (complaint([] { return draw(0); }).empty()) told_to_initializer.clear();
  static_cast<void>(current_worker().index());
}

}  // namespace

TEST_CASE("an initializer has a worker, but no number and no random numbers", "[worker_context]") {
  procpool::Pool pool{{.processes = 1, .initializer = {initialize}}};
  CHECK(pool.apply([] { return told_to_initializer; }).find("initializer") != std::string::npos);
  CHECK(pool.apply(own_number) == 1);
}

TEST_CASE("outside of a task there is no worker", "[worker_context]") {
  procpool::Pool pool{1};
  CHECK_THROWS_AS(current_worker(), std::logic_error);
  const auto in_thread = [] {
    bool threw = false;
    std::jthread([&] { threw = !complaint([] { return own_number(); }).empty(); }).join();
    return threw;
  };
  CHECK(pool.apply(in_thread));
  const auto in_child = [] {
    const pid_t child = fork();
    if (child == 0) _exit(complaint([] { return own_number(); }).empty() ? 1 : 0);
    int status = -1;
    waitpid(child, &status, 0);
    return status;
  };
  CHECK(pool.apply(in_child) == 0);
  const auto in_process = [] {
    procpool::Process process([] { static_cast<void>(current_worker()); });
    process.start();
    process.join();
    return process.exitcode();
  };
  CHECK(pool.apply(in_process) == std::optional(1));
  CHECK(pool.apply(own_number) == 3);
}

TEST_CASE("a pool inside a task has numbers and a seed of its own", "[worker_context]") {
  procpool::Pool pool{{.processes = 1, .seed = 5}};
  pool.apply(own_number);
  const auto nested = [] {
    procpool::Pool inner{{.processes = 1, .seed = 6}};
    const auto inside = inner.apply(draw, 0);
    return std::pair(inside, draw(0));
  };
  CHECK(pool.apply(nested) == std::pair(first_draw(6, 0), first_draw(5, 1)));
}

TEST_CASE("a task that runs in the midst of another one leaves that one's sequence alone",
          "[worker_context]") {
  procpool::Pool<procpool::Serial> here{{.seed = 1}};
  static procpool::Pool<procpool::Serial>* own = nullptr;
  own = &here;
  const auto draw_again = [](long deeper) {
    auto& mine = current_worker().random();
    numbers drawn{mine()};
    const numbers inside =
        deeper > 0 ? numbers{own->apply(draw, 0), own->apply(draw, 0)} : numbers{};
    drawn.push_back(mine());  // by what was there before
    drawn.push_back(draw(0));
    drawn.insert(drawn.end(), inside.begin(), inside.end());
    return drawn;
  };
  const auto alone = here.apply(draw_again, 0L);
  CHECK(alone[0] == first_draw(1, 0));
  procpool::Pool<procpool::Serial> again{{.seed = 1}};
  own = &again;
  auto expected = alone;
  expected.insert(expected.end(), {first_draw(1, 1), first_draw(1, 2)});
  CHECK(again.apply(draw_again, 1L) == expected);
  CHECK(again.apply(draw, 0) == first_draw(1, 3));
}

TEST_CASE("tasks that the caller runs one by one draw what workers would", "[worker_context]") {
  procpool::Pool<procpool::Serial> here{{.seed = 1}};
  for (std::uint64_t i = 0; i < 3; ++i) CHECK(here.apply(draw, 0) == first_draw(1, i));
}
