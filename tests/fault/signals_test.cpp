// SPDX-License-Identifier: MIT
// Ctrl-C in a terminal, workers that are stopped, alarms: signals that a program with a pool meets.
#include "ambush.hpp"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <set>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "family.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "terminal.hpp"

namespace {

using namespace fault;
using namespace std::chrono_literals;
using bytes = std::vector<std::uint8_t>;

constexpr char ctrl_c = '\x03';

/// Counts what arrived, here and in other processes that should not have been asked.
struct interruptions {
  std::atomic<int> here, elsewhere;
};
interruptions* interrupted = nullptr;
pid_t program = 0;
support::gate* door = nullptr;
std::atomic<pid_t>* stopped_one = nullptr;
std::atomic<long> ticks = 0;

void count_interruption(int) {
  ++(getpid() == program ? interrupted->here : interrupted->elsewhere);
}

void count_tick(int) {
  ticks.fetch_add(1, std::memory_order_relaxed);  // a count
}

/// Catches @p number from now on, without SA_RESTART unless @p restart: waits are interrupted.
void catch_signal(int number, void (*handler)(int), bool restart = false) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = restart ? SA_RESTART : 0;
  sigaction(number, &action, nullptr);
}

long square(long x) {
  return x * x;
}

pid_t pid_slowly(long) {
  std::this_thread::sleep_for(5ms);
  return getpid();
}

long pass_and_square(long x) {
  door->pass();
  return x * x;
}

long tell_and_pass(long x) {
  *stopped_one = getpid();
  return pass_and_square(x);
}

bytes echo(const bytes& data) {
  return data;
}

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

std::set<pid_t> pids_of(procpool::Pool<>& pool) {
  const auto all = pool.map(pid_slowly, numbers(30), {.chunksize = 1});
  return {all.begin(), all.end()};
}

void say(const char* word) {
  std::puts(word);
  std::fflush(stdout);
}

// ---- programs in a terminal ------------------------------------------------------------------

/// Goes on using its pool through twenty interruptions.
int heed_interruptions() {
  program = getpid();
  catch_signal(SIGINT, count_interruption);
  procpool::Pool pool{3};
  const auto before = pids_of(pool);
  auto hanging = pool.map_async(pass_and_square, numbers(3), {.chunksize = 1});
  CHILD_REQUIRE(door->wait_for(3));
  say("ready");
  CHILD_REQUIRE(support::eventually([] { return interrupted->here >= 20; }));
  door->open();
  CHILD_REQUIRE(hanging.get().back() == 4);
  CHILD_REQUIRE(pool.map(square, numbers(1000)).back() == 998001);
  const auto after = pids_of(pool);
  CHILD_REQUIRE(before == after);
  pool.close();
  pool.join();
  return 0;
}

/// Makes pool after pool while the keys are pressed.
int make_pools_under_fire() {
  program = getpid();
  catch_signal(SIGINT, count_interruption);
  say("ready");
  int made = 0;
  while (interrupted->here < 1000) {
    procpool::Pool pool{2};
    CHILD_REQUIRE(pool.map(square, numbers(10)).back() == 81);
    ++made;
  }
  std::printf("%d pools were made\n", made);
  say("done");
  return 0;
}

int know_nothing_of_signals() {
  procpool::Pool pool{3};
  auto hanging = pool.map_async(pass_and_square, numbers(3), {.chunksize = 1});
  CHILD_REQUIRE(door->wait_for(3));
  say("ready");
  hanging.wait();
  return 0;
}

/// As a terminal does, to the whole process group of the fork server.
void interrupt_everybody() {
  kill(0, SIGINT);
}

int interrupt_at_call(whose process, int n, std::atomic<int>* fired) {
  program = getpid();
  setpgid(0, 0);
  catch_signal(SIGINT, count_interruption);
  lie_in_wait(process, n, interrupt_everybody, fired);
  procpool::Pool pool{2};
  CHILD_REQUIRE(pool.map(square, numbers(100)).back() == 9801);
  pool.close();
  pool.join();
  return 0;
}

// ---- alarms ----------------------------------------------------------------------------------

void start_alarms(long microseconds) {
  const itimerval every{{0, microseconds}, {0, microseconds}};
  setitimer(ITIMER_REAL, &every, nullptr);
}

/// Everything a program does with pools and processes, a thousand times a second interrupted.
int work_under_alarms(bool restart) {
  catch_signal(SIGALRM, count_tick, restart);
  start_alarms(1000);
  const bytes large(3 << 20, 5);
  for (int round = 0; round < 15; ++round) {
    procpool::Pool pool{2};
    CHILD_REQUIRE(pool.map(square, numbers(20'000)).back() == 19'999L * 19'999);
    auto slow = pool.map_async(pid_slowly, numbers(10), {.chunksize = 1});
    CHILD_REQUIRE(pool.apply(echo, large) == large);
    slow.wait();
    CHILD_REQUIRE(!pool.apply_async(pid_slowly, 1L).wait(1us));
    auto results = pool.imap(square, std::views::iota(0L, 500L));
    for (long i = 0; i < 500; ++i) CHILD_REQUIRE(results.next() == i * i);
    try {
      pool.apply([] { kill(getpid(), SIGKILL); });
      return 1;
    } catch (const procpool::WorkerDied&) {
    }
    if (round % 2 == 0) pool.close();
    if (round % 2 == 0) pool.join();
    procpool::Process child([] { std::this_thread::sleep_for(10ms); });
    child.start();
    child.join();
    CHILD_REQUIRE(child.exitcode() == 0);
  }
  start_alarms(0);
  std::printf("alarms (%s): %ld interrupted what ran, all results right\n",
              restart ? "SA_RESTART" : "EINTR", ticks.load());
  return ticks > 100 ? 0 : 1;
}

}  // namespace

TEST_CASE("Ctrl-C reaches the program alone, and one that catches it goes on with its pool",
          "[fault][signals]") {
  const support::shared<interruptions> counted;
  const support::shared<support::gate> gate;
  interrupted = counted.get();
  door = gate.get();
  terminal screen(heed_interruptions);
  REQUIRE(screen.shows("ready"));
  for (int i = 1; i <= 20; ++i) {
    screen.type(ctrl_c);
    REQUIRE(support::eventually([&] { return counted->here >= i; }));
  }
  const auto code = screen.exitcode();
  INFO(screen.screen());
  CHECK(code == 0);
  CHECK(counted->elsewhere == 0);
  CHECK(screen.gone());
  std::printf("Ctrl-C: %d keys, all caught by the program, same workers, results right\n",
              counted->here.load());
}

TEST_CASE("Ctrl-C while pools are made and ended disturbs none of their processes",
          "[fault][signals]") {
  const support::shared<interruptions> counted;
  interrupted = counted.get();
  terminal screen(make_pools_under_fire);
  REQUIRE(screen.shows("ready"));
  std::this_thread::sleep_for(5ms);
  int keys = 0;
  while (!screen.shows("done", 1ms) && keys < 20'000) {
    screen.type(ctrl_c);
    ++keys;
  }
  INFO(screen.screen());
  CHECK(screen.exitcode() == 0);
  CHECK(counted->elsewhere == 0);
  CHECK(screen.gone());
  std::printf("Ctrl-C: %d keys while pools came and went, %d arrived elsewhere\n", keys,
              counted->elsewhere.load());
}

TEST_CASE("an interrupt of all before each system call of the fork server reaches the program",
          "[fault][signals][limit:300]") {
  int sent = 0;
  for (const whose process : {whose::fork_server, whose::program}) {
    for (int n = 1, unharmed = 0; unharmed < 2; ++n) {
      const support::shared<interruptions> counted;
      const support::shared<std::atomic<int>> fired;
      interrupted = counted.get();
      family one([&] { return interrupt_at_call(process, n, fired.get()); });
      INFO("system call " << n << (process == whose::program ? " of the program" : ""));
      REQUIRE(one.wait(10s) == 0);
      CHECK(counted->elsewhere == 0);
      CHECK(one.gone());
      (*fired != 0 ? sent : unharmed) += 1;
    }
  }
  CHECK(sent > 60);
  std::printf("Ctrl-C: sent at %d system calls, disturbed nobody but the program\n", sent);
}

TEST_CASE("a program that does not catch Ctrl-C ends by it and leaves nothing",
          "[fault][signals]") {
  int left = 0;
  for (int round = 0; round < 10; ++round) {
    const support::shared<support::gate> gate;
    door = gate.get();
    terminal screen(know_nothing_of_signals);
    REQUIRE(screen.shows("ready"));
    screen.type(ctrl_c);
    CHECK(screen.exitcode() == -SIGINT);
    left += screen.gone() ? 0 : 1;
  }
  CHECK(left == 0);
  std::printf("Ctrl-C: ended 10 programs, %d left processes\n", left);
}

TEST_CASE("a worker stopped in the middle of a task stalls that task only", "[fault][signals]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<pid_t>> pid;
  door = gate.get();
  stopped_one = pid.get();
  procpool::Pool pool{3};
  for (int round = 0; round < 5; ++round) {
    gate->arrived = 0;
    gate->opened = false;
    auto stalled = pool.apply_async(tell_and_pass, 7L);
    REQUIRE(gate->wait_for(1));
    std::vector<procpool::AsyncResult<long>> others;
    for (long i = 0; i < 100; ++i) others.push_back(pool.apply_async(square, i));
    kill(*pid, SIGSTOP);
    gate->open();
    for (long i = 100; i < 200; ++i) others.push_back(pool.apply_async(square, i));
    for (long i = 0; i < 200; ++i) CHECK(others[static_cast<std::size_t>(i)].get(10s) == i * i);
    CHECK(pool.map(square, numbers(500)).back() == 249001);
    CHECK_FALSE(stalled.ready());
    kill(*pid, SIGCONT);
    CHECK(stalled.get(10s) == 49);
  }
  std::printf("SIGSTOP: 5 workers stopped in a task, 3,500 other tasks done meanwhile\n");
}

TEST_CASE("an idle worker that is stopped holds up nothing", "[fault][signals]") {
  procpool::Pool pool{2};
  for (int round = 0; round < 5; ++round) {
    const pid_t idle = pool.apply(pid_slowly, 1L);
    kill(idle, SIGSTOP);
    std::vector<procpool::AsyncResult<long>> all;
    for (long i = 0; i < 100; ++i) all.push_back(pool.apply_async(square, i));
    for (long i = 0; i < 100; ++i) CHECK(all[static_cast<std::size_t>(i)].get(10s) == i * i);
    CHECK(pool.apply(square, 9L) == 81);
    kill(idle, SIGCONT);
  }
}

TEST_CASE("the time limit of a task whose worker is stopped still holds", "[fault][signals]") {
  const support::shared<support::gate> gate;
  const support::shared<std::atomic<pid_t>> pid;
  door = gate.get();
  stopped_one = pid.get();
  procpool::Pool pool{2};
  auto late = pool.apply_async({.timeout = 300ms}, tell_and_pass, 7L);
  REQUIRE(gate->wait_for(1));
  kill(*pid, SIGSTOP);
  CHECK_THROWS_AS(late.get(10s), procpool::TimeoutError);
  CHECK(late.ready());
  CHECK(pool.map(square, numbers(100)).back() == 9801);
}

TEST_CASE("a pool whose workers are all stopped can be terminated", "[fault][signals]") {
  procpool::Pool pool{2};
  for (pid_t worker : pids_of(pool)) kill(worker, SIGSTOP);
  auto rest = pool.map_async(square, numbers(100));
  pool.terminate();
  CHECK_THROWS_AS(rest.get(10s), procpool::CancelledError);
}

TEST_CASE("an alarm every millisecond interrupts every wait, and all is right",
          "[fault][signals][limit:120]") {
  for (const bool restart : {false, true}) {
    CHECK(support::run_child([&] { return work_under_alarms(restart); }) == 0);
  }
}
