// SPDX-License-Identifier: MIT
/// @file
/// What it costs to be called when a result is there, compared with waiting for it: empty tasks in
/// a stream. The ways take turns, so that whatever else the machine does hits all of them.
#include <array>
#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <mutex>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

using result = procpool::AsyncResult<void>;

void nothing() {}

/// Lets the submitting thread sleep until so many have been counted.
class countdown {
 public:
  explicit countdown(int from) : left_(from) {}
  void arrive() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }

 private:
  std::atomic<int> left_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

struct detached {
  struct promise_type {
    detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
};

void with_get(procpool::Pool<>& pool, int tasks) {
  std::vector<result> results;
  results.reserve(static_cast<std::size_t>(tasks));
  for (int i = 0; i < tasks; ++i) results.push_back(pool.apply_async(nothing));
  for (auto& each : results) each.get();
}

void with_callbacks(procpool::Pool<>& pool, int tasks) {
  countdown left(tasks);
  for (int i = 0; i < tasks; ++i) {
    pool.apply_async(nothing).add_done_callback([&left](auto&) { left.arrive(); });
  }
  left.wait();
}

detached await(procpool::Pool<>& pool, countdown& left) {
  co_await pool.apply_async(nothing);
  left.arrive();
}

// A coroutine for each: one thread makes their frames, another one frees them.
void with_new_coroutines(procpool::Pool<>& pool, int tasks) {
  countdown left(tasks);
  for (int i = 0; i < tasks; ++i) await(pool, left);
  left.wait();
}

detached await_many(procpool::Pool<>& pool, int tasks, countdown& left) {
  for (int i = 0; i < tasks; ++i) co_await pool.apply_async(nothing);
  left.arrive();
}

// As in a server: some coroutines, each of which waits for one result after the other.
void with_coroutines(procpool::Pool<>& pool, int tasks) {
  constexpr int coroutines = 200;
  countdown left(coroutines);
  for (int i = 0; i < coroutines; ++i) await_many(pool, tasks / coroutines, left);
  left.wait();
}

detached await_all(procpool::Pool<>& pool, int tasks, countdown& left) {
  std::vector<result> results;
  results.reserve(static_cast<std::size_t>(tasks));
  for (int i = 0; i < tasks; ++i) results.push_back(pool.apply_async(nothing));
  for (auto& each : results) co_await each;
  left.arrive();
}

// Like with_get().
void with_one_coroutine(procpool::Pool<>& pool, int tasks) {
  countdown left(1);
  await_all(pool, tasks, left);
  left.wait();
}

struct way {
  const char* name;
  void (*run)(procpool::Pool<>& pool, int tasks);
};

void continuations() {
  static constexpr std::array<way, 5> ways{{{"get", with_get},
                                            {"callback", with_callbacks},
                                            {"co_await", with_coroutines},
                                            {"new coroutine", with_new_coroutines},
                                            {"co_await of all", with_one_coroutine}}};
  const int tasks = bench::scaled(200'000, 20'000);
  procpool::Pool pool{2};
  std::array<std::vector<double>, ways.size()> costs;
  for (const auto& each : ways) each.run(pool, tasks / 10);
  for (int turn = 0; turn < bench::scaled(7, 3); ++turn) {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      costs[i].push_back(bench::nanoseconds([&] { ways[i].run(pool, tasks); }) / tasks);
    }
  }
  for (std::size_t i = 0; i < ways.size(); ++i) {
    bench::report("continuation", ways[i].name, bench::median(costs[i]), "ns");
  }
}

}  // namespace

BENCH_MAIN({"continuations", continuations})
