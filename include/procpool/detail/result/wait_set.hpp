// SPDX-License-Identifier: MIT
/// @file
/// Waits for some of many results, of one or several pools.
///
/// For one pool the waiting thread drives it, as for a single result. For several pools their
/// service threads drive, and the waiting thread sleeps on its own condition variable. If the
/// waiting thread is a service thread (a callback waits), its own pool would not be driven. So it
/// drives the pools in turn, for a short time each.
///
/// An observer is notified under a pool's lock and then takes its own lock, never in reverse order.
#pragma once

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
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What ends a wait.
enum class wait_rule {
  any_ready,      ///< each job that becomes ready
  first_failure,  ///< the first job that ends with an exception, or the last of all
};

/// Observes jobs, all different, that outlive it. For one thread.
class wait_set final : public ready_observer, public waitable {
 public:
  wait_set(std::span<job* const> jobs, wait_rule rule)
      : rule_(rule), entries_(jobs.size()), missing_(jobs.size()) {
    for (std::size_t i = 0; i < jobs.size(); ++i) entries_[i].what = jobs[i];
  }
  wait_set(const wait_set&) = delete;
  wait_set& operator=(const wait_set&) = delete;
  ~wait_set() {
    for (observer_entry& each : entries_) {
      if (each.owner != nullptr) each.what->pool().unwatch(each);  // may have been notified
    }
  }

  /// Records the jobs that are ready, and observes the others. Stops when a wait would end, unless
  /// @p all is set. Call once. @throws as driver::watch()
  void start(bool all);

  /// Waits until ready(), @p until is reached or a stop is requested; whether ready().
  bool wait(std::optional<time_point> until, const stop_token& stop);

  /// The index of a ready job that was not returned before, in the order of becoming ready.
  [[nodiscard]] std::optional<std::size_t> pop() noexcept;

  /// There is something to pop, or by the rule a failure, or all are ready.
  [[nodiscard]] bool ready() const noexcept override {
    return signaled_.load(std::memory_order_acquire);  // sees what the notifying thread did
  }
  [[nodiscard]] bool resolved() const noexcept override { return ready(); }

  void on_ready(observer_entry& entry, const job& what) noexcept override;

 private:
  void observe(observer_entry& entry);
  void add_pool(driver& pool);
  bool sleep(std::optional<time_point> until, const stop_token& stop);
  bool drive_in_turn(std::optional<time_point> until, const stop_token& stop);
  [[nodiscard]] bool failed(const job& what) noexcept;

  const wait_rule rule_;
  // An entry has an owner as long as its job may refer to it. Its job is null if it was ready at
  // the start.
  std::vector<observer_entry> entries_;
  std::vector<intrusive_ptr<driver>> pools_;  ///< of jobs that were not ready, each once
  observer_entry* popped_ = nullptr;          ///< to be returned next

  std::mutex mutex_;
  std::condition_variable changed_;
  observer_entry* first_ = nullptr;  ///< ready ones, linked by next
  observer_entry* last_ = nullptr;
  std::size_t missing_;  ///< jobs that are not ready
  std::atomic<bool> signaled_{false};
  bool sleeping_ = false;
};

PROCPOOL_FUNCTION void wait_set::start(bool all) {
  for (observer_entry& each : entries_) {
    if (each.what->ready()) on_ready(each, *std::exchange(each.what, nullptr));
  }
  for (observer_entry& each : entries_) {
    if (ready() && !all) return;
    if (each.what != nullptr) observe(each);
  }
}

PROCPOOL_FUNCTION void wait_set::observe(observer_entry& entry) {
  driver& pool = entry.what->pool();
  add_pool(pool);
  entry.owner = this;
  if (pool.watch(*entry.what, entry)) return;
  entry.owner = nullptr;  // it has become ready just now
  on_ready(entry, *entry.what);
}

PROCPOOL_FUNCTION void wait_set::add_pool(driver& pool) {
  if (!pools_.empty() && pools_.back() == &pool) return;
  if (std::ranges::find(pools_, &pool, &intrusive_ptr<driver>::get) != pools_.end()) return;
  pools_.emplace_back(&pool);
}

PROCPOOL_FUNCTION void wait_set::on_ready(observer_entry& entry, const job& what) noexcept {
  const std::lock_guard lock(mutex_);
  entry.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &entry;
  last_ = &entry;
  --missing_;
  if (rule_ == wait_rule::first_failure && missing_ != 0 && !failed(what)) return;
  signaled_.store(true, std::memory_order_release);  // publishes the outcome
  if (sleeping_) changed_.notify_one();  // under the lock: afterwards the set may be destroyed
}

// As in Python, a cancelled job has not failed.
PROCPOOL_FUNCTION bool wait_set::failed(const job& what) noexcept {
  return what.failure() != nullptr && !what.cancelled();
}

PROCPOOL_FUNCTION std::optional<std::size_t> wait_set::pop() noexcept {
  if (popped_ == nullptr) {
    const std::lock_guard lock(mutex_);
    popped_ = std::exchange(first_, nullptr);
    last_ = nullptr;
    signaled_.store(false, std::memory_order_relaxed);  // under the lock, like the store of true
  }
  if (popped_ == nullptr) return std::nullopt;
  observer_entry& next = *std::exchange(popped_, popped_->next);
  next.owner = nullptr;
  return static_cast<std::size_t>(&next - entries_.data());
}

PROCPOOL_FUNCTION bool wait_set::wait(std::optional<time_point> until, const stop_token& stop) {
  if (ready()) return true;
  if (pools_.size() == 1) return wait_for(*pools_.front(), *this, until, stop);
  const bool to_be_driven =
      std::ranges::any_of(pools_, [](const auto& pool) { return !pool->drives_itself(); });
  if (to_be_driven || fork_registry::on_library_thread()) return drive_in_turn(until, stop);
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

PROCPOOL_FUNCTION bool wait_set::drive_in_turn(std::optional<time_point> until,
                                               const stop_token& stop) {
  constexpr std::chrono::milliseconds turn{1};
  for (std::size_t turn_number = 0; !ready() && !stop.stop_requested(); ++turn_number) {
    const auto now = std::chrono::steady_clock::now();
    if (until && now >= *until) return false;
    pools_[turn_number % pools_.size()]->wait(*this,
                                              until ? std::min(*until, now + turn) : now + turn);
  }
  return ready();
}

PROCPOOL_FUNCTION void wait_for_jobs(std::span<job* const> jobs, return_when when,
                                     std::optional<time_point> until, const stop_token& stop) {
  if (jobs.empty()) return;
  if (when == return_when::all_completed) {  // one after another is fastest
    for (job* each : jobs) {
      if (!each->wait_until(until, stop)) return;
    }
    return;
  }
  wait_set set(
      jobs, when == return_when::first_completed ? wait_rule::any_ready : wait_rule::first_failure);
  set.start(false);
  static_cast<void>(set.wait(until, stop));
}

class observed_completions final : public completion_order {
 public:
  observed_completions(std::span<job* const> jobs, std::optional<time_point> until, stop_token stop)
      : set_(jobs, wait_rule::any_ready),
        all_(jobs.size()),
        left_(jobs.size()),
        until_(until),
        stop_(std::move(stop)) {
    set_.start(true);
  }

  [[nodiscard]] std::optional<std::size_t> next() override {
    if (left_ == 0) return std::nullopt;
    auto index = set_.pop();
    if (!index) {
      if (!set_.wait(until_, stop_)) fail_submission();
      index = set_.pop();
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

  wait_set set_;
  const std::size_t all_;
  std::size_t left_;
  const std::optional<time_point> until_;
  const stop_token stop_;
};

PROCPOOL_FUNCTION std::unique_ptr<completion_order> watch_completions(
    std::span<job* const> jobs, std::optional<time_point> until, stop_token stop) {
  return std::make_unique<observed_completions>(jobs, until, std::move(stop));
}

}  // namespace procpool::detail
