// SPDX-License-Identifier: MIT
/// @file
/// The objects that a manager's process keeps. Each has an anchor in the shared heap, a record that
/// is held by all processes which have a proxy of the object, and not by the server. When the
/// anchor has ended, the object is dropped.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/manager/managed_object.hpp>

namespace procpool::detail {

/// Any thread.
class managed_objects {
 public:
  explicit managed_objects(shared_heap& heap) noexcept : heap_(heap) {}

  /// @returns null if there is none
  [[nodiscard]] std::shared_ptr<managed_object> find(std::uint32_t record,
                                                     std::uint32_t generation) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(record);
    if (found == objects_.end() || found->second.generation != generation) return nullptr;
    return found->second.object;
  }

  /// @returns false: there is one, or no such record
  [[nodiscard]] bool add(std::uint32_t record, std::uint32_t generation,
                         std::shared_ptr<managed_object> object) {
    if (!is_anchored(record, generation)) return false;
    std::shared_ptr<managed_object> before;  // destroyed without the mutex
    const std::lock_guard lock(mutex_);
    entry& place = objects_[record];
    if (place.object != nullptr && place.generation == generation) return false;
    before = std::exchange(place.object, std::move(object));
    place.generation = generation;
    return true;
  }

  /// Destroys the objects whose anchors have ended.
  void drop_ended() {
    std::vector<std::shared_ptr<managed_object>> ended;  // destroyed without the mutex
    const std::lock_guard lock(mutex_);
    for (auto each = objects_.begin(); each != objects_.end();) {
      const auto here = each++;
      if (is_anchored(here->first, here->second.generation)) continue;
      ended.push_back(std::move(here->second.object));
      objects_.erase(here);
    }
  }

  [[nodiscard]] bool empty() {
    const std::lock_guard lock(mutex_);
    return objects_.empty();
  }

  [[nodiscard]] std::mutex& mutex() noexcept { return mutex_; }

 private:
  struct entry {
    std::uint32_t generation = 0;
    std::shared_ptr<managed_object> object;
  };

  [[nodiscard]] bool is_anchored(std::uint32_t number, std::uint32_t generation) noexcept {
    if (number >= heap_places::max_records) return false;
    object_record* const record = heap_.find_record(number);
    if (record == nullptr) return true;  // it cannot be seen now
    // The anchor has left nothing that is read after it.
    const auto state = record_state::of(record->state.load(std::memory_order_relaxed));
    const bool exists = state.phase == record_phase::live || state.phase == record_phase::freeing;
    return exists && state.generation == generation;
  }

  shared_heap& heap_;
  std::mutex mutex_;
  std::unordered_map<std::uint32_t, entry> objects_;  ///< by record
};

}  // namespace procpool::detail
