// SPDX-License-Identifier: MIT
// The fork server of a pool is killed, stopped or sent signals: the pool says so, nothing hangs.
#include "ambush.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
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

/// What outcomes came to, over all processes of a test.
struct tally {
  std::atomic<long> values, broken, refused_pools, unharmed;
};
tally* counts = nullptr;
support::gate* door = nullptr;

long square(long x) {
  return x * x;
}

long slow_square(long x) {
  std::this_thread::sleep_for(200us);
  return x * x;
}

pid_t worker_pid() {
  return getpid();
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

bool says_why(const procpool::BrokenPool& error) {
  return std::string(error.what()).find("fork server") != std::string::npos;
}

/// The right value, or BrokenPool with the reason (then true); anything else ends the program.
template <class Work>
bool breaks(Work work, long expected) {
  try {
    CHILD_REQUIRE(work() == expected);
    ++counts->values;
    return false;
  } catch (const procpool::BrokenPool& error) {
    CHILD_REQUIRE(says_why(error));
    ++counts->broken;
    return true;
  }
}

enum class ending { joined, terminated, destroyed };

/// A task that takes its worker with it: the fork server reports that and starts another.
bool lose_a_worker(procpool::Pool<>& pool) {
  try {
    pool.apply([] { kill(getpid(), SIGKILL); });
    support::child_failed("the task did not return", __FILE__, __LINE__);
  } catch (const procpool::WorkerDied& death) {
    CHILD_REQUIRE(death.signal() == SIGKILL);
    return false;
  } catch (const procpool::BrokenPool& error) {
    CHILD_REQUIRE(says_why(error));
    return true;
  }
}

/// Work of every kind on a pool whose fork server may go at any moment.
bool use(procpool::Pool<>& pool) {
  std::vector<procpool::AsyncResult<long>> results;
  bool broken = breaks([&] { return pool.apply(square, 3L); }, 9);
  broken |= lose_a_worker(pool);
  try {
    for (long i = 0; i < 24; ++i) results.push_back(pool.apply_async(slow_square, i));
  } catch (const procpool::BrokenPool& error) {
    CHILD_REQUIRE(says_why(error));
    broken = true;
  }
  try {
    const auto outcomes = pool.map_outcomes(slow_square, numbers(24), {.chunksize = 3});
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      broken |= breaks([&] { return outcomes[i].value(); }, static_cast<long>(i * i));
    }
  } catch (const procpool::BrokenPool& error) {
    CHILD_REQUIRE(says_why(error));
    broken = true;
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    broken |= breaks([&] { return results[i].get(); }, static_cast<long>(i * i));
  }
  if (broken) CHILD_REQUIRE(breaks([&] { return pool.apply(square, 4L); }, 16));
  return broken;
}

void end(procpool::Pool<>& pool, ending how) {
  if (how == ending::joined) pool.close();
  if (how == ending::joined) pool.join();
  if (how == ending::terminated) pool.terminate();
}

/// A pool that may lose its fork server, then one that does not.
int outlive(ending how) {
  try {
    procpool::Pool pool{{.processes = 2, .maxtasksperchild = 5}};
    if (!use(pool)) ++counts->unharmed;
    end(pool, how);
  } catch (const procpool::ProcessError& error) {  // while it was made, and only then
    CHILD_REQUIRE(std::string(error.what()).find("fork server") != std::string::npos);
    ++counts->refused_pools;
  }
  disarm();
  procpool::Pool another{2};
  CHILD_REQUIRE(another.map(square, numbers(50)).back() == 2401);
  return 0;
}

std::optional<pid_t> server_of(pid_t program) {
  for (const auto& child : support::children_of(program)) {
    if (!child.zombie()) return child.pid;
  }
  return std::nullopt;
}

void kill_own_server() {
  if (const auto server = server_of(getpid())) kill(*server, SIGKILL);
}

void kill_oneself() {
  kill(getpid(), SIGKILL);
}

/// The fork server is lost before the first, second ... system call of @p process.
int lose_at_every_call(whose process, void (*loss)()) {
  int killed = 0;
  for (int n = 1, unharmed = 0; unharmed < 2; ++n) {
    const support::shared<std::atomic<int>> fired;
    INFO("system call " << n);
    family one([&] {
      lie_in_wait(process, n, loss, fired.get());
      return outlive(static_cast<ending>(n % 3));
    });
    const auto code = one.wait(10s);
    REQUIRE(code == 0);
    CHECK(one.gone());
    (*fired != 0 ? killed : unharmed) += 1;
  }
  return killed;
}

void print(const char* what, int killed) {
  std::printf("%s %d: %ld values, %ld BrokenPool, %ld pools not made, 0 hangs\n", what, killed,
              counts->values.load(), counts->broken.load(), counts->refused_pools.load());
}

/// Kills the fork server of this process's only pool and waits until all of the pool is dead.
void kill_server() {
  const auto all = support::descendants_of(getpid());
  kill_own_server();
  CHECK(support::eventually([&] {
    return std::ranges::none_of(all, [](const auto& p) { return support::is_running(p.pid); });
  }));
}

/// Sends a signal to the fork server of this process's only pool.
void signal_server(int number) {
  for (const auto& child : support::children_of(getpid())) {
    if (child.name == "procpool-server") kill(child.pid, number);
  }
}

}  // namespace

TEST_CASE("the fork server killed before each system call of the program: no hang, no lie",
          "[fault][forkserver][limit:600]") {
  const support::shared<tally> all;
  counts = all.get();
  const int killed = lose_at_every_call(whose::program, kill_own_server);
  CHECK(killed > 30);
  CHECK(all->broken > 100);
  print("fork server: killed before system calls of the program:", killed);
}

TEST_CASE("the fork server killed before each of its own system calls: no hang, no lie",
          "[fault][forkserver][limit:600]") {
  const support::shared<tally> all;
  counts = all.get();
  const int killed = lose_at_every_call(whose::fork_server, kill_oneself);
  CHECK(killed > 20);
  CHECK(all->refused_pools > 5);
  print("fork server: killed before its own system calls:", killed);
}

TEST_CASE("the fork server killed at random moments while tasks run, SIGTERM does it no harm",
          "[fault][forkserver]") {
  const support::shared<tally> all;
  counts = all.get();
  std::mt19937 random(seed_of("fork server"));
  const int rounds = full_run() ? 1000 : 100;
  int terminated = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto delay = std::chrono::microseconds(random() % 6000);
    const int number = random() % 3 == 0 ? SIGTERM : SIGKILL;
    terminated += number == SIGTERM ? 1 : 0;
    family one([&] {
      procpool::Pool pool{2};
      const pid_t server = server_of(getpid()).value();
      std::thread killer([&] {
        std::this_thread::sleep_for(delay);
        kill(server, number);
      });
      const bool broken = use(pool);
      killer.join();
      CHILD_REQUIRE(!broken || number == SIGKILL);  // it ends by its socket, not by signals
      end(pool, static_cast<ending>(round % 3));
      return 0;
    });
    REQUIRE(one.wait(10s) == 0);
    CHECK(one.gone());
  }
  CHECK(terminated > rounds / 5);
  CHECK(all->broken > rounds);
  print("fork server: killed or terminated at random moments:", rounds);
}

TEST_CASE("the fork server killed while the pool is idle: new work gets BrokenPool",
          "[fault][forkserver]") {
  for (const ending how : {ending::joined, ending::terminated, ending::destroyed}) {
    procpool::Pool pool{2};
    CHECK(pool.apply(square, 3L) == 9);
    kill_server();
    auto later = pool.imap(square, std::vector<long>{1, 2, 3});
    CHECK_THROWS_AS(later.next(), procpool::BrokenPool);
    CHECK_THROWS_AS(pool.apply(square, 3L), procpool::BrokenPool);
    CHECK_THROWS_AS(pool.map(square, numbers(3)), procpool::BrokenPool);
    CHECK_THROWS_AS(pool.apply_async(square, 3L).get(), procpool::BrokenPool);
    end(pool, how);
  }
}

TEST_CASE("what was done before the fork server was killed keeps its value",
          "[fault][forkserver]") {
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  auto done = pool.apply_async(square, 7L);
  CHECK(done.wait(10s));
  auto hanging = pool.apply_async([] { door->pass(); });
  REQUIRE(gate->wait_for(1));
  auto unread = pool.map_async(square, numbers(10), {.chunksize = 1});
  CHECK(unread.wait(10s));
  kill_server();
  CHECK_THROWS_AS(hanging.get(), procpool::BrokenPool);
  CHECK(done.get() == 49);
  CHECK(unread.get().back() == 81);
}

TEST_CASE("callbacks hear of a lost fork server", "[fault][forkserver]") {
  std::atomic<int> told = 0;
  const support::shared<support::gate> gate;
  door = gate.get();
  procpool::Pool pool{2};
  auto hanging = pool.apply_async({.error_callback = [&](std::exception_ptr) { ++told; }},
                                  [] { door->pass(); });
  REQUIRE(gate->wait_for(1));
  kill_server();
  CHECK(support::eventually([&] { return told == 1; }, 10s));
  CHECK(hanging.wait(10s));
}

TEST_CASE("SIGINT, SIGSTOP and SIGCONT of the fork server do no harm", "[fault][forkserver]") {
  procpool::Pool pool{2};
  signal_server(SIGINT);
  CHECK(pool.map(square, numbers(100)).back() == 9801);
  signal_server(SIGSTOP);
  CHECK(pool.map(square, numbers(100)).back() == 9801);
  kill(pool.apply(worker_pid), SIGKILL);
  auto some = pool.map_async(square, numbers(100), {.chunksize = 1});
  CHECK(some.get().back() == 9801);  // the other worker does them
  signal_server(SIGCONT);
  CHECK(pool.map(slow_square, numbers(100), {.chunksize = 1}).back() == 9801);
  pool.close();
  pool.join();
}

TEST_CASE("a pool whose fork server is stopped can be ended", "[fault][forkserver]") {
  for (const ending how : {ending::terminated, ending::destroyed}) {
    family one([&] {
      procpool::Pool pool{2};
      CHILD_REQUIRE(pool.apply(square, 3L) == 9);
      signal_server(SIGSTOP);
      end(pool, how);
      return 0;
    });
    CHECK(one.wait(10s) == 0);
    CHECK(one.gone());
  }
}
