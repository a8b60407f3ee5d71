// SPDX-License-Identifier: MIT
/// @file
/// What one writes with the standard library: a pool of threads that take std::packaged_task from a
/// queue under a mutex, and a loop split over two threads.
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <future>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "../bench.hpp"

namespace {

void nothing() {}
long square(long x) {
  return x * x;
}

class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    {
      const std::lock_guard lock(mutex_);
      leaving_ = true;
    }
    wakes_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  std::future<void> submit(void (*function)()) {
    std::packaged_task<void()> task(function);
    auto future = task.get_future();
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    wakes_.notify_one();
    return future;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wakes_.wait(lock, [this] { return leaving_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wakes_;
  std::deque<std::packaged_task<void()>> tasks_;
  bool leaving_ = false;
  std::vector<std::thread> threads_;
};

void stream() {
  const int tasks = bench::scaled(200'000, 20'000);
  thread_pool pool(2);
  const auto once = [&] {
    std::vector<std::future<void>> futures;
    futures.reserve(static_cast<std::size_t>(tasks));
    for (int i = 0; i < tasks; ++i) futures.push_back(pool.submit(nothing));
    for (auto& future : futures) future.get();
  };
  once();
  bench::report("stream", "mutex queue", bench::median_ns(3, once) / tasks, "ns");
}

std::vector<long> split_loop(const std::vector<long>& items) {
  std::vector<long> results(items.size());
  const auto part = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) results[i] = square(items[i]);
  };
  std::thread first(part, 0, items.size() / 2);
  std::thread second(part, items.size() / 2, items.size());
  first.join();
  second.join();
  return results;
}

void map_longs() {
  std::vector<long> items(1'000'000);
  std::iota(items.begin(), items.end(), 0);
  std::vector<long> results;
  for (int i = 0; i < 3; ++i) results = split_loop(items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    bench::require(results[i] == static_cast<long>(i * i), "a square");
  }
  const double cost = bench::median_ns(bench::scaled(21, 5), [&] {
    bench::require(split_loop(items).back() == square(items.back()), "the last square");
  });
  bench::report("map_longs", "two threads", cost / 1e6, "ns");
}

}  // namespace

BENCH_MAIN({"stream", stream}, {"map_longs", map_longs})
