// SPDX-License-Identifier: MIT
// Deaths of workers as their caller sees them: the report, one outcome for each item of a map,
// further attempts, workers that cannot start, workers that are killed or stopped while idle.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;
using procpool::WorkerDied;
using std::chrono::steady_clock;
using support::eventually;
using support::shared;

namespace {

// ---- tasks and what they leave behind ---------------------------------------------------------

constexpr std::size_t most_items = 1000;
using run_counts = std::array<std::atomic<int>, most_items>;

long square(long x) {
  return x * x;
}

[[noreturn]] void crash() {
  const volatile std::uintptr_t nowhere = 16;  // not seen through by the compiler
  *reinterpret_cast<volatile int*>(nowhere) = 1;
  std::abort();
}

void die_of(int how) {
  if (how == 0) kill(getpid(), SIGKILL);
  if (how == 1) std::exit(3);
  crash();
}

// Function objects, whose names are always to be had.
struct named_victim {
  long operator()(long how) const {
    die_of(static_cast<int>(how));
    return how;
  }
};

struct fatal_product {
  long operator()(long x, long y) const {
    if (x * y == 42) kill(getpid(), SIGKILL);
    return x * y;
  }
};

std::vector<long> numbers(long count) {
  std::vector<long> all;
  for (long i = 0; i < count; ++i) all.push_back(i);
  return all;
}

std::set<pid_t> worker_processes() {
  std::set<pid_t> workers;
  for (const auto& each : support::descendants_of(getpid())) {
    if (each.name == "procpool-worker" && !each.zombie()) workers.insert(each.pid);
  }
  return workers;
}

// What a call throws, as the type that is asked for.
template <class E, class Call>
E caught(Call call) {
  try {
    call();
  } catch (const E& error) {
    return error;
  }
  throw std::logic_error("the call threw nothing");
}

template <class E>
E error_of(const std::exception_ptr& what) {
  return caught<E>([&] {
    if (what != nullptr) std::rethrow_exception(what);
  });
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool all_ran_once(const run_counts& runs, std::size_t count) {
  bool right = true;
  for (std::size_t i = 0; i < count; ++i) {
    if (runs[i] == 1) continue;
    std::printf("item %zu ran %d times\n", i, runs[i].load());
    right = false;
  }
  return right;
}

void check_report(const WorkerDied& died, std::size_t item, const std::string& callable) {
  INFO(died.what());
  CHECK(died.pid() > 0);
  CHECK_FALSE(support::is_running(died.pid()));
  CHECK(died.worker().starts_with("PoolWorker-"));
  CHECK(died.item() == item);
  CHECK(died.attempt() == 1);
  REQUIRE(died.attempts().size() == 1);
  CHECK(died.attempts()[0].pid == died.pid());
  CHECK(died.attempts()[0].item == item);
  CHECK(contains(died.callable(), callable));
  CHECK(contains(died.what(), std::to_string(died.pid())));
  CHECK(contains(died.what(), died.worker()));
  CHECK(contains(died.what(), callable));
  CHECK(contains(died.what(), "item " + std::to_string(item)));
}

}  // namespace

// ---- the report -------------------------------------------------------------------------------

TEST_CASE("WorkerDied of apply says who died, of what, running what", "[fault][retries]") {
  procpool::Pool pool{1};
  const auto killed = caught<WorkerDied>([&] { pool.apply(named_victim{}, 0); });
  check_report(killed, 0, "named_victim");
  CHECK(killed.exitcode() == -SIGKILL);
  CHECK(killed.signal() == SIGKILL);
  CHECK(contains(killed.what(), "signal 9 (SIGKILL), often the kernel's out-of-memory killer"));

  const auto left = caught<WorkerDied>([&] { pool.apply(named_victim{}, 1); });
  check_report(left, 0, "named_victim");
  CHECK(left.exitcode() == 3);
  CHECK_FALSE(left.signal());
  CHECK(contains(left.what(), "exited with code 3"));

  const auto crashed = caught<WorkerDied>([&] { pool.apply(named_victim{}, 2); });
  check_report(crashed, 0, "named_victim");
  CHECK(crashed.signal() == SIGSEGV);
  CHECK(contains(crashed.what(), "signal 11 (SIGSEGV)"));
  CHECK(killed.worker() != left.worker());  // each replacement has a name of its own
  CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("a task that exits with 0 has died all the same", "[fault][retries]") {
  procpool::Pool pool{1};
  const auto left = caught<WorkerDied>([&] { pool.apply([] { std::exit(0); }); });
  CHECK(left.exitcode() == 0);
  CHECK_FALSE(left.signal());
  CHECK(contains(left.what(), "exited with code 0"));
  const auto quick = caught<WorkerDied>([&] { pool.apply([] { _exit(0); }); });
  CHECK(quick.exitcode() == 0);
  CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("WorkerDied of map, starmap, imap and the async forms names the item",
          "[fault][retries]") {
  procpool::Pool pool{2};
  const auto fatal = [](long x) {
    if (x == 37) kill(getpid(), SIGKILL);
    return x;
  };
  check_report(caught<WorkerDied>([&] { pool.map(fatal, numbers(50), {.chunksize = 8}); }), 37, "");
  check_report(caught<WorkerDied>([&] { pool.map_async(fatal, numbers(50)).get(); }), 37, "");
  const std::vector<std::pair<long, long>> pairs{{1, 2}, {3, 4}, {6, 7}, {8, 9}};
  check_report(caught<WorkerDied>([&] { pool.starmap(fatal_product{}, pairs, {.chunksize = 2}); }),
               2, "fatal_product");
  for (const bool ordered : {true, false}) {
    const procpool::imap_options options{.chunksize = 5};
    const auto items = numbers(50);
    auto results =
        ordered ? pool.imap(fatal, items, options) : pool.imap_unordered(fatal, items, options);
    std::size_t values = 0;
    std::size_t deaths = 0;
    while (true) {
      try {
        if (!results.next()) break;
        ++values;
      } catch (const WorkerDied& died) {
        ++deaths;
        check_report(died, 37, "");
      }
    }
    CHECK(values == 49);
    CHECK(deaths == 1);
  }
}

TEST_CASE("a WorkerDied of a pool inside a task arrives as it was", "[fault][retries]") {
  shared<std::array<char, 2000>> text;
  shared<pid_t> victim;
  procpool::Pool pool{1};
  const auto outer = [report = text->data(), inner = victim.get()] {
    procpool::Pool nested{1};
    try {
      nested.map(
          [inner](long x) {
            if (x == 4) {
              *inner = getpid();
              kill(getpid(), SIGKILL);
            }
            return x;
          },
          numbers(9), {.retries = 1});
    } catch (const WorkerDied& died) {
      std::snprintf(report, 2000, "%s", died.what());
      throw;
    }
  };
  try {
    pool.apply(outer);
    FAIL("it should have thrown");
  } catch (const WorkerDied& died) {
    CHECK(died.pid() == *victim);
    CHECK(died.item() == 4U);
    CHECK(died.signal() == SIGKILL);
    CHECK(died.attempt() == 2);
    REQUIRE(died.attempts().size() == 2);
    CHECK(died.attempts()[0].attempt == 1);
    CHECK(died.attempts()[0].pid != died.pid());
    CHECK(died.attempts()[0].worker.starts_with("PoolWorker-"));
    CHECK(std::string(died.what()) == text->data());
    CHECK_THROWS_AS(std::rethrow_if_nested(died), procpool::RemoteTraceback);
  }
}

// ---- one outcome for each item ----------------------------------------------------------------

TEST_CASE("1,000 items with 3 poisonous ones: 997 values, 3 errors, nothing run twice",
          "[fault][retries]") {
  std::size_t wrong = 0;
  for (const long chunksize : {0L, 1L, 7L, 100L, 1000L, 5000L}) {
    shared<run_counts> runs;
    procpool::Pool pool{3};
    const auto task = [count = runs.get()](long x) {
      ++(*count)[static_cast<std::size_t>(x)];
      if (x == 100 || x == 101 || x == 999) die_of(static_cast<int>((x - 100) % 3));
      return 3 * x;
    };
    procpool::map_options options;
    if (chunksize != 0) options.chunksize = chunksize;
    const auto outcomes = pool.map_outcomes(task, numbers(1000), options);
    REQUIRE(outcomes.size() == 1000);
    std::size_t values = 0;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      const bool poison = i == 100 || i == 101 || i == 999;
      const bool right = poison ? !outcomes[i] : outcomes[i] && *outcomes[i] == 3L * long(i);
      values += outcomes[i].has_value() ? 1U : 0U;
      wrong += right ? 0U : 1U;
    }
    CHECK(values == 997);
    CHECK(wrong == 0);
    const auto first = error_of<WorkerDied>(outcomes[100].error());
    CHECK(first.signal() == SIGKILL);
    CHECK(first.item() == 100U);
    CHECK(error_of<WorkerDied>(outcomes[101].error()).exitcode() == 3);
    const auto last = error_of<WorkerDied>(outcomes[999].error());
    CHECK(last.signal() == SIGSEGV);
    CHECK(last.item() == 999U);
    CHECK(all_ran_once(*runs, 1000));
  }
  std::printf("partial chunks: 6 maps of 1,000 items, 3 poisonous: %zu outcomes wrong\n", wrong);
}

TEST_CASE("plain map throws the first failure by index, after all has run", "[fault][retries]") {
  shared<run_counts> runs;
  procpool::Pool pool{3};
  const auto task = [count = runs.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    if (x == 500) std::this_thread::sleep_for(200ms);  // the first by index is the last by time
    if (x == 500 || x == 900) kill(getpid(), SIGKILL);
    if (x == 950) throw std::runtime_error("late");
    return x;
  };
  for (const long chunksize : {10L, 1000L}) {
    for (auto& each : *runs) each = 0;
    const auto died =
        caught<WorkerDied>([&] { pool.map(task, numbers(1000), {.chunksize = chunksize}); });
    CHECK(died.item() == 500U);
    CHECK(all_ran_once(*runs, 1000));
  }
}

TEST_CASE("outcomes keep exceptions by type, of void functions and tuples too",
          "[fault][retries]") {
  procpool::Pool pool{2};
  const auto none = pool.map_outcomes(square, std::vector<long>{});
  CHECK(none.empty());

  const auto silent = pool.map_outcomes(
      [](int x) {
        if (x == 1) throw std::out_of_range("one");
        if (x == 2) kill(getpid(), SIGKILL);
      },
      {0, 1, 2, 3});
  REQUIRE(silent.size() == 4);
  CHECK(silent[0].has_value());
  CHECK(silent[0].error() == nullptr);
  CHECK(std::string(error_of<std::out_of_range>(silent[1].error()).what()) == "one");
  CHECK(error_of<WorkerDied>(silent[2].error()).item() == 2U);
  CHECK_THROWS_AS(silent[2].value(), WorkerDied);
  CHECK(silent[3].has_value());

  const std::vector<std::pair<long, long>> pairs{{1, 2}, {6, 7}, {3, 5}};
  const auto products = pool.starmap_outcomes(fatal_product{}, pairs, {.chunksize = 3});
  REQUIRE(products.size() == 3);
  CHECK(products[0].value() == 2);
  CHECK(error_of<WorkerDied>(products[1].error()).item() == 1U);
  CHECK(*products[2] == 15);
}

TEST_CASE("outcomes without waiting: the callback gets them, failures or not", "[fault][retries]") {
  procpool::Pool pool{2};
  std::atomic<int> values{0};
  std::atomic<int> failures{0};
  auto result = pool.map_outcomes_async(
      named_victim{}, numbers(3),
      {.callback = [&](auto& all) { values = static_cast<int>(all.size()); },
       .error_callback = [&](const std::exception_ptr&) { ++failures; }});
  const auto outcomes = result.get();
  CHECK(result.successful());
  CHECK(values == 3);
  CHECK(failures == 0);
  REQUIRE(outcomes.size() == 3);
  CHECK(error_of<WorkerDied>(outcomes[0].error()).signal() == SIGKILL);
  CHECK(error_of<WorkerDied>(outcomes[1].error()).exitcode() == 3);
  CHECK(error_of<WorkerDied>(outcomes[2].error()).signal() == SIGSEGV);
}

namespace {

struct Positive {
  explicit Positive(long number) : value(number) {}
  long value;
};

}  // namespace

template <>
struct procpool::codec<Positive> {
  static void encode(encoder& out, const Positive& number) { out.put(number.value); }
  static Positive decode(decoder& in) { return Positive(in.get<long>()); }
};

TEST_CASE("outcomes hold results that cannot be copied or made from nothing", "[fault][retries]") {
  procpool::Pool pool{2};
  auto owned = pool.map_outcomes(
      [](long x) {
        if (x == 2) kill(getpid(), SIGKILL);
        return std::make_unique<std::string>(std::to_string(x));
      },
      numbers(5), {.chunksize = 5});
  REQUIRE(owned.size() == 5);
  CHECK(**owned[1] == "1");
  const std::unique_ptr<std::string> moved = std::move(owned[4]).value();
  CHECK(*moved == "4");
  CHECK_FALSE(owned[2].has_value());

  const auto positive = pool.map_outcomes(
      [](long x) {
        if (x == 0) std::exit(3);
        return Positive(x);
      },
      numbers(5), {.chunksize = 5});
  CHECK_FALSE(positive[0]);
  CHECK(positive[4]->value == 4);
}

TEST_CASE("outcomes that were there before terminate() stay", "[fault][retries]") {
  shared<std::atomic<int>> done;
  procpool::Pool pool{1};
  auto result = pool.map_outcomes_async(
      [count = done.get()](long x) {
        if (x == 6) std::this_thread::sleep_for(1h);
        ++*count;
        return x;
      },
      numbers(10), {.chunksize = 2});
  REQUIRE(eventually([&] { return *done == 6; }));
  std::this_thread::sleep_for(300ms);  // the service thread reads them
  pool.terminate();
  const auto outcomes = result.get();
  REQUIRE(outcomes.size() == 10);
  for (std::size_t i = 0; i < 6; ++i) {
    INFO(i);
    CHECK(outcomes[i].has_value());
  }
  for (std::size_t i = 6; i < 10; ++i) {
    CHECK_THROWS_AS(outcomes[i].value(), procpool::CancelledError);
  }
}

TEST_CASE("outcomes that were there before the pool broke stay", "[fault][retries]") {
  shared<std::atomic<bool>> fail;
  shared<std::atomic<int>> done;
  procpool::Pool pool{{.processes = 1, .initializer = {[flag = fail.get()] {
                                         if (*flag) throw std::runtime_error("no database");
                                       }}}};
  auto result = pool.map_outcomes_async(
      [flag = fail.get(), count = done.get()](long x) {
        if (x == 6) {
          *flag = true;
          kill(getpid(), SIGKILL);
        }
        ++*count;
        return x;
      },
      numbers(10), {.chunksize = 3});
  const auto outcomes = result.get();
  REQUIRE(outcomes.size() == 10);
  CHECK(*done == 6);
  for (std::size_t i = 0; i < 6; ++i) CHECK(outcomes[i].has_value());
  CHECK_THROWS_AS(outcomes[6].value(), WorkerDied);
  for (std::size_t i = 7; i < 10; ++i) {
    const auto broken = error_of<procpool::BrokenPool>(outcomes[i].error());
    CHECK(contains(broken.what(), "no database"));
  }
}

// ---- further attempts -------------------------------------------------------------------------

TEST_CASE("a task sees which attempt it is, and can succeed at a later one", "[fault][retries]") {
  shared<std::atomic<int>> runs;
  procpool::Pool pool{2};
  const auto third_time = [count = runs.get()](long x) {
    ++*count;
    if (procpool::current_worker().attempt() < 3) kill(getpid(), SIGKILL);
    return x + procpool::current_worker().attempt();
  };
  CHECK(pool.apply({.retries = 2}, third_time, 10) == 13);
  CHECK(*runs == 3);
  CHECK(pool.apply_async({.retries = 5}, third_time, 10).get() == 13);
  CHECK(*runs == 6);
  const auto died = caught<WorkerDied>([&] { pool.apply({.retries = 1}, third_time, 10); });
  CHECK(*runs == 8);
  CHECK(died.attempt() == 2);
  CHECK(pool.apply([] { return procpool::current_worker().attempt(); }) == 1);
}

TEST_CASE("a task that kills its worker every time is reported with all attempts",
          "[fault][retries]") {
  procpool::Pool pool{2};
  const auto task = [](int) {
    const int attempt = procpool::current_worker().attempt();
    if (attempt == 1) std::exit(3);
    if (attempt == 2) crash();
    kill(getpid(), SIGKILL);
  };
  const auto died = caught<WorkerDied>([&] {
    pool.map(task, {0, 1}, {.chunksize = 2, .retries = 2});
  });
  INFO(died.what());
  CHECK(died.attempt() == 3);
  CHECK(died.item() == 0U);
  CHECK(died.exitcode() == -SIGKILL);
  REQUIRE(died.attempts().size() == 3);
  CHECK(died.attempts()[0].exitcode == 3);
  CHECK(died.attempts()[1].exitcode == -SIGSEGV);
  CHECK(died.attempts()[2].pid == died.pid());
  std::set<pid_t> processes;
  for (int i = 0; i < 3; ++i) {
    const auto& each = died.attempts()[static_cast<std::size_t>(i)];
    CHECK(each.attempt == i + 1);
    CHECK(each.item == 0U);
    CHECK_FALSE(each.callable.empty());
    CHECK(contains(died.what(), std::to_string(each.pid)));
    processes.insert(each.pid);
  }
  CHECK(processes.size() == 3);
  CHECK(contains(died.what(), "attempt 3"));
  CHECK(contains(died.what(), "exited with code 3"));
}

TEST_CASE("only the culprit of a chunk is tried again; the items behind it go on",
          "[fault][retries]") {
  std::size_t wrong = 0;
  for (const long chunksize : {1L, 10L, 200L}) {
    shared<run_counts> runs;
    procpool::Pool pool{3};
    // Multiples of 20 need three attempts, 33 fails for ever, 44 throws.
    const auto task = [count = runs.get()](long x) {
      ++(*count)[static_cast<std::size_t>(x)];
      const int attempt = procpool::current_worker().attempt();
      if (x % 20 == 0 && attempt < 3) kill(getpid(), SIGKILL);
      if (x == 33) std::exit(attempt);
      if (x == 44) throw std::runtime_error("not again");
      return attempt;
    };
    const auto outcomes =
        pool.map_outcomes(task, numbers(200), {.chunksize = chunksize, .retries = 3});
    REQUIRE(outcomes.size() == 200);
    for (std::size_t i = 0; i < 200; ++i) {
      const int attempts = i % 20 == 0 ? 3 : i == 33 ? 4 : 1;
      const bool right =
          i == 33 || i == 44 ? !outcomes[i] : outcomes[i] && *outcomes[i] == attempts;
      wrong += right && (*runs)[i] == attempts ? 0U : 1U;
      if (!right || (*runs)[i] != attempts) {
        std::printf("item %zu: %d runs, value %d\n", i, (*runs)[i].load(),
                    outcomes[i] ? *outcomes[i] : -1);
      }
    }
    const auto died = error_of<WorkerDied>(outcomes[33].error());
    CHECK(died.exitcode() == 4);
    CHECK(died.attempts().size() == 4);
    CHECK_THROWS_AS(outcomes[44].value(), std::runtime_error);
  }
  std::printf("retries: 3 maps of 200 items, 12 culprits each: %zu wrong\n", wrong);
  CHECK(wrong == 0);
}

TEST_CASE("an imap tries again too", "[fault][retries]") {
  procpool::Pool pool{2};
  const auto flaky = [](long x) {
    if (x % 7 == 0 && procpool::current_worker().attempt() == 1) kill(getpid(), SIGKILL);
    return x;
  };
  long next = 0;
  for (const long x :
       pool.imap(flaky, numbers(100), {.chunksize = 9, .buffersize = 40, .retries = 1})) {
    CHECK(x == next++);
  }
  CHECK(next == 100);
  long sum = 0;
  for (const long x : pool.imap_unordered(flaky, numbers(100), {.retries = 1})) sum += x;
  CHECK(sum == 4950);
}

TEST_CASE("an attempt that ran too long counts like one that died", "[fault][retries]") {
  procpool::Pool pool{1};
  const auto slow = [] {
    const int attempt = procpool::current_worker().attempt();
    if (attempt == 1) std::exit(7);
    if (attempt < 4) std::this_thread::sleep_for(1h);
    return attempt;
  };
  CHECK(pool.apply({.timeout = 100ms, .retries = 3}, slow) == 4);
  const auto late =
      caught<procpool::TimeoutError>([&] { pool.apply({.timeout = 100ms, .retries = 2}, slow); });
  INFO(late.what());
  CHECK(contains(late.what(), "attempt 3"));
  CHECK(contains(late.what(), "attempt 1"));
  CHECK(contains(late.what(), "exited with code 7"));
  CHECK(contains(late.what(), "0.1 s"));
}

TEST_CASE("retries out of range are refused", "[fault][retries]") {
  procpool::Pool pool{1};
  for (const int bad : {-1, -1000, 1001, 1 << 30}) {
    const auto error =
        caught<std::invalid_argument>([&] { pool.apply({.retries = bad}, square, 1); });
    CHECK(contains(error.what(), "retries"));
    CHECK(contains(error.what(), std::to_string(bad)));
    CHECK_THROWS_AS(pool.apply_async({.retries = bad}, square, 1), std::invalid_argument);
    CHECK_THROWS_AS(pool.map(square, numbers(2), {.retries = bad}), std::invalid_argument);
    CHECK_THROWS_AS(pool.map(square, numbers(0), {.retries = bad}), std::invalid_argument);
    CHECK_THROWS_AS(pool.map_outcomes(square, numbers(2), {.retries = bad}), std::invalid_argument);
    CHECK_THROWS_AS(pool.map_async(square, numbers(2), {.retries = bad}), std::invalid_argument);
    CHECK_THROWS_AS(pool.imap(square, numbers(2), {.retries = bad}), std::invalid_argument);
  }
  CHECK(pool.apply({.retries = 1000}, square, 3) == 9);
}

TEST_CASE("a task may take a hundred attempts", "[fault][retries]") {
  procpool::Pool pool{1};
  const auto task = [] {
    if (procpool::current_worker().attempt() <= 100) kill(getpid(), SIGKILL);
    return procpool::current_worker().attempt();
  };
  CHECK(pool.apply({.retries = 100}, task) == 101);
  const auto died = caught<WorkerDied>([&] { pool.apply({.retries = 99}, task); });
  CHECK(died.attempts().size() == 100);
}

// ---- workers that cannot start ----------------------------------------------------------------

namespace {

enum class failing { by_exception, by_signal, by_exit, by_exit_0 };

// Fails as often as the shared number says.
auto failing_initializer(std::atomic<int>* starts, int failures, failing how) {
  return [=] {
    if (++*starts > failures) return;
    if (how == failing::by_exception) throw std::runtime_error("no such database");
    if (how == failing::by_signal) kill(getpid(), SIGKILL);
    _exit(how == failing::by_exit ? 7 : 0);
  };
}

}  // namespace

TEST_CASE("a pool whose initializer always fails is broken and says why", "[fault][retries]") {
  const std::vector<std::pair<failing, std::string>> ways{
      {failing::by_exception, "no such database"},
      {failing::by_signal, "signal 9"},
      {failing::by_exit, "exited with code 7"},
      {failing::by_exit_0, "exited with code 0"}};
  for (const auto& [how, reason] : ways) {
    for (const int workers : {1, 4}) {
      shared<std::atomic<int>> starts;
      procpool::Pool pool{
          {.processes = workers, .initializer = {failing_initializer(starts.get(), 1 << 20, how)}}};
      const auto broken = caught<procpool::BrokenPool>([&] { pool.apply(square, 1); });
      INFO(broken.what());
      CHECK(contains(broken.what(), reason));
      CHECK(contains(broken.what(), "initializer"));
      CHECK(*starts <= workers + 3);
      CHECK_THROWS_AS(pool.map(square, numbers(3)), procpool::BrokenPool);
      CHECK_THROWS_AS(pool.apply_async(square, 3), procpool::BrokenPool);
      pool.close();
      pool.join();
    }
  }
}

TEST_CASE("work of all kinds ends when the pool breaks", "[fault][retries]") {
  shared<std::atomic<int>> starts;
  procpool::Pool pool{{.processes = 2, .initializer = {[count = starts.get()] {
                                         ++*count;
                                         std::this_thread::sleep_for(50ms);
                                         throw std::runtime_error("no such database");
                                       }}}};
  std::atomic<int> told{0};
  auto one = pool.apply_async(
      {.callback = {}, .error_callback = [&](const std::exception_ptr&) { ++told; }}, square, 1);
  auto many = pool.map_async(square, numbers(100), {.retries = 3});
  auto outcomes = pool.map_outcomes_async(square, numbers(10), {.timeout = 1h});
  auto lazy = pool.imap(square, numbers(100));
  CHECK_THROWS_AS(one.get(20s), procpool::BrokenPool);
  CHECK(told == 1);
  CHECK_THROWS_AS(many.get(20s), procpool::BrokenPool);
  CHECK_THROWS_AS(lazy.next(20s), procpool::BrokenPool);
  for (const auto& each : outcomes.get(20s)) CHECK_THROWS_AS(*each, procpool::BrokenPool);
}

TEST_CASE("an initializer that fails once or twice does no harm", "[fault][retries]") {
  for (const auto how :
       {failing::by_exception, failing::by_signal, failing::by_exit, failing::by_exit_0}) {
    for (const int failures : {1, 2}) {
      for (const int workers : {1, 3}) {
        INFO(failures << " failures, " << workers << " workers");
        shared<std::atomic<int>> starts;
        procpool::Pool pool{{.processes = workers,
                             .initializer = {failing_initializer(starts.get(), failures, how)}}};
        CHECK(pool.map(square, numbers(20)).back() == 361);
        CHECK(eventually(
            [&] { return *starts == workers + failures || pool.apply(square, 2) != 4; }));
      }
    }
  }
}

TEST_CASE("replacements that cannot start are tried later and later", "[fault][retries]") {
  shared<std::array<std::atomic<long>, 8>> when;
  shared<std::atomic<int>> starts;
  procpool::Pool pool{{.processes = 1, .initializer = {[at = when.get(), count = starts.get()] {
                                         const auto now = steady_clock::now().time_since_epoch();
                                         const auto number = static_cast<std::size_t>((*count)++);
                                         if (number < at->size()) (*at)[number] = now / 1ms;
                                         if (number > 0) throw std::runtime_error("not any more");
                                       }}}};
  CHECK(pool.apply(square, 3) == 9);
  CHECK_THROWS_AS(pool.apply([] { std::exit(1); }), WorkerDied);
  CHECK_THROWS_AS(pool.apply(square, 3), procpool::BrokenPool);
  REQUIRE(*starts == 4);
  const long first = (*when)[2] - (*when)[1];
  const long second = (*when)[3] - (*when)[2];
  std::printf("back-off: %ld ms, then %ld ms\n", first, second);
  CHECK(first >= 5);
  CHECK(second >= 50);
}

// ---- idle workers -----------------------------------------------------------------------------

TEST_CASE("idle workers that are killed are replaced and no task is lost", "[fault][retries]") {
  procpool::Pool pool{2};
  std::size_t kills = 0;
  std::size_t wrong = 0;
  for (int round = 0; round < 60; ++round) {
    if (round % 3 == 0) wrong += pool.apply(square, round) == long(round) * round ? 0U : 1U;
    for (const pid_t worker : worker_processes()) kills += kill(worker, SIGKILL) == 0 ? 1U : 0U;
    if (round % 2 == 0) std::this_thread::sleep_for(2ms);
    const auto squares = pool.map(square, numbers(20), {.chunksize = 3});
    for (long i = 0; i < 20; ++i) wrong += squares[static_cast<std::size_t>(i)] == i * i ? 0U : 1U;
  }
  std::printf("idle workers: %zu killed, %zu results wrong or lost\n", kills, wrong);
  CHECK(kills >= 60);
  CHECK(wrong == 0);
  CHECK(eventually([&] {
    static_cast<void>(pool.apply(square, 1));
    return worker_processes().size() == 2;
  }));
}

TEST_CASE("a stopped idle worker holds nothing up, and works again later", "[fault][retries]") {
  const auto whoami = [] {
    std::this_thread::sleep_for(1ms);
    return getpid();
  };
  procpool::Pool pool{2};
  CHECK(pool.map(square, numbers(50)).size() == 50);
  const auto workers = worker_processes();
  REQUIRE(workers.size() == 2);
  for (const pid_t stopped : workers) {
    REQUIRE(kill(stopped, SIGSTOP) == 0);
    const auto begin = steady_clock::now();
    for (int i = 0; i < 20; ++i) CHECK(pool.apply(whoami) != stopped);
    const auto took = steady_clock::now() - begin;
    std::vector<procpool::AsyncResult<pid_t>> results;
    for (int i = 0; i < 100; ++i) results.push_back(pool.apply_async(whoami));
    for (const auto& each : results) CHECK(each.get(10s) != stopped);
    CHECK(pool.map(square, numbers(100), {.chunksize = 1}).back() == 99 * 99);
    std::printf("a stopped worker: 20 tasks went to the other in %ld ms\n", long(took / 1ms));
    CHECK(took < 10s);
    REQUIRE(kill(stopped, SIGCONT) == 0);
    CHECK(eventually([&] {  // it gets work again
      const auto pids =
          pool.map([whoami](int) { return whoami(); }, std::vector<int>(50), {.chunksize = 1});
      return std::count(pids.begin(), pids.end(), stopped) > 0;
    }));
  }
  CHECK(worker_processes() == workers);
}

TEST_CASE("the work of a stopped worker waits for it and is done once", "[fault][retries]") {
  shared<run_counts> runs;
  procpool::Pool pool{2};
  const auto task = [count = runs.get()](long x) {
    ++(*count)[static_cast<std::size_t>(x)];
    std::this_thread::sleep_for(2ms);
    return getpid();
  };
  auto result = pool.map_async(task, numbers(300), {.chunksize = 10});
  REQUIRE(eventually([&] { return (*runs)[0] > 0; }));
  const pid_t stopped = *worker_processes().begin();
  REQUIRE(kill(stopped, SIGSTOP) == 0);
  CHECK_FALSE(result.wait(700ms));
  REQUIRE(kill(stopped, SIGCONT) == 0);
  CHECK(result.get(20s).size() == 300);
  CHECK(all_ran_once(*runs, 300));
}
