// SPDX-License-Identifier: MIT
// Workers that hide from time limits and signals, have the parent run out of memory, or attack
// before they have any task: from the initializer.
#include <sched.h>
#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>
#include <optional>

#include "fault/hostile_battle.hpp"

namespace {

using namespace hostile;

// ---- time and memory ---------------------------------------------------------------------------

void stop_oneself() {
  kill(getpid(), SIGSTOP);
}
void be_deaf() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  signal(SIGTERM, SIG_IGN);
  for (;;) usleep(1000);
}
/// Says now this, now that about what it runs and since when.
void be_evasive() {
  auto& own = inbound::find().control();
  const std::uint64_t started = own.started;
  const std::uint64_t claimed = own.claimed;
  for (std::uint64_t i = 0;; ++i) {
    own.started = i % 2 == 0 ? started : started - (std::uint64_t{1} << 32);
    own.claimed = i % 3 == 0 ? 0 : claimed;
    own.started_at = ~std::uint64_t{0} - i;
    if (i % 64 == 0) usleep(100);
  }
}

enum class ending { value, late, death, other, none };
template <class T>
ending ending_of(const procpool::AsyncResult<T>& result) {
  if (!result.wait(15s)) return ending::none;
  try {
    result.get();
    return ending::value;
  } catch (const procpool::TimeoutError&) {
    return ending::late;
  } catch (const procpool::WorkerDied&) {
    return ending::death;
  } catch (const std::exception&) {
    return ending::other;
  }
}

TEST_CASE("no worker is deaf to its pool's end", "[fault][hostile]") {
  for (auto* task : {stop_oneself, be_deaf}) {
    std::optional<procpool::AsyncResult<void>> result;
    const auto begin = std::chrono::steady_clock::now();
    {
      procpool::Pool pool{small_pool};
      result = pool.apply_async(task);
      for (std::int32_t i = 0; i < 100; ++i) CHECK(pool.apply(innocent_number_of, i) == i * i + 1);
      CHECK_FALSE(result->ready());
    }
    CHECK(std::chrono::steady_clock::now() - begin < 20s);
    CHECK(ending_of(*result) == ending::other);  // CancelledError
  }
}

TEST_CASE("no worker evades its time limit", "[fault][hostile]") {
  procpool::Pool pool{small_pool};
  for (auto* task : {stop_oneself, be_deaf, be_evasive}) {
    const auto result = pool.apply_async({.timeout = 200ms}, task);
    for (std::int32_t i = 0; i < 100; ++i) CHECK(pool.apply(innocent_number_of, i) == i * i + 1);
    const auto how = ending_of(result);
    if (task == be_evasive) {
      CHECK((how == ending::late || how == ending::death));
    } else {
      CHECK(how == ending::late);
    }
  }
}

TEST_CASE("a result that the parent has no memory for costs one task",
          "[fault][hostile][limit:300]") {
  const campaign figures("results too large");
  const auto endless = [](const order& what) {
    promise(what.seed, record_kind::value, std::uint64_t{1} << 30);
  };
  CHECK(wage("too large", {.swells = true}, [&](battle& fight) {
          rlimit space{};
          getrlimit(RLIMIT_AS, &space);
          space.rlim_cur = static_cast<rlim_t>(status_kib("VmSize:") + 200 * 1024) * 1024;
          setrlimit(RLIMIT_AS, &space);
          fight.round(shape::text, endless, 0);
          fight.round(shape::text, endless, 0);
        }) == 0);
}

// ---- the initializer ---------------------------------------------------------------------------

/// Forges the record of its own end.
void hostile_initializer(std::int32_t variant) {
  forger forge;
  honest_bell bell;
  const record_kind kinds[] = {record_kind::run, record_kind::run, record_kind::value,
                               record_kind::error};
  const record_head head = forge.head(kinds[variant], variant == 3 ? 8 : 64);
  if (variant == 0) {  // in two pieces
    forge.put(&head, sizeof head);
    forge.advance(32);
    forge.commit_part();
    bell.wake_if_armed();
    std::this_thread::sleep_for(20ms);
    forge.advance(32);
    forge.commit();
    bell.wake_if_armed();
    std::this_thread::sleep_for(20ms);
  } else if (variant == 3) {  // for ever
    for (int i = 0; i < 2'000'000; ++i) {
      forge.put(head, 8);
      forge.commit();
      if (i % 64 == 0) sched_yield();
    }
  } else {
    forge.put(head, 64);
    forge.commit();
    std::this_thread::sleep_for(20ms);
  }
  if (variant > 1) die();
}

TEST_CASE("an initializer that forges records breaks its pool at the most",
          "[fault][hostile][limit:300]") {
  for (std::int32_t variant = 0; variant < 4; ++variant) {
    const int status = support::run_child([=] {
      alarm(30 * time_factor());
      auto options = small_pool;
      options.initializer = {hostile_initializer, variant};
      procpool::Pool pool{options};
      std::vector<procpool::AsyncResult<std::int32_t>> results;
      try {
        for (std::int32_t i = 0; i < 20; ++i) {
          results.push_back(pool.apply_async(innocent_number_of, i));
        }
      } catch (const procpool::BrokenPool&) {
      }
      for (const auto& each : results) CHILD_REQUIRE(ending_of(each) != ending::none);
      return 0;
    });
    INFO("variant " << variant);
    CHECK(status == 0);
  }
}

}  // namespace
