// SPDX-License-Identifier: MIT
// A program that is killed leaves nothing: no process after a second, at whatever moment.
#include "ambush.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "family.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace fault;
using namespace std::chrono_literals;
using bytes = std::vector<std::uint8_t>;

/// Where a program is in the life of its pool.
enum moment : int { construction, running, idle, teardown, moments };
constexpr std::array<const char*, moments> names{"construction", "running", "idle", "teardown"};

std::atomic<int>* now = nullptr;

long square(long x) {
  return x * x;
}

long slow_square(long x) {
  std::this_thread::sleep_for(500us);
  return x * x;
}

bytes echo(const bytes& data) {
  return data;
}

void kill_myself() {
  kill(getpid(), SIGKILL);
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

long pool_in_task(long workers) {
  procpool::Pool pool{static_cast<int>(workers)};
  return pool.map(slow_square, numbers(8)).back();
}

// ---- programs that never end -----------------------------------------------------------------

void close_and_join(int workers) {
  *now = construction;
  procpool::Pool pool{workers};
  *now = running;
  CHILD_REQUIRE(pool.apply(square, 3) == 9);
  CHILD_REQUIRE(pool.map(slow_square, numbers(16)).back() == 225);
  *now = idle;
  std::this_thread::sleep_for(2ms);
  *now = teardown;
  pool.close();
  pool.join();
}

void terminate_in_the_middle(int workers) {
  *now = construction;
  procpool::Pool pool{workers};
  *now = running;
  auto rest = pool.map_async(slow_square, numbers(1000));
  std::this_thread::sleep_for(3ms);
  *now = teardown;
  pool.terminate();
}

void replace_workers(int workers) {
  *now = construction;
  procpool::Pool pool{{.processes = workers, .maxtasksperchild = 1}};
  *now = running;
  CHILD_REQUIRE(pool.map(square, numbers(12), {.chunksize = 1}).back() == 121);
  auto deadly = pool.apply_async(kill_myself);
  deadly.wait();
  *now = teardown;
}

void nest(int workers) {
  *now = construction;
  procpool::Pool pool{2};
  *now = running;
  CHILD_REQUIRE(pool.map(pool_in_task, {long{workers}, 2L}, {.chunksize = 1}).back() == 49);
  *now = teardown;
}

/// A child by itself is its own master; one that minds its parent leaves with it.
void have_a_daemon(int workers) {
  *now = construction;
  procpool::Process child({.daemon = true}, [] { procpool::parent_process()->join(); });
  child.start();
  procpool::Pool pool{workers};
  *now = running;
  CHILD_REQUIRE(pool.map(slow_square, numbers(16)).back() == 225);
  *now = teardown;
  pool.terminate();
  child.terminate();
  child.join();
}

/// Life after life until somebody ends it.
int live(unsigned seed) {
  std::mt19937 random(seed);
  constexpr std::array lives{close_and_join, terminate_in_the_middle, replace_workers, nest,
                             have_a_daemon};
  for (;;) lives[random() % lives.size()](1 + static_cast<int>(random() % 4));
}

// ---- one life, for every system call in it ---------------------------------------------------

int live_once() {
  procpool::Pool pool{2};
  CHILD_REQUIRE(pool.apply(square, 3) == 9);
  auto some = pool.map_async(square, numbers(64), {.chunksize = 4});
  const bytes large(600'000, 7);
  CHILD_REQUIRE(pool.apply(echo, large) == large);
  CHILD_REQUIRE(some.get().back() == 3969);
  auto deadly = pool.apply_async(kill_myself);
  deadly.wait();
  CHILD_REQUIRE(pool.map(square, numbers(8)).back() == 49);
  pool.close();
  pool.join();
  return 0;
}

void kill_the_program() {
  kill(ambush::instance().program, SIGKILL);
}

struct figures {
  int killed = 0;
  int left = 0;
};

/// Kills the program before the first, second ... system call of @p process.
figures kill_at_every_call(whose process) {
  figures result;
  const auto shm = support::names_in("/dev/shm");
  // Runs differ a little in length: the end is where nothing happened twice.
  for (int n = 1, unharmed = 0; unharmed < 2; ++n) {
    const support::shared<std::atomic<int>> fired;
    family one([&] {
      lie_in_wait(process, n, kill_the_program, fired.get());
      return live_once();
    });
    const auto code = one.wait();
    REQUIRE(code.has_value());
    CHECK(*code == (*fired != 0 ? -SIGKILL : 0));
    result.left += one.gone() ? 0 : 1;
    (*fired != 0 ? result.killed : unharmed) += 1;
  }
  CHECK(support::names_in("/dev/shm") == shm);
  return result;
}

}  // namespace

TEST_CASE("a program killed at a random moment leaves no process after a second",
          "[fault][orphans][limit:600]") {
  const support::shared<std::atomic<int>> phase;
  now = phase.get();
  std::mt19937 random(seed_of("orphans"));
  const auto shm = support::names_in("/dev/shm");
  const int rounds = full_run() ? 4000 : 400;
  std::array<int, moments> killed{};
  int left = 0;
  for (int round = 0; round < rounds; ++round) {
    *phase = -1;
    const auto seed = static_cast<unsigned>(random());
    family one([&] { return live(seed); });
    const int wanted = static_cast<int>(random() % moments);
    REQUIRE(support::eventually([&] { return *phase >= 0; }));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 8000));
    const auto end = std::chrono::steady_clock::now() + 2s;
    while (*phase != wanted && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1000));
    ++killed[static_cast<std::size_t>(phase->load())];
    one.kill_head();
    left += one.gone() ? 0 : 1;
  }
  CHECK(left == 0);
  CHECK(support::names_in("/dev/shm") == shm);
  for (int count : killed) CHECK(count > rounds / 20);
  std::printf("orphans: %d programs killed, during", rounds);
  for (std::size_t i = 0; i < moments; ++i) std::printf(" %s %d,", names[i], killed[i]);
  std::printf(" %d families outlived them by a second\n", left);
}

TEST_CASE("a program killed before each of its system calls leaves no process after a second",
          "[fault][orphans][limit:600]") {
  const figures result = kill_at_every_call(whose::program);
  CHECK(result.killed > 30);
  CHECK(result.left == 0);
  std::printf("orphans: killed before each of %d system calls of the program, %d families left\n",
              result.killed, result.left);
}

TEST_CASE("a program killed before each system call of its fork server leaves no process",
          "[fault][orphans][limit:600]") {
  const figures result = kill_at_every_call(whose::fork_server);
  CHECK(result.killed > 20);
  CHECK(result.left == 0);
  std::printf(
      "orphans: killed before each of %d system calls of the fork server, %d families left\n",
      result.killed, result.left);
}

TEST_CASE("a program killed while its workers are stopped leaves no process", "[fault][orphans]") {
  const support::shared<support::gate> gate;
  static support::gate* door = nullptr;
  door = gate.get();
  int left = 0;
  for (int round = 0; round < 10; ++round) {
    gate->arrived = 0;
    family one([] {
      procpool::Pool pool{2};
      pool.map([](long) { door->pass(); }, numbers(2), {.chunksize = 1});
      return 0;
    });
    REQUIRE(gate->wait_for(2));
    for (const auto& process : support::descendants_of(one.head())) {
      if (process.name == "procpool-worker") kill(process.pid, SIGSTOP);
    }
    one.kill_head();
    left += one.gone() ? 0 : 1;
  }
  CHECK(left == 0);
  std::printf("orphans: 10 programs killed while their workers were stopped, %d left\n", left);
}
