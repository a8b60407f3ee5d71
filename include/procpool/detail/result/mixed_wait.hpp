// SPDX-License-Identifier: MIT
/// @file
/// Waits for descriptors and results at once: the implementation of connection_wait.hpp.
///
/// The thread sleeps on the descriptors, and on an event that is signaled when a result becomes
/// ready. The service threads of the pools drive them meanwhile. A pool that nobody else would
/// drive is driven by this thread, for a short time again and again.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/mixed_waiting.hpp>
#include <procpool/detail/result/ready_observer.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// Signals an event when one of some jobs becomes ready. For one thread.
class job_alarm final : public ready_observer, public waitable {
 public:
  /// @param jobs null for those that are no job. @throws ProcessError; as driver::watch()
  explicit job_alarm(std::span<const waited_item> items) : event_(os::event::make()) {
    entries_.resize(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (items[i].what != nullptr) observe(entries_[i], *items[i].what);
    }
  }
  job_alarm(const job_alarm&) = delete;
  job_alarm& operator=(const job_alarm&) = delete;
  ~job_alarm() {
    for (observer_entry& each : entries_) {
      if (each.owner != nullptr) each.what->pool().unwatch(each);  // may have been notified
    }
  }

  [[nodiscard]] int number() const noexcept { return event_.get(); }
  [[nodiscard]] bool ready() const noexcept override {
    return rung_.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool resolved() const noexcept override { return ready(); }

  void on_ready(observer_entry&, const job&) noexcept override {
    rung_.store(true, std::memory_order_release);  // publishes the outcome
    event_.signal();
  }

  /// Whether results become ready while this thread sleeps.
  [[nodiscard]] bool driven() const {
    return !fork_registry::on_library_thread() &&
           std::ranges::all_of(pools_, [](const auto& pool) { return pool->drives_itself(); });
  }
  /// Drives each pool for a short time.
  void drive() {
    constexpr std::chrono::milliseconds turn{1};
    for (const auto& pool : pools_) {
      pool->wait(*this, std::chrono::steady_clock::now() + turn);
    }
  }

 private:
  void observe(observer_entry& entry, job& what) {
    if (std::ranges::find(pools_, &what.pool(), &intrusive_ptr<driver>::get) == pools_.end())
      pools_.emplace_back(&what.pool());
    entry.what = &what;
    entry.owner = this;
    if (what.pool().watch(what, entry)) return;
    entry.owner = nullptr;  // it has become ready just now
    on_ready(entry, what);
  }

  os::event event_;
  std::vector<observer_entry> entries_;  // those with an owner may be in the list of their job
  std::vector<intrusive_ptr<driver>> pools_;
  std::atomic<bool> rung_{false};
};

/// Looks once, or sleeps until @p until. @p alarm: null if there are no jobs to wait for.
PROCPOOL_FUNCTION bool look_at(std::span<const waited_item> items, const job_alarm* alarm,
                               std::vector<bool>& ready, const os::deadline& until) {
  std::vector<int> numbers;
  std::vector<bool> readable;
  for (const waited_item& each : items) {
    if (each.what == nullptr) numbers.push_back(each.number);
  }
  if (alarm != nullptr) numbers.push_back(alarm->number());
  static_cast<void>(wait_for_descriptors(numbers, readable, until));
  ready.clear();
  bool any = false;
  for (std::size_t i = 0, at = 0; i < items.size(); ++i) {
    ready.push_back(items[i].what != nullptr ? items[i].what->ready() : readable[at++]);
    any = any || ready.back();
  }
  return any;
}

PROCPOOL_FUNCTION bool wait_for_items(std::span<const waited_item> items, std::vector<bool>& ready,
                                      const os::deadline& until) {
  const auto is_job = [](const waited_item& each) { return each.what != nullptr; };
  if (items.empty() && !until) return false;
  if (std::ranges::none_of(items, is_job)) return look_at(items, nullptr, ready, until);
  const os::deadline at_once = std::chrono::steady_clock::now();
  if (look_at(items, nullptr, ready, at_once)) return true;
  job_alarm alarm(items);
  if (alarm.driven()) {
    static_cast<void>(look_at(items, &alarm, ready, until));
    return look_at(items, nullptr, ready, at_once);
  }
  do {
    alarm.drive();
    if (look_at(items, nullptr, ready, at_once)) return true;
  } while (!until || std::chrono::steady_clock::now() < *until);
  return false;
}

}  // namespace procpool::detail
