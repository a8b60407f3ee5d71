// SPDX-License-Identifier: MIT
// What is different in a pool of threads: nothing can be killed, memory is shared, the pool waits
// for what runs.
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "unit/callbacks_before_end.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::ThreadPool;

support::gate* door = nullptr;  // threads share all memory
std::atomic<int> runs = 0;
ThreadPool* own = nullptr;

long square(long x) {
  return x * x;
}

long pass(long x) {
  door->pass();
  return x;
}

std::string filled(std::size_t size) {
  return std::string(size, 'r');
}

std::size_t length(const std::string& text) {
  return text.size();
}

std::vector<long> numbers(long count) {
  std::vector<long> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0L);
  return all;
}

/// A door that is opened at the end of the scope at the latest, or the pool would wait for ever.
struct doorway : support::gate {
  doorway() { door = this; }
  doorway(const doorway&) = delete;
  doorway& operator=(const doorway&) = delete;
  ~doorway() { open(); }
};

/// Opens the door after a while, from another thread.
class late_opener {
 public:
  explicit late_opener(support::gate& gate, std::chrono::milliseconds after = 100ms)
      : thread_([&gate, after] {
          std::this_thread::sleep_for(after);
          gate.open();
        }) {}
  late_opener(const late_opener&) = delete;
  late_opener& operator=(const late_opener&) = delete;
  ~late_opener() { thread_.join(); }

 private:
  std::thread thread_;
};

void check_refused(const procpool::pool_options& options, const char* word) {
  try {
    ThreadPool pool{options};
    FAIL_CHECK("nothing was thrown");
  } catch (const std::invalid_argument& error) {
    CHECK_THAT(error.what(), ContainsSubstring(word));
  }
}

}  // namespace

TEST_CASE("options that limit what a worker uses are refused for threads", "[thread_pool]") {
  check_refused({.processes = 1, .memory_limit = std::size_t{1} << 30}, "memory_limit");
  check_refused({.processes = 1, .cpu_limit = 1s}, "cpu_limit");
  check_refused({.processes = 1, .max_resident = std::size_t{1} << 30}, "max_resident");
  check_refused({.processes = 1, .max_result_bytes = std::size_t{1} << 30}, "max_result_bytes");
  check_refused({.processes = 0}, "processes");
}

TEST_CASE("a time limit of a task is refused by a pool of threads", "[thread_pool]") {
  ThreadPool pool{1};
  CHECK_THROWS_AS(pool.apply_async({.timeout = 1s}, square, 3L), std::invalid_argument);
  CHECK_THROWS_AS(pool.map(square, numbers(3), {.timeout = 1s}), std::invalid_argument);
  CHECK(pool.apply(square, 3L) == 9);
}

TEST_CASE("tasks run in threads of this process, as many as there are workers", "[thread_pool]") {
  doorway gate;
  ThreadPool pool{3};
  auto ids = pool.map_async(
      [](long) {
        door->pass();
        return std::pair(getpid(), gettid());
      },
      numbers(3), {.chunksize = 1});
  REQUIRE(gate.wait_for(3));
  gate.open();
  std::set<pid_t> threads;
  for (const auto& [process, thread] : ids.get()) {
    CHECK(process == getpid());
    threads.insert(thread);
  }
  CHECK(threads.size() == 3);
  CHECK_FALSE(threads.contains(gettid()));
}

TEST_CASE("terminate waits for what runs and drops the rest", "[thread_pool]") {
  doorway gate;
  ThreadPool pool{2};
  std::vector<procpool::AsyncResult<long>> all;
  runs = 0;
  for (long i = 0; i < 50; ++i) {
    all.push_back(pool.apply_async(
        [](long x) {
          door->pass();
          ++runs;
          return x;
        },
        i));
  }
  REQUIRE(gate.wait_for(2));
  {
    const late_opener opener(gate);
    pool.terminate();
  }
  CHECK(runs == 2);
  for (auto& each : all) CHECK_THROWS_AS(each.get(0s), procpool::CancelledError);
}

TEST_CASE("results are cancelled at once when a pool of threads is terminated, though a task runs",
          "[thread_pool]") {
  doorway gate;
  ThreadPool pool{1};
  auto result = pool.apply_async(pass, 1L);
  REQUIRE(gate.wait_for(1));
  std::thread ender([&] { pool.terminate(); });
  CHECK_THROWS_AS(result.get(20s), procpool::CancelledError);
  CHECK_THROWS_AS(pool.apply(square, 1L), procpool::PoolClosed);
  gate.open();
  ender.join();
}

TEST_CASE("a task that waits for a result of its own pool does not stop the pool's end",
          "[thread_pool][limit:30]") {
  doorway gate;
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool{2};
    own = &pool;
    runs = 0;
    auto outer = pool.apply_async([] {
      auto inner = own->apply_async(pass, 1L);
      ++runs;
      try {
        return inner.get();
      } catch (const procpool::CancelledError&) {
        ++runs;
        return -1L;
      }
    });
    REQUIRE(support::eventually([&] { return runs >= 1; }));
    const late_opener opener(gate, 1ms);
    pool.terminate();
    CHECK(outer.ready());
  }
}

TEST_CASE("a task that submits while its pool is ended is told so", "[thread_pool][limit:30]") {
  doorway gate;
  ThreadPool pool{1};
  own = &pool;
  static std::atomic<bool> told;
  told = false;
  auto result = pool.apply_async([] {
    door->pass();
    try {
      static_cast<void>(own->apply_async(square, 2L));
    } catch (const procpool::PoolClosed&) {
      told = true;
    }
  });
  REQUIRE(gate.wait_for(1));
  {
    const late_opener opener(gate);
    pool.terminate();
  }
  CHECK(told);
}

TEST_CASE("a pool of threads cannot be ended by one of its own tasks", "[thread_pool][limit:30]") {
  ThreadPool pool{2};
  own = &pool;
  CHECK_THROWS_AS(pool.apply([] { own->terminate(); }), std::logic_error);
  CHECK(pool.apply(square, 3L) == 9);
  CHECK_THROWS_AS(pool.apply([] {
    own->close();
    own->join();
  }),
                  std::logic_error);
  CHECK_THROWS_AS(pool.apply(square, 3L), procpool::PoolClosed);
  pool.join();
}

TEST_CASE("terminate by several threads: none returns before the workers are gone",
          "[thread_pool]") {
  doorway gate;
  ThreadPool pool{1};
  static std::atomic<bool> ended;
  ended = false;
  static_cast<void>(pool.apply_async([] {
    door->pass();
    std::this_thread::sleep_for(50ms);
    ended = true;
  }));
  REQUIRE(gate.wait_for(1));
  std::atomic<int> right = 0;
  std::vector<std::thread> enders;
  for (int i = 0; i < 4; ++i) {
    enders.emplace_back([&, i] {
      i % 2 == 0 ? pool.terminate() : (pool.close(), pool.join());
      if (ended) ++right;
    });
  }
  gate.open();
  for (auto& each : enders) each.join();
  CHECK(right == 4);
}

TEST_CASE("cancel with kill ends the result, and the function goes on", "[thread_pool]") {
  doorway gate;
  ThreadPool pool{1};
  runs = 0;
  auto result = pool.apply_async(
      [](long x) {
        door->pass();
        ++runs;
        return x;
      },
      1L);
  REQUIRE(gate.wait_for(1));
  CHECK_FALSE(result.cancel());
  CHECK(result.cancel({.kill = true}));
  CHECK_THROWS_AS(result.get(0s), procpool::CancelledError);
  CHECK(runs == 0);
  auto next = pool.apply_async(square, 4L);
  gate.open();
  CHECK(next.get(20s) == 16);
  CHECK(runs == 1);
}

TEST_CASE("nested use of a pool of threads: a task waits for tasks of its own pool",
          "[thread_pool]") {
  ThreadPool pool{3};
  own = &pool;
  const auto sum = [](long n) {
    const auto all = own->map(square, numbers(n), {.chunksize = 1});
    return std::accumulate(all.begin(), all.end(), 0L);
  };
  for (int round = 0; round < 50; ++round) {
    auto one = pool.apply_async(sum, 5L);
    auto two = pool.apply_async(sum, 4L);
    CHECK(one.get(20s) == 30);
    CHECK(two.get(20s) == 14);
  }
}

TEST_CASE("large arguments and results under way when a pool of threads ends",
          "[thread_pool][limit:120]") {
  for (int round = 0; round < 40; ++round) {
    ThreadPool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
    std::vector<procpool::AsyncResult<std::string>> back;
    std::vector<procpool::AsyncResult<std::size_t>> there;
    for (int i = 0; i < 8; ++i) {
      back.push_back(pool.apply_async(filled, std::size_t{1} << 20));
      there.push_back(pool.apply_async(length, std::string(1 << 20, 'a')));
    }
    if (round % 2 == 0) static_cast<void>(back[0].wait(std::chrono::milliseconds(round / 4)));
    pool.terminate();
    for (auto& each : back) CHECK(each.ready());
    for (auto& each : there) CHECK(each.ready());
  }
}

TEST_CASE("results larger than the ring come through, in both directions at once",
          "[thread_pool][limit:120]") {
  ThreadPool pool{{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536}};
  std::vector<procpool::AsyncResult<std::string>> all;
  for (int i = 0; i < 20; ++i) {
    all.push_back(pool.apply_async([](const std::string& text) { return text + "!"; },
                                   std::string(300'000, 'b')));
  }
  std::string expected(300'001, 'b');
  expected.back() = '!';
  for (auto& each : all) CHECK(each.get() == expected);
}

TEST_CASE("full rings in both directions when a pool of threads is destroyed",
          "[thread_pool][limit:60]") {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool{{.processes = 2, .ring_bytes = 4096}};
    for (int i = 0; i < 300; ++i) {
      static_cast<void>(pool.apply_async(filled, std::size_t{900}));
      static_cast<void>(pool.apply_async(length, std::string(900, 'x')));
    }
  }
}

TEST_CASE("maxtasksperchild: threads are replaced", "[thread_pool]") {
  ThreadPool pool{{.processes = 2, .maxtasksperchild = 2}};
  const auto ids = pool.map([](long) { return gettid(); }, numbers(40), {.chunksize = 1});
  CHECK(std::set<pid_t>(ids.begin(), ids.end()).size() >= 20);
  CHECK(pool.map(square, numbers(100)) == pool.map(square, numbers(100), {.chunksize = 3}));
}

TEST_CASE("an initializer runs in each thread; one that fails breaks the pool", "[thread_pool]") {
  static std::atomic<int> initialized;
  initialized = 0;
  {
    doorway gate;
    ThreadPool pool{{.processes = 3, .initializer = {[] { ++initialized; }}}};
    auto all = pool.map_async(pass, numbers(3), {.chunksize = 1});
    REQUIRE(gate.wait_for(3));
    CHECK(initialized == 3);
    gate.open();
    all.wait();
  }
  ThreadPool broken{{.processes = 2, .initializer = {[] { throw std::runtime_error("no way"); }}}};
  try {
    static_cast<void>(broken.apply(square, 1L));
    FAIL("nothing was thrown");
  } catch (const procpool::BrokenPool& error) {
    CHECK_THAT(error.what(), ContainsSubstring("no way"));
  }
  CHECK_THROWS_AS(broken.resize(3), procpool::BrokenPool);
}

TEST_CASE("exceptions of threads have their type and say where they come from", "[thread_pool]") {
  ThreadPool pool{1};
  try {
    pool.apply([] { throw std::out_of_range("no such key"); });
    FAIL("nothing was thrown");
  } catch (const std::out_of_range& error) {
    CHECK(error.what() == std::string("no such key"));
    CHECK_THROWS_AS(std::rethrow_if_nested(error), procpool::RemoteTraceback);
  }
}

TEST_CASE("results outlive a pool of threads", "[thread_pool]") {
  std::optional<procpool::AsyncResult<std::string>> result;
  std::optional<procpool::AsyncResult<long>> never;
  doorway gate;
  {
    ThreadPool pool{1};
    result = pool.apply_async(filled, std::size_t{100'000});
    result->wait();
    static_cast<void>(pool.apply_async(pass, 1L));
    never = pool.apply_async(square, 2L);
    REQUIRE(gate.wait_for(1));
    gate.open();
    pool.terminate();
  }
  CHECK(result->get().size() == 100'000);
  CHECK(never->ready());
}

TEST_CASE("fork while a pool of threads works: the child leaves it alone", "[thread_pool]") {
  doorway gate;
  std::optional<ThreadPool> pool(std::in_place, 2);
  auto running = pool->apply_async(pass, 5L);
  REQUIRE(gate.wait_for(1));
  CHECK(support::run_child([&] {
          try {
            static_cast<void>(pool->apply(square, 2L));
            return 1;
          } catch (const std::logic_error&) {
          }
          pool.reset();
          ThreadPool fresh{2};
          return fresh.apply(square, 6L) == 36 ? 0 : 2;
        }) == 0);
  CHECK(pool->apply(square, 7L) == 49);
  gate.open();
  CHECK(running.get(20s) == 5);
}

TEST_CASE("a Process beside a pool of threads, and one that a task starts", "[thread_pool]") {
  ThreadPool pool{2};
  const auto code = [](int status) {
    procpool::Process process([status] {
      try {
        static_cast<void>(procpool::current_worker());
      } catch (const std::logic_error&) {  // a process that a task starts is no worker
        std::exit(status);
      }
    });
    process.start();
    process.join();
    return process.exitcode().value_or(-1);
  };
  CHECK(code(3) == 3);
  CHECK(pool.apply(code, 4) == 4);
  CHECK(pool.map(code, std::vector<int>{5, 6, 7, 8}) == std::vector<int>{5, 6, 7, 8});
}

TEST_CASE("a task of a pool of threads has a pool of processes", "[thread_pool]") {
  ThreadPool pool{2};
  const auto nested = [](long x) {
    procpool::Pool inner{1};
    return inner.apply(square, x);
  };
  CHECK(pool.map(nested, numbers(4), {.chunksize = 1}) == std::vector<long>{0, 1, 4, 9});
}

TEST_CASE("many threads use one pool of threads, which grows and shrinks", "[thread_pool]") {
  ThreadPool pool{2};
  std::atomic<int> right = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (long t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (long i = 0; i < 200; ++i) {
        if (pool.apply(square, t * i) == t * i * t * i) ++right;
      }
    });
  }
  std::thread resizer([&] {
    for (int n = 1; !stop; n = n % 6 + 1) {
      pool.resize(n);
      std::this_thread::sleep_for(500us);
    }
  });
  for (auto& each : threads) each.join();
  stop = true;
  resizer.join();
  CHECK(right == 800);
}

TEST_CASE("join and the destructor wait for all callbacks, also when one has ended the pool",
          "[thread_pool]") {
  for (const bool join : {true, false}) CHECK(callbacks_before_end<ThreadPool>(join) == 20);
}

TEST_CASE("pools of threads come and go", "[thread_pool]") {
  for (long i = 0; i < 100; ++i) {
    ThreadPool pool{3};
    if (i % 3 == 0) continue;
    REQUIRE(pool.apply(square, i) == i * i);
    if (i % 3 == 1) pool.close(), pool.join();
  }
}
