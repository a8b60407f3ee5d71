// SPDX-License-Identifier: MIT
// Workers are killed and stopped at random moments while 200,000 tasks go through the pool: every
// task has exactly one outcome, and it is the right one.
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t tasks = 200'000;
constexpr int workers = 4;
constexpr int kills_wanted = 2'600;

// What tasks note of themselves, where the test sees it after their worker is dead.
struct ledger {
  std::array<std::atomic<pid_t>, workers> pids;
  std::array<std::atomic<std::uint8_t>, tasks> entered;
  std::array<std::atomic<std::uint8_t>, tasks> left;
};
ledger* book = nullptr;  // workers inherit the mapping

std::uint64_t scrambled(std::uint64_t number) {
  number *= 0x9E3779B97F4A7C15U;
  return number ^ (number >> 29);
}

// Mostly nothing, now and then more than a ring, seldom more than a large part of the arena.
std::size_t payload_size(std::uint32_t task) {
  const std::uint64_t dice = scrambled(task) % 1000;
  if (dice < 900) return dice % 50;
  return dice < 995 ? 1'000 + scrambled(task + 1) % 10'000 : 50'000 + scrambled(task + 2) % 250'000;
}

std::chrono::microseconds length(std::uint32_t task) {
  const std::uint64_t dice = scrambled(task + 3) % 1000;
  if (dice < 900) return 0us;
  return std::chrono::microseconds(dice < 999 ? dice % 50 : 2'000);
}

void be_busy_for(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// The payload comes back turned round, so that a mix-up cannot look right.
std::string answer_to(std::uint32_t task, std::string payload) {
  for (char& each : payload) each = static_cast<char>(each ^ static_cast<char>(task));
  return std::to_string(task) + ":" + payload;
}

std::string work(std::uint32_t task, std::string payload) {
  const auto index = static_cast<std::size_t>(procpool::current_worker().index());
  book->pids[index].store(getpid(), std::memory_order_relaxed);  // read by whoever kills
  book->entered[task].fetch_add(1, std::memory_order_relaxed);   // read when all is over
  be_busy_for(length(task));
  std::string answer = answer_to(task, std::move(payload));
  book->left[task].fetch_add(1, std::memory_order_relaxed);  // read when all is over
  return answer;
}

std::string payload_of(std::uint32_t task) {
  return std::string(payload_size(task), static_cast<char>('a' + task % 26));
}

// Kills as many workers as the progress of the tasks allows, at moments of its own.
class killer {
 public:
  killer(std::uint64_t seed, bool stops)
      : random_(seed), stops_(stops), thread_([this] { run(); }) {}
  killer(const killer&) = delete;
  killer& operator=(const killer&) = delete;
  ~killer() { end(); }

  /// So many kills are due by now. Waits a little if they are far behind: until tasks have run in
  /// fresh workers.
  void allow(int kills) {
    allowed_.store(kills, std::memory_order_relaxed);  // a pace, no order
    for (int i = 0; i < 20 && count_.load(std::memory_order_relaxed) + 20 < kills; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
  void end() {
    ended_.store(true, std::memory_order_relaxed);  // joined next
    if (thread_.joinable()) thread_.join();
  }

  // After end().
  [[nodiscard]] const std::set<pid_t>& killed() const { return killed_; }
  [[nodiscard]] int stops() const { return stopped_; }

 private:
  void run() {
    while (!ended_.load(std::memory_order_relaxed)) {  // a flag
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % 300));
      if (static_cast<int>(killed_.size()) < allowed_.load(std::memory_order_relaxed)) strike();
    }
  }

  void strike() {
    const pid_t victim = book->pids[random_() % workers].load(std::memory_order_relaxed);  // a hint
    if (victim == 0 || killed_.contains(victim)) return;
    if (stops_ && random_() % 4 == 0) return hold(victim);
    if (kill(victim, SIGKILL) != 0) return;
    killed_.insert(victim);
    count_.store(static_cast<int>(killed_.size()), std::memory_order_relaxed);  // a pace
  }

  void hold(pid_t victim) {
    if (kill(victim, SIGSTOP) != 0) return;
    ++stopped_;
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % 3'000));
    kill(victim, random_() % 2 == 0 ? SIGCONT : SIGKILL);
    kill(victim, SIGCONT);  // a killed one does not mind
  }

  std::mt19937_64 random_;
  bool stops_;
  std::set<pid_t> killed_;
  int stopped_ = 0;
  std::atomic<int> allowed_{0};
  std::atomic<int> count_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

struct tally {
  std::uint32_t values = 0;
  std::uint32_t wrong = 0;
  std::map<std::uint32_t, pid_t> died;  // task, worker
};

using answer = std::pair<std::uint32_t, procpool::AsyncResult<std::string>>;

void settle(answer& next, tally& counts) {
  try {
    const std::string got = next.second.get();
    ++counts.values;
    if (got != answer_to(next.first, payload_of(next.first))) ++counts.wrong;
  } catch (const procpool::WorkerDied& death) {
    counts.died.emplace(next.first, death.pid());
  }
}

std::uint64_t storm_seed() {
  const char* given = std::getenv("PROCPOOL_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

tally run_storm(procpool::Pool<>& pool, killer& storm, int retries) {
  constexpr std::size_t window = 500;
  tally counts;
  std::deque<answer> waiting;
  for (std::uint32_t task = 0; task < tasks; ++task) {
    waiting.emplace_back(task,
                         pool.apply_async({.retries = retries}, work, task, payload_of(task)));
    if (waiting.size() < window) continue;
    settle(waiting.front(), counts);
    waiting.pop_front();
    storm.allow(static_cast<int>(std::uint64_t{task} * kills_wanted / tasks));
  }
  for (answer& next : waiting) settle(next, counts);
  storm.end();
  return counts;
}

procpool::pool_options storm_pool() {
  return {.processes = workers, .ring_bytes = 64 << 10, .arena_bytes = 4 << 20};
}

}  // namespace

TEST_CASE("In a storm of kills with retries every one of 200,000 results is right",
          "[fault][limit:300]") {
  const std::uint64_t seed = storm_seed();
  std::printf("storm with retries: seed %llu\n", static_cast<unsigned long long>(seed));
  const support::shared<ledger> memory;
  book = memory.get();
  procpool::Pool pool{storm_pool()};
  killer storm(seed, false);
  const tally counts = run_storm(pool, storm, 1000);
  CHECK(counts.values == tasks);
  CHECK(counts.wrong == 0);
  CHECK(counts.died.empty());
  CHECK(storm.killed().size() >= 2'000);
  std::printf("storm with retries: %zu workers killed, %u results right, %u wrong\n",
              storm.killed().size(), counts.values - counts.wrong, counts.wrong);
}

TEST_CASE("In a storm of kills and stops without retries every task has one outcome, the truth",
          "[fault][limit:300]") {
  const std::uint64_t seed = storm_seed();
  std::printf("storm without retries: seed %llu\n", static_cast<unsigned long long>(seed));
  const support::shared<ledger> memory;
  book = memory.get();
  tally counts;
  std::set<pid_t> killed;
  int stops = 0;
  {
    procpool::Pool pool{storm_pool()};
    killer storm(seed, true);
    counts = run_storm(pool, storm, 0);
    killed = storm.killed();
    stops = storm.stops();
  }
  std::uint32_t in_function = 0;
  std::uint32_t around_it = 0;
  std::uint32_t twice = 0;
  std::uint32_t unpunished = 0;
  for (std::uint32_t task = 0; task < tasks; ++task) {
    const auto entered = book->entered[task].load(std::memory_order_relaxed);  // its worker is gone
    const auto left = book->left[task].load(std::memory_order_relaxed);        // likewise
    const bool died = counts.died.contains(task);
    if (entered > 1) ++twice;
    if (entered != left && !died) ++unpunished;  // was running when killed, yet has a value
    if (!died) continue;
    ++(entered != left ? in_function : around_it);  // decoding before, or sending after
  }
  std::set<pid_t> charged;
  for (const auto& [task, pid] : counts.died) charged.insert(pid);
  CHECK(counts.values + counts.died.size() == tasks);
  CHECK(counts.wrong == 0);
  CHECK(twice == 0);
  CHECK(unpunished == 0);
  CHECK(counts.died.size() == in_function + around_it);
  CHECK(charged.size() == counts.died.size());  // no death costs two tasks
  CHECK(killed.size() >= 2'000);
  std::printf(
      "storm without retries: %zu kills and %d stops, %zu tasks were running when killed (%u in "
      "their function, %u in decoding or sending), %zu ended with WorkerDied, 0 ran twice\n",
      killed.size(), stops, counts.died.size(), in_function, around_it, counts.died.size());
}

TEST_CASE("In a storm that also kills the fork server all outcomes are values or say so",
          "[fault][limit:120]") {
  constexpr int rounds = 30;
  constexpr std::uint32_t each_round = 2'000;
  const std::uint64_t seed = storm_seed();
  std::printf("storm with the fork server: seed %llu\n", static_cast<unsigned long long>(seed));
  const support::shared<ledger> memory;
  book = memory.get();
  std::mt19937_64 random(seed);
  std::uint32_t right = 0;
  std::uint32_t broken = 0;
  for (int round = 0; round < rounds; ++round) {
    procpool::Pool pool{storm_pool()};
    pid_t server = 0;
    for (const auto& child : support::children_of(getpid())) {
      if (!child.zombie()) server = child.pid;
    }
    killer storm(random(), false);
    storm.allow(20);
    std::vector<answer> answers;
    try {
      for (std::uint32_t task = 0; task < each_round; ++task) {
        answers.emplace_back(task,
                             pool.apply_async({.retries = 1000}, work, task, payload_of(task)));
        if (task == 500 + random() % 1000) kill(server, SIGKILL);
      }
      kill(server, SIGKILL);
    } catch (const procpool::BrokenPool&) {
    }
    for (answer& next : answers) {
      try {
        const std::string got = next.second.get();
        CHECK(got == answer_to(next.first, payload_of(next.first)));
        ++right;
      } catch (const procpool::BrokenPool&) {
        ++broken;
      }
    }
    CHECK_THROWS_AS(pool.apply(work, 0U, std::string()), procpool::BrokenPool);
  }
  CHECK(right > 0);
  CHECK(broken > 0);
  std::printf("storm with the fork server: %d servers killed, %u results right, %u BrokenPool\n",
              rounds, right, broken);
}
