// SPDX-License-Identifier: MIT
/// @file
/// The segments of queues that this process has mapped. Handles of the same queue share them, and a
/// worker keeps them from task to task: to map a segment anew for one value takes ten times as long
/// as to put it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include <procpool/config.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/queue/shared_queue.hpp>

namespace procpool::detail {

/// One in a process; any thread.
class window_cache final : public fork_handler {
 public:
  using windows_ptr = std::shared_ptr<queue_windows>;

  static window_cache& instance() {
    static constinit os::lazily_found<window_cache> only{
        "queue windows", []() -> void* { return new window_cache; }};
    return only.get();
  }

  windows_ptr find_or_make(const held_object& object) {
    const key wanted{object.heap()->id(), object.number(), object.generation()};
    const std::lock_guard lock(mutex_);
    forget_ended();
    for (entry& each : entries_) {
      if (!(each.what == wanted)) continue;
      if (auto known = each.windows.lock()) return known;
    }
    auto fresh = std::make_shared<queue_windows>();
    place_for_another() = {wanted, fresh, nullptr, ++clock_};
    return fresh;
  }

  /// A handle in this process has gone, which had these.
  void released(const windows_ptr& windows) noexcept {
    const std::lock_guard lock(mutex_);
    for (entry& each : entries_) {
      if (each.windows.lock() != windows) continue;
      if (process_generation() != 0) each.kept = windows;
      each.used = ++clock_;
    }
    forget_ended();
  }

  void lock_for_fork() override { mutex_.lock(); }
  void release_locks() noexcept override { mutex_.unlock(); }

 private:
  struct key {
    std::uint64_t heap = 0;
    std::uint32_t record = 0;
    std::uint32_t generation = 0;
    bool operator==(const key&) const noexcept = default;
  };
  struct entry {
    key what{};
    std::weak_ptr<queue_windows> windows{};
    windows_ptr kept{};  ///< also while no handle uses it
    std::uint64_t used = 0;
  };

  // The heap's process is registered first: forks then take the locks in the order that
  // forget_ended() takes them in.
  window_cache() { static_cast<void>(heap_process::instance()); }

  void forget_ended() noexcept {
    for (entry& each : entries_) {
      const key& queue = each.what;
      if (each.kept != nullptr && !record_is_live(queue.heap, queue.record, queue.generation)) {
        each.kept.reset();
      }
    }
  }

  // An entry whose windows are gone, or else the one that was not used for longest.
  entry& place_for_another() noexcept {
    return *std::ranges::min_element(
        entries_, {}, [](const entry& each) { return each.windows.expired() ? 0 : each.used; });
  }

  std::mutex mutex_;
  std::array<entry, 16> entries_{};
  std::uint64_t clock_ = 0;
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

PROCPOOL_FUNCTION shared_queue::windows_of_queue::windows_of_queue(const held_object& object)
    : windows_(window_cache::instance().find_or_make(object)) {}
PROCPOOL_FUNCTION shared_queue::windows_of_queue::~windows_of_queue() {
  window_cache::instance().released(windows_);
}

}  // namespace procpool::detail
