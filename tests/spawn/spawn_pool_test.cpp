// SPDX-License-Identifier: MIT
// Pools whose workers are spawned: functions of the program and of its libraries, programs with
// many threads, pools within pools, exceptions.
#include <fcntl.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "linked.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using procpool::start_method;

/// Known to the workers, because it is registered before main.
struct registered_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[maybe_unused]] const bool registered = (procpool::register_exception<registered_error>(), true);

/// Registered by the test alone, so in no worker.
struct late_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

procpool::pool_options spawned(int workers) {
  return {.processes = workers, .start_method = start_method::spawn};
}

long square(long x) {
  return x * x;
}

template <class Error>
void throw_one() {
  throw Error("42 is the reason");
}

std::pair<std::uintptr_t, std::uintptr_t> addresses() {
  return {reinterpret_cast<std::uintptr_t>(&square),
          reinterpret_cast<std::uintptr_t>(&linked_cube)};
}

/// Whether programs of this machine are put at another address each time.
bool addresses_vary() {
  int mode = 0;
  std::ifstream("/proc/sys/kernel/randomize_va_space") >> mode;
  const int own = personality(0xffffffff);
  return mode == 2 && (own & ADDR_NO_RANDOMIZE) == 0;
}

long sum_in_nested_pool(long count) {
  procpool::Pool pool{spawned(2)};
  long sum = 0;
  for (long i = 0; i < count; ++i) sum += pool.apply(square, i);
  return sum;
}

void leave_with(int status) {
  std::exit(status);
}

int code_of_nested_process(int status) {
  procpool::Process process({.start_method = start_method::spawn}, leave_with, status);
  process.start();
  process.join();
  return process.exitcode().value_or(-1);
}

std::vector<std::string> descriptors() {
  std::vector<std::string> all;
  for (const auto& [number, target] : support::open_fds()) all.push_back(target);
  return all;
}

std::pair<std::string, std::string> surroundings() {
  const char* value = std::getenv("PROCPOOL_SPAWN_TEST");
  return {std::filesystem::current_path().string(), value == nullptr ? "" : value};
}

std::pair<bool, bool> blocked_signals() {
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  return {sigismember(&mask, SIGUSR1) == 1, sigismember(&mask, SIGTERM) == 1};
}

[[gnu::noinline]] int write_to_nowhere(int* nowhere) {
  *static_cast<volatile int*>(nowhere) = 5;
  return 5;
}
int crash() {
  int* nowhere = nullptr;
  asm volatile("" : "+r"(nowhere));  // nothing the compiler knows
  return write_to_nowhere(nowhere) + 1;
}

/// Through a FILE that is never closed.
int log_to(const std::string& file) {
  static std::FILE* log = std::fopen(file.c_str(), "w");
  return std::fprintf(log, "a line\n");
}

/// Threads that do nothing but allocate, so that a fork would nearly always meet a locked heap.
class busy_threads {
 public:
  explicit busy_threads(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!stop_) {
          std::vector<std::string> waste;
          for (std::size_t n = 1; n < 50; ++n) waste.emplace_back(n * 37, 'x');
        }
      });
    }
  }
  busy_threads(const busy_threads&) = delete;
  busy_threads& operator=(const busy_threads&) = delete;
  ~busy_threads() {
    stop_ = true;
    for (auto& each : threads_) each.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE(
    "functions of the program and of a library that it is linked with run in workers that "
    "have them elsewhere",
    "[spawn][pool]") {
  procpool::Pool pool{spawned(2)};
  CHECK(pool.apply(square, 5L) == 25);
  CHECK(pool.apply(linked_cube, 5L) == 125);
  CHECK(pool.map(linked_cube, std::vector<long>{1, 2, 3}) == std::vector<long>{1, 8, 27});
  CHECK(pool.apply([](long x) { return linked_cube(x) + 1; }, 2L) == 9);
  const auto there = pool.apply(addresses);
  if (addresses_vary()) {
    CHECK(there.first != addresses().first);
    CHECK(there.second != addresses().second);
  }
}

TEST_CASE("a hundred pools are made while threads allocate all the time",
          "[spawn][pool][limit:240]") {
  const busy_threads busy(4);
  for (long i = 0; i < 100; ++i) {
    procpool::Pool pool{spawned(2)};
    REQUIRE(pool.apply(square, i) == i * i);
  }
}

TEST_CASE("pools are made by several threads at once", "[spawn][pool]") {
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (long t = 0; t < 4; ++t) {
    threads.emplace_back([&right, t] {
      for (long i = 0; i < 5; ++i) {
        procpool::Pool pool{spawned(1)};
        if (pool.apply(square, t + i) == (t + i) * (t + i)) ++right;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(right == 20);
}

TEST_CASE("a task makes a spawned pool and a spawned process", "[spawn][pool]") {
  procpool::Pool pool{spawned(2)};
  CHECK(pool.apply(sum_in_nested_pool, 4L) == 14);
  CHECK(pool.apply(code_of_nested_process, 7) == 7);
  CHECK(pool.map(sum_in_nested_pool, std::vector<long>{2, 3}) == std::vector<long>{1, 5});
}

TEST_CASE("an exception type that is registered before main keeps its type", "[spawn][pool]") {
  procpool::register_exception<late_error>();
  procpool::Pool pool{spawned(1)};
  CHECK_THROWS_AS(pool.apply(throw_one<registered_error>), registered_error);
  CHECK_THROWS_AS(pool.apply(throw_one<std::out_of_range>), std::out_of_range);
  CHECK_THROWS_WITH(pool.apply(throw_one<late_error>), ContainsSubstring("42 is the reason"));
  CHECK(pool.apply(square, 3L) == 9);
}

TEST_CASE("a spawned worker has none of the program's descriptors", "[spawn][pool]") {
  const std::string file = "/proc/self/status";
  const int plain = open(file.c_str(), O_RDONLY);  // not to be closed by exec
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  std::array<int, 2> sockets{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.data()) == 0);
  const int high = fcntl(plain, F_DUPFD, 200);
  const auto ours = support::open_fds();
  {
    procpool::Pool other{2};  // its descriptors are none of the next one's business
    procpool::Pool pool{spawned(1)};
    const auto theirs = pool.apply(descriptors);
    for (int fd : {plain, high, ends[0], ends[1], sockets[0], sockets[1]}) {
      INFO("descriptor " << fd << " is " << ours.at(fd));
      CHECK(std::ranges::count(theirs, ours.at(fd)) == 0);
    }
    CHECK(theirs.size() <= 12);
    CHECK(std::ranges::none_of(theirs, [](const std::string& each) {
      return each.find("procpool request") != std::string::npos;  // read once, when it began
    }));
  }
  for (int fd : {plain, high, ends[0], ends[1], sockets[0], sockets[1]}) close(fd);
}

TEST_CASE(
    "a spawned worker has the environment and the directory of the program, and no signal "
    "is blocked",
    "[spawn][pool]") {
  setenv("PROCPOOL_SPAWN_TEST", "a value = with = signs", 1);
  sigset_t usr1;
  sigset_t before;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &before);
  {
    procpool::Pool pool{spawned(1)};
    const auto [directory, value] = pool.apply(surroundings);
    CHECK(directory == std::filesystem::current_path().string());
    CHECK(value == "a value = with = signs");
    CHECK(pool.apply(blocked_signals) == std::pair(false, false));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  unsetenv("PROCPOOL_SPAWN_TEST");
}

TEST_CASE("the stack of a crash in a spawned worker has the names of its functions",
          "[spawn][pool]") {
  procpool::Pool pool{spawned(1)};
  try {
    pool.apply(crash);
    FAIL("nothing was thrown");
  } catch (const procpool::WorkerDied& death) {
    INFO(death.what());
    REQUIRE_FALSE(death.stack().empty());
    CHECK_THAT(death.stack().front(), ContainsSubstring("write_to_nowhere"));
  }
}

TEST_CASE("what a task leaves in a FILE is written when its spawned worker ends", "[spawn][pool]") {
  const auto file =
      std::filesystem::temp_directory_path() / ("procpool-spawn-log-" + std::to_string(getpid()));
  {
    procpool::Pool pool{spawned(1)};
    CHECK(pool.apply(log_to, file.string()) == 7);
    pool.close();
    pool.join();
  }
  CHECK(std::filesystem::file_size(file) == 7);
  std::filesystem::remove(file);
}

TEST_CASE("a forked child makes a spawned pool", "[spawn][pool]") {
  CHECK(support::run_child([] {
          procpool::Pool pool{spawned(2)};
          return pool.apply(square, 6L) == 36 ? 0 : 1;
        }) == 0);
}
