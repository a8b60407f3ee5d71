// SPDX-License-Identifier: MIT
// pthread_exit in a task ends its worker, and nothing else. What a thread does while it ends.
#include <pthread.h>
#include <atomic>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstddef>
#include <procpool/procpool.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

using Catch::Matchers::ContainsSubstring;

int leaf(int x) {
  return x + 1;
}

/// Something that is destroyed as the stack is unwound.
struct counted {
  explicit counted(std::atomic<int>& count) : count_(&count) { ++count; }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --*count_; }
  std::atomic<int>* count_;
};
std::atomic<int> alive{0};

std::size_t length(const std::string& text) {
  return text.size();
}
/// Uses the pool when the thread's objects are destroyed.
struct last_call {
  procpool::Pool<procpool::Serial>* pool = nullptr;
  std::size_t* sum = nullptr;
  ~last_call() {
    for (int i = 0; pool != nullptr && i < 20; ++i) {
      const std::vector<std::string> others(50, std::string(200, 'j'));
      *sum += pool->apply(length, std::string(150, 'x'));
      for (const std::string& each : others) *sum += each.find_first_not_of('j') + 1;
    }
  }
};

int exits(int x) {
  const counted here(alive);
  if (x == 3) pthread_exit(nullptr);
  return x;
}

template <class Backend>
void check_exit(procpool::Pool<Backend>& pool, const char* who) {
  try {
    pool.apply(exits, 3);
    FAIL("it should have thrown");
  } catch (const procpool::WorkerDied& died) {
    CHECK_THAT(died.what(), ContainsSubstring(who));
    CHECK_THAT(died.what(), ContainsSubstring("exited with code 1"));
    CHECK(died.exitcode() == 1);
  }
  for (const std::ptrdiff_t chunksize : {1, 6}) {
    const auto outcomes =
        pool.map_outcomes(exits, std::vector<int>{1, 2, 3, 4, 5, 6}, {.chunksize = chunksize});
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(outcomes[i].has_value() == (i != 2));
      if (i != 2) CHECK(*outcomes[i] == static_cast<int>(i) + 1);
    }
  }
  CHECK(pool.apply(leaf, 1) == 2);
}

}  // namespace

TEST_CASE("a thread submits while its objects are destroyed", "[thread_exit]") {
  procpool::Pool<procpool::Serial> pool;
  std::size_t sum = 0;
  std::thread([&] {
    thread_local last_call last;  // made before what the thread keeps for submissions
    last.pool = &pool;
    last.sum = &sum;
    CHECK(pool.apply(length, std::string("abc")) == 3);
  }).join();
  CHECK(sum == 20 * 150);
}

TEST_CASE("pthread_exit in a task of a pool of threads is WorkerDied", "[thread_exit]") {
  procpool::ThreadPool pool{2};
  check_exit(pool, "worker thread");
  CHECK(alive == 0);
  pool.close();
  pool.join();
}

TEST_CASE("pthread_exit in a task of a pool of processes is WorkerDied", "[thread_exit]") {
  procpool::Pool pool{2};
  check_exit(pool, "worker process");
}

TEST_CASE("pthread_exit in an initializer breaks the pool", "[thread_exit]") {
  procpool::ThreadPool threads{{.processes = 2, .initializer = {[] { pthread_exit(nullptr); }}}};
  CHECK_THROWS_AS(threads.apply(leaf, 1), procpool::BrokenPool);
  procpool::Pool pool{{.processes = 2, .initializer = {[] { pthread_exit(nullptr); }}}};
  CHECK_THROWS_AS(pool.apply(leaf, 1), procpool::BrokenPool);
}
