// SPDX-License-Identifier: MIT
/// @file
/// Waiting for some of many results, of one pool or several.
///
/// Results of one pool: the waiting thread drives the pool, as with a single result. Results of
/// several: their service threads drive, and the waiting thread sleeps on a condition variable of
/// its own; unless it is a service thread itself (a callback waits), because nobody would drive its
/// pool then: it drives one pool after the other, for a moment each.
///
/// A watch is told under the lock of a pool and takes its own lock then, never the other way round.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/ready_observer.hpp>
#include <procpool/detail/result/waiting.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What is news to a watch.
enum class watch_rule {
  any_ready,      ///< each job that becomes ready
  first_failure,  ///< the first that ends with an exception, or the last of all
};

/// Watches jobs, all different, that live longer than it. For one thread.
class wait_set final : public ready_observer, public waitable {
 public:
  wait_set(std::span<job* const> jobs, watch_rule rule)
      : rule_(rule), points_(jobs.size()), missing_(jobs.size()) {
    for (std::size_t i = 0; i < jobs.size(); ++i) points_[i].what = jobs[i];
  }
  wait_set(const wait_set&) = delete;
  wait_set& operator=(const wait_set&) = delete;
  ~wait_set() {
    for (observer_entry& each : points_) {
      if (each.owner != nullptr) each.what->pool().unwatch(each);  // it may have been told
    }
  }

  /// Takes note of the jobs that are ready and has itself told of the others; those are left out
  /// when there is news enough, unless @p all is set. Once. @throws what driver::watch() throws
  void start(bool all);

  /// Waits until there is news, @p until has come or a stop is requested; whether there is news.
  bool wait(std::optional<time_point> until, const stop_token& stop);

  /// The index of a ready job that was not returned before, in the order in which they became so.
  [[nodiscard]] std::optional<std::size_t> pop() noexcept;

  /// There is something to pop, or there was a failure, or all are ready.
  [[nodiscard]] bool ready() const noexcept override {
    return news_.load(std::memory_order_acquire);  // what the other thread knew
  }
  [[nodiscard]] bool resolved() const noexcept override { return ready(); }

  void told(observer_entry& at, const job& what) noexcept override;

 private:
  void register_at(observer_entry& point);
  void remember(driver& pool);
  bool sleep(std::optional<time_point> until, const stop_token& stop);
  bool take_turns(std::optional<time_point> until, const stop_token& stop);
  [[nodiscard]] bool failed(const job& what) noexcept;

  const watch_rule rule_;
  // A point has its owner as long as the job may know it, and its job until the watch starts with
  // a job that is ready.
  std::vector<observer_entry> points_;
  std::vector<boost::intrusive_ptr<driver>> pools_;  ///< of jobs that were not ready, each once
  observer_entry* popped_ = nullptr;                 ///< the next ones to be returned

  std::mutex mutex_;
  std::condition_variable changed_;
  observer_entry* first_ = nullptr;  ///< those that are ready, chained by next
  observer_entry* last_ = nullptr;
  std::size_t missing_;  ///< jobs that are not ready
  std::atomic<bool> news_{false};
  bool sleeping_ = false;
};

PROCPOOL_FUNCTION void wait_set::start(bool all) {
  for (observer_entry& each : points_) {
    if (each.what->ready()) told(each, *std::exchange(each.what, nullptr));
  }
  for (observer_entry& each : points_) {
    if (ready() && !all) return;
    if (each.what != nullptr) register_at(each);
  }
}

PROCPOOL_FUNCTION void wait_set::register_at(observer_entry& point) {
  driver& pool = point.what->pool();
  remember(pool);
  point.owner = this;
  if (pool.watch(*point.what, point)) return;
  point.owner = nullptr;  // it became ready in this moment
  told(point, *point.what);
}

PROCPOOL_FUNCTION void wait_set::remember(driver& pool) {
  if (!pools_.empty() && pools_.back() == &pool) return;
  if (std::ranges::find(pools_, &pool, &boost::intrusive_ptr<driver>::get) != pools_.end()) return;
  pools_.emplace_back(&pool);
}

PROCPOOL_FUNCTION void wait_set::told(observer_entry& at, const job& what) noexcept {
  const std::lock_guard lock(mutex_);
  at.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &at;
  last_ = &at;
  --missing_;
  if (rule_ == watch_rule::first_failure && missing_ != 0 && !failed(what)) return;
  news_.store(true, std::memory_order_release);  // what this thread knows
  if (sleeping_) changed_.notify_one();  // with the lock: the watch may be gone right after it
}

// Python's rule: what was cancelled has not failed.
PROCPOOL_FUNCTION bool wait_set::failed(const job& what) noexcept {
  return what.failure() != nullptr && !what.cancelled();
}

PROCPOOL_FUNCTION std::optional<std::size_t> wait_set::pop() noexcept {
  if (popped_ == nullptr) {
    const std::lock_guard lock(mutex_);
    popped_ = std::exchange(first_, nullptr);
    last_ = nullptr;
    news_.store(false, std::memory_order_relaxed);  // under the lock of those who set it
  }
  if (popped_ == nullptr) return std::nullopt;
  observer_entry& next = *std::exchange(popped_, popped_->next);
  next.owner = nullptr;
  return static_cast<std::size_t>(&next - points_.data());
}

PROCPOOL_FUNCTION bool wait_set::wait(std::optional<time_point> until, const stop_token& stop) {
  if (ready()) return true;
  if (pools_.size() == 1) return wait_for(*pools_.front(), *this, until, stop);
  const bool to_be_driven =
      std::ranges::any_of(pools_, [](const auto& pool) { return !pool->drives_itself(); });
  if (to_be_driven || fork_registry::on_library_thread()) return take_turns(until, stop);
  return sleep(until, stop);
}

PROCPOOL_FUNCTION bool wait_set::sleep(std::optional<time_point> until, const stop_token& stop) {
  const stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_one();
  });
  std::unique_lock lock(mutex_);
  sleeping_ = true;
  while (!ready() && !stop.stop_requested()) {
    if (!until) {
      changed_.wait(lock);
    } else if (changed_.wait_until(lock, *until) == std::cv_status::timeout) {
      break;
    }
  }
  sleeping_ = false;
  return ready();
}

PROCPOOL_FUNCTION bool wait_set::take_turns(std::optional<time_point> until,
                                            const stop_token& stop) {
  constexpr std::chrono::milliseconds turn{1};
  for (std::size_t whose = 0; !ready() && !stop.stop_requested(); ++whose) {
    const auto now = std::chrono::steady_clock::now();
    if (until && now >= *until) return false;
    pools_[whose % pools_.size()]->wait(*this, until ? std::min(*until, now + turn) : now + turn);
  }
  return ready();
}

PROCPOOL_FUNCTION void wait_for_jobs(std::span<job* const> jobs, return_when when,
                                     std::optional<time_point> until, const stop_token& stop) {
  if (jobs.empty()) return;
  if (when == return_when::all_completed) {  // one after the other is quickest
    for (job* each : jobs) {
      if (!each->wait_until(until, stop)) return;
    }
    return;
  }
  wait_set watch(jobs, when == return_when::first_completed ? watch_rule::any_ready
                                                            : watch_rule::first_failure);
  watch.start(false);
  static_cast<void>(watch.wait(until, stop));
}

class watched_completions final : public completion_order {
 public:
  watched_completions(std::span<job* const> jobs, std::optional<time_point> until, stop_token stop)
      : watch_(jobs, watch_rule::any_ready),
        all_(jobs.size()),
        left_(jobs.size()),
        until_(until),
        stop_(std::move(stop)) {
    watch_.start(true);
  }

  [[nodiscard]] std::optional<std::size_t> next() override {
    if (left_ == 0) return std::nullopt;
    auto index = watch_.pop();
    if (!index) {
      if (!watch_.wait(until_, stop_)) fail_submission();
      index = watch_.pop();
    }
    --left_;
    return index;
  }

 private:
  [[noreturn]] void fail_submission() const {
    if (stop_.stop_requested()) {
      throw CancelledError("the wait for the next result was stopped");
    }
    throw TimeoutError(concat({left_, " (of ", all_, ") results unfinished"}));
  }

  wait_set watch_;
  const std::size_t all_;
  std::size_t left_;
  const std::optional<time_point> until_;
  const stop_token stop_;
};

PROCPOOL_FUNCTION std::unique_ptr<completion_order> watch_completions(
    std::span<job* const> jobs, std::optional<time_point> until, stop_token stop) {
  return std::make_unique<watched_completions>(jobs, until, std::move(stop));
}

}  // namespace procpool::detail
