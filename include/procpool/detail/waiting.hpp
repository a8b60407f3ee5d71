// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// How result_watch waits.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/concat.hpp>
#include <procpool/detail/fork_registry.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/result_watch.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION void result_watch::start(bool all) {
  for (watch_point& each : points_) {
    if (each.what->ready()) told(each, *std::exchange(each.what, nullptr));
  }
  for (watch_point& each : points_) {
    if (ready() && !all) return;
    if (each.what != nullptr) register_at(each);
  }
}

PROCPOOL_FUNCTION void result_watch::register_at(watch_point& point) {
  driver& pool = point.what->pool();
  remember(pool);
  point.owner = this;
  if (pool.watch(*point.what, point)) return;
  point.owner = nullptr;  // it became ready in this moment
  told(point, *point.what);
}

PROCPOOL_FUNCTION void result_watch::remember(driver& pool) {
  if (!pools_.empty() && pools_.back() == &pool) return;
  if (std::ranges::find(pools_, &pool, &boost::intrusive_ptr<driver>::get) != pools_.end()) return;
  pools_.emplace_back(&pool);
}

PROCPOOL_FUNCTION void result_watch::told(watch_point& at, const job& what) noexcept {
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
PROCPOOL_FUNCTION bool result_watch::failed(const job& what) noexcept {
  const std::exception_ptr& failure = what.failure();
  if (failure == nullptr || failure == cancellation_) return false;
  try {
    std::rethrow_exception(failure);
  } catch (const CancelledError&) {
    cancellation_ = failure;
    return false;
  } catch (...) {
    return true;
  }
}

PROCPOOL_FUNCTION std::optional<std::size_t> result_watch::pop() noexcept {
  if (popped_ == nullptr) {
    const std::lock_guard lock(mutex_);
    popped_ = std::exchange(first_, nullptr);
    last_ = nullptr;
    news_.store(false, std::memory_order_relaxed);  // under the lock of those who set it
  }
  if (popped_ == nullptr) return std::nullopt;
  watch_point& next = *std::exchange(popped_, popped_->next);
  next.owner = nullptr;
  return static_cast<std::size_t>(&next - points_.data());
}

PROCPOOL_FUNCTION bool result_watch::wait(std::optional<time_point> until,
                                          const std::stop_token& stop) {
  if (ready()) return true;
  if (pools_.size() == 1) return wait_for(*pools_.front(), *this, until, stop);
  if (fork_registry::on_library_thread()) return take_turns(until, stop);
  return sleep(until, stop);
}

PROCPOOL_FUNCTION bool result_watch::sleep(std::optional<time_point> until,
                                           const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] {
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

PROCPOOL_FUNCTION bool result_watch::take_turns(std::optional<time_point> until,
                                                const std::stop_token& stop) {
  constexpr std::chrono::milliseconds turn{1};
  for (std::size_t whose = 0; !ready() && !stop.stop_requested(); ++whose) {
    const auto now = std::chrono::steady_clock::now();
    if (until && now >= *until) return false;
    pools_[whose % pools_.size()]->wait(*this, until ? std::min(*until, now + turn) : now + turn);
  }
  return ready();
}

PROCPOOL_FUNCTION void wait_for_jobs(std::span<job* const> jobs, return_when when,
                                     std::optional<time_point> until, const std::stop_token& stop) {
  if (jobs.empty()) return;
  if (when == return_when::all_completed) {  // one after the other is quickest
    for (job* each : jobs) {
      if (!each->wait_until(until, stop)) return;
    }
    return;
  }
  result_watch watch(jobs, when == return_when::first_completed ? watch_rule::any_ready
                                                                : watch_rule::first_failure);
  watch.start(false);
  static_cast<void>(watch.wait(until, stop));
}

PROCPOOL_FUNCTION std::optional<std::size_t> completion_order::next() {
  if (left_ == 0) return std::nullopt;
  auto index = watch_.pop();
  while (!index) {
    if (!watch_.wait(until_, stop_)) {
      if (stop_.stop_requested()) {
        throw CancelledError("the wait for the next result was stopped");
      }
      throw TimeoutError(concat({left_, " (of ", all_, ") results unfinished"}));
    }
    index = watch_.pop();
  }
  --left_;
  return index;
}

}  // namespace procpool::detail
