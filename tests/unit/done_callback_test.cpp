// SPDX-License-Identifier: MIT
// Done callbacks that do what they should not, or at the wrong time: they end or use the pool,
// throw, fork, come when the pool has ended, or there is no service thread for them.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "unit/callbacks_before_end.hpp"

namespace {

using namespace std::chrono_literals;
using support::waiting_at;

long square(long x) {
  return x * x;
}

template <class Error>
bool ends_with(const std::exception_ptr& what) {
  try {
    if (what != nullptr) std::rethrow_exception(what);
  } catch (const Error&) {
    return true;
  } catch (...) {
  }
  return false;
}

}  // namespace

TEST_CASE("a done callback that submits more work, again and again", "[done_callback]") {
  procpool::Pool pool{2};
  std::atomic<long> sum = 0;
  std::function<void(long)> begin = [&](long x) {
    pool.apply_async(square, x).add_done_callback([&, x](auto& done) {
      sum += done.get();
      if (x < 2'000) begin(x + 1);
    });
  };
  begin(1);
  long expected = 0;
  for (long x = 1; x <= 2'000; ++x) expected += x * x;
  CHECK(support::eventually([&] { return sum == expected; }));
}

TEST_CASE("a done callback that submits a flood", "[done_callback]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  pool.apply_async(square, 1L).add_done_callback([&](auto&) {
    for (long i = 0; i < 20'000; ++i) {
      pool.apply_async(square, i).add_done_callback([&](auto&) { ++calls; });
    }
  });
  CHECK(support::eventually([&] { return calls == 20'000; }));
}

TEST_CASE("a done callback that adds callbacks, and waits for other results", "[done_callback]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  pool.apply_async(square, 3L).add_done_callback([&](auto& done) {
    done.add_done_callback([&](auto&) { ++calls; });  // at once
    if (calls == 1) ++calls;
    const auto other = pool.apply_async(square, 4L);
    other.add_done_callback([&](auto& late) { calls += static_cast<int>(late.get()); });
    if (other.get() == 16 && pool.apply(square, 5L) == 25) ++calls;
  });
  CHECK(support::eventually([&] { return calls == 19; }));
}

TEST_CASE("a callback that waits for a result with callbacks of its own", "[done_callback]") {
  for (int round = 0; round < 50; ++round) {
    procpool::Pool pool{2};
    std::atomic<int> calls = 0;
    std::vector<procpool::AsyncResult<long>> results;
    const auto count = [&](long&) { ++calls; };
    for (long i = 0; i < 20; ++i) {
      results.push_back(pool.apply_async({.callback = count}, square, i));
    }
    const auto wait_for_all = [&] {
      for (const auto& each : results) each.wait();
      long last = pool.apply_async({.callback = count}, square, 9L).get();
      if (last == 81) ++calls;
    };
    pool.apply_async(square, 2L).add_done_callback([&](auto&) { wait_for_all(); });
    pool.apply_async({.callback = [&](long&) { wait_for_all(); }}, square, 2L);
    CHECK(support::eventually([&] { return calls == 24; }));
  }
}

TEST_CASE("callbacks do not run inside each other, only that of a result which one waits for",
          "[done_callback]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  std::atomic<bool> submitted = false;
  std::atomic<int> calls = 0;
  int depth = 0;
  int deepest = 0;
  int inside = 0;
  const auto rate =
      pool.apply_async({.callback = [&](long&) { inside = depth; }}, waiting_at(door));
  REQUIRE(door->wait_for(1));
  std::optional<procpool::AsyncResult<long>> last;
  const auto callback = [&](long&) {
    deepest = std::max(deepest, ++depth);
    while (!submitted) std::this_thread::sleep_for(1ms);
    last->wait();  // now all of these callbacks are due
    door->open();
    if (rate.get() == 1) ++calls;
    --depth;
  };
  for (long i = 0; i < 5; ++i) pool.apply_async({.callback = callback}, square, i);
  last = pool.apply_async(square, 5L);
  submitted = true;
  CHECK(support::eventually([&] { return calls == 5; }));
  CHECK(deepest == 1);
  CHECK(inside == 1);
}

TEST_CASE("50'000 callbacks that wait for one result with a callback do not end the stack",
          "[done_callback]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  const auto count = [&](long&) { ++calls; };
  const auto rate = pool.apply_async({.callback = count}, waiting_at(door));
  REQUIRE(door->wait_for(1));
  const auto wait_and_count = [&](long&) { calls += static_cast<int>(rate.get()); };
  for (long i = 0; i < 50'000; ++i) {
    pool.apply_async({.callback = wait_and_count}, square, i);
  }
  pool.apply(square, 1L);
  door->open();
  CHECK(support::eventually([&] { return calls == 50'001; }));
}

TEST_CASE("a callback that waits for its own result, which is ready after it, is told so",
          "[done_callback]") {
  procpool::Pool pool{1};
  std::optional<procpool::AsyncResult<long>> result;
  std::atomic<int> refused = 0;
  result = pool.apply_async(
      {.callback =
           [&](long&) {
             try {
               static_cast<void>(result->get(10ms));
             } catch (const procpool::TimeoutError&) {
               ++refused;
             }
             try {
               static_cast<void>(result->get());
             } catch (const std::logic_error&) {
               ++refused;
             }
           }},
      [](std::chrono::milliseconds time) {
        std::this_thread::sleep_for(time);
        return 1L;
      },
      50ms);
  CHECK(result->get() == 1);
  CHECK(refused == 2);
}

TEST_CASE("a done callback that closes and joins the pool", "[done_callback]") {
  for (int round = 0; round < 20; ++round) {
    procpool::Pool pool{2};
    std::atomic<bool> joined = false;
    std::atomic<int> calls = 0;
    for (long i = 0; i < 50; ++i) {
      pool.apply_async(square, i).add_done_callback([&](auto&) { ++calls; });
    }
    pool.apply_async(square, 3L).add_done_callback([&](auto&) {
      pool.close();
      pool.join();
      joined = true;
    });
    CHECK(support::eventually([&] { return joined.load() && calls == 50; }));
  }
}

TEST_CASE("join and the destructor wait for all callbacks, also when one has ended the pool",
          "[done_callback]") {
  for (const bool join : {true, false}) CHECK(callbacks_before_end<procpool::Pool<>>(join) == 20);
}

TEST_CASE("a done callback that destroys the pool", "[done_callback]") {
  for (int round = 0; round < 20; ++round) {
    const support::shared<support::gate> door;
    auto pool = std::make_unique<procpool::Pool<>>(2);
    std::atomic<int> cancelled = 0;
    std::atomic<bool> gone = false;
    for (int i = 0; i < 5; ++i) {
      pool->apply_async(waiting_at(door)).add_done_callback([&](auto& done) {
        if (ends_with<procpool::CancelledError>(done.exception())) ++cancelled;
      });
    }
    REQUIRE(door->wait_for(2));
    pool->map_async(square, std::vector<long>{}).add_done_callback([](auto&) {});
    auto last = pool->apply_async(square, 1L);
    last.add_done_callback([&](auto&) {
      pool = nullptr;
      gone = true;
    });
    last.cancel();
    CHECK(support::eventually([&] { return gone.load() && cancelled == 5; }));
    CHECK(last.cancelled());
  }
}

TEST_CASE("a callback that destroys the pool at once, because the result is there",
          "[done_callback]") {
  auto pool = std::make_unique<procpool::Pool<>>(1);
  std::optional result(pool->apply_async(square, 3L));
  result->wait();
  result->add_done_callback([&](auto&) {
    pool = nullptr;
    result.reset();  // the very object that is being used
  });
  CHECK(pool == nullptr);
}

TEST_CASE("terminate: callbacks are called before it returns, get() throws CancelledError",
          "[done_callback]") {
  for (int round = 0; round < 20; ++round) {
    const support::shared<support::gate> door;
    procpool::Pool pool{2};
    int cancelled = 0;
    const auto count = [&](auto& done) {
      if (done.cancelled() && ends_with<procpool::CancelledError>(done.exception(0s))) ++cancelled;
    };
    for (int i = 0; i < 100; ++i) pool.apply_async(waiting_at(door)).add_done_callback(count);
    pool.map_async(square, std::vector<long>{1, 2}).add_done_callback(count);
    if (round % 2 != 0) REQUIRE(door->wait_for(2));
    pool.terminate();
    CHECK(cancelled == 101);
  }
}

// While the service thread leads and sleeps: late callbacks would take a quarter of a second each.
TEST_CASE("callbacks of what is cancelled come at once, though nobody waits",
          "[done_callback][limit:20]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  pool.apply_async(waiting_at(door));
  REQUIRE(door->wait_for(1));
  std::atomic<int> calls = 0;
  const auto count = [&](const auto&) { ++calls; };
  for (int round = 0; round < 100; ++round) {
    auto one = pool.apply_async({.error_callback = count}, square, 1L);
    CHECK(one.cancel());
    REQUIRE(support::eventually([&] { return calls == 2 * round + 1; }));
    auto two = pool.apply_async(square, 2L);
    two.add_done_callback(count);
    CHECK(two.cancel());
    REQUIRE(support::eventually([&] { return calls == 2 * round + 2; }));
  }
}

TEST_CASE("a callback of a result of a pool that has ended is called at once", "[done_callback]") {
  const support::shared<support::gate> door;
  std::optional<procpool::AsyncResult<long>> result;
  {
    procpool::Pool pool{1};
    result = pool.apply_async(waiting_at(door));
  }
  bool called = false;
  result->add_done_callback(
      [&](auto& done) { called = ends_with<procpool::CancelledError>(done.exception()); });
  CHECK(called);
}

TEST_CASE("callbacks of a worker's death and of a broken pool", "[done_callback]") {
  procpool::Pool pool{1};
  std::atomic<bool> died = false;
  pool.apply_async([] { raise(SIGKILL); }).add_done_callback([&](auto& done) {
    died = ends_with<procpool::WorkerDied>(done.exception()) && !done.cancelled();
  });
  CHECK(support::eventually([&] { return died.load(); }));

  procpool::Pool never{{.processes = 1, .initializer = {[] { _exit(3); }}}};
  std::atomic<bool> broken = false;
  try {
    never.apply_async(square, 2L).add_done_callback([&](auto& done) {
      broken = ends_with<procpool::BrokenPool>(done.exception()) && !done.cancelled();
    });
    CHECK(support::eventually([&] { return broken.load(); }));
  } catch (const procpool::BrokenPool&) {  // it was quick
  }
}

TEST_CASE("what a callback has captured is freed when it has run, also without a result to hold",
          "[done_callback]") {
  const auto kept = std::make_shared<int>(7);
  {
    procpool::Pool pool{1};
    pool.apply_async(square, 1L).add_done_callback([kept](auto&) {});
    const auto itself = pool.apply_async(square, 2L);
    itself.add_done_callback([kept, itself](auto&) {});  // a circle until then
    CHECK(support::eventually([&] { return kept.use_count() == 1; }));
    const support::shared<support::gate> door;
    pool.apply_async(waiting_at(door)).add_done_callback([kept](auto&) {});
    CHECK(kept.use_count() == 2);
  }
  CHECK(kept.use_count() == 1);
}

TEST_CASE("a callback may take a result that cannot be copied", "[done_callback]") {
  procpool::Pool pool{1};
  std::atomic<int> seen = 0;
  pool.apply_async([](int x) { return std::make_unique<int>(x); }, 9)
      .add_done_callback([&, mine = std::make_unique<int>(1)](auto& done) {
        seen = *std::move(done).get() + *mine;
      });
  CHECK(support::eventually([&] { return seen == 10; }));
}

TEST_CASE("a null callback is refused", "[done_callback]") {
  procpool::Pool pool{1};
  const auto result = pool.apply_async(square, 1L);
  void (*null)(procpool::AsyncResult<long>&) = nullptr;
  CHECK_THROWS_AS(result.add_done_callback(null), std::invalid_argument);
  CHECK_THROWS_AS(result.add_done_callback(std::function<void(procpool::AsyncResult<long>)>()),
                  std::invalid_argument);
  CHECK(result.get() == 1);
}

TEST_CASE("a process forked meanwhile never runs the callbacks", "[done_callback]") {
  const support::shared<support::gate> door;
  const support::shared<std::atomic<int>> calls;
  procpool::Pool pool{1};
  const auto there = pool.apply_async(square, 3L);
  there.wait();
  std::optional pending(pool.apply_async(waiting_at(door)));
  pending->add_done_callback([&](auto&) { ++*calls; });
  CHECK(support::run_child([&] {
          CHILD_REQUIRE(!pending->running());
          try {
            pending->add_done_callback([](auto&) {});
            return 1;
          } catch (const std::logic_error&) {
          }
          bool called = false;
          there.add_done_callback([&](auto& done) { called = done.get() == 9; });
          CHILD_REQUIRE(called);
          pending.reset();
          return 0;
        }) == 0);
  CHECK(*calls == 0);
  door->open();
  CHECK(support::eventually([&] { return *calls == 1; }));
}

TEST_CASE("callbacks come while the program forks on the library's account", "[done_callback]") {
  procpool::Pool pool{2};
  std::atomic<int> calls = 0;
  for (int round = 0; round < 10; ++round) {
    for (long i = 0; i < 100; ++i) {
      pool.apply_async(square, i).add_done_callback([&](auto&) { ++calls; });
    }
    procpool::Process child([] {});
    child.start();
    child.join();
  }
  CHECK(support::eventually([&] { return calls == 1'000; }));
}

TEST_CASE("a done callback that makes a pool and starts a process", "[done_callback]") {
  procpool::Pool pool{1};
  std::atomic<int> right = 0;
  pool.apply_async(square, 3L).add_done_callback([&](auto&) {
    procpool::Pool other{1};
    if (other.apply(square, 4L) == 16) ++right;
    procpool::Process child([] {});
    child.start();
    child.join();
    if (child.exitcode() == 0) ++right;
  });
  CHECK(support::eventually([&] { return right == 2; }));
}

namespace {

/// From now on, in this process, no thread can be started.
void forbid_threads() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, std::size_t{1} << 46);
  pthread_setattr_default_np(&attributes);
}

/// Pools with callbacks that are due when the door opens, and no service threads.
template <class Then>
int without_service(Then then, std::size_t count = 1) {
  return support::run_child([&] {
    const support::shared<support::gate> door;
    std::list<procpool::Pool<>> pools;
    std::vector<procpool::AsyncResult<long>> results;
    std::size_t calls = 0;
    while (pools.size() < count) {
      pools.emplace_back(1);
      results.push_back(pools.back().apply_async(
          procpool::task_options<long>{.callback = [&](long&) { ++calls; },
                                       .error_callback = [&](auto&&) { ++calls; }},
          waiting_at(door)));
      results.back().add_done_callback([&](auto&) { ++calls; });
    }
    forbid_threads();
    procpool::Process child([] {});  // stops the service threads, which do not come back
    child.start();
    child.join();
    door->open();
    then(pools, results);
    CHILD_REQUIRE(calls == 2 * count);
    return 0;
  });
}

}  // namespace

TEST_CASE("no service thread after a fork: who waits runs the callbacks, of one pool or of two",
          "[done_callback][limit:30]") {
  const auto get = [](auto&, const auto& results) {
    for (const auto& each : results) CHILD_REQUIRE(each.get() == 1);
  };
  const auto wait_for_first = [](auto&, auto results) {
    while (!results.empty()) {
      auto [done, pending] = procpool::wait(results, procpool::FIRST_COMPLETED);
      CHILD_REQUIRE(!done.empty());
      for (const auto& each : done) CHILD_REQUIRE(each.get() == 1);
      results = std::move(pending);
    }
  };
  const auto loop = [](auto&, const auto& results) {
    std::size_t count = 0;
    for (auto& each : procpool::as_completed(results)) count += each.successful() ? 1U : 0U;
    CHILD_REQUIRE(count == results.size());
  };
  for (const std::size_t pools : {1U, 2U}) {
    CHECK(without_service(get, pools) == 0);
    CHECK(without_service(wait_for_first, pools) == 0);
    CHECK(without_service(loop, pools) == 0);
  }
}

TEST_CASE("no service thread after a fork: who ends the pool runs the callbacks",
          "[done_callback]") {
  CHECK(without_service([](auto& pools, const auto&) { pools.clear(); }) == 0);
  CHECK(without_service([](auto& pools, const auto&) {
          pools.front().close();
          pools.front().join();
        }) == 0);
}

TEST_CASE("no service thread after a fork: no more callbacks are taken", "[done_callback]") {
  CHECK(without_service([](auto& pools, const auto& results) {
          try {
            results[0].add_done_callback([](auto&) { CHILD_REQUIRE(false); });
            CHILD_REQUIRE(false);
          } catch (const procpool::ProcessError&) {
          }
          pools.clear();
        }) == 0);
}
