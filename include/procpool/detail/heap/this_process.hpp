// SPDX-License-Identifier: MIT
/// @file
/// This process in the shared heap: which objects it holds, its entry in the table of processes,
/// what a fork hands to the child. Implements held_object.hpp and owner_lock.hpp.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <unordered_map>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/heap/collection.hpp>
#include <procpool/detail/heap/heap_of_program.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/record_life.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// One in a process.
class heap_process final : public fork_handler {
 public:
  static heap_process& instance() {
    static constinit os::lazily_found<heap_process> only{
        "heap process", []() -> void* { return new heap_process; }};
    return only.get();
  }

  /// The heap of this program, made if there is none. @throws ProcessError
  std::shared_ptr<shared_heap> heap() {
    const std::lock_guard lock(mutex_);
    return heap_locked();
  }
  /// Null if there is none.
  std::shared_ptr<shared_heap> heap_if_any() {
    const std::lock_guard lock(mutex_);
    return heap_.lock();
  }
  /// For a spawned process: its parent's heap, kept until the process ends.
  void join(std::shared_ptr<shared_heap> heap) {
    const std::lock_guard lock(mutex_);
    pinned_ = std::move(heap);
    heap_ = pinned_;
    owner_.store(0, std::memory_order_relaxed);  // one thread
  }

  owner_id owner() {
    const owner_id known = owner_.load(std::memory_order_relaxed);  // guards no other data
    if (known != 0) [[likely]]
      return known;
    const std::lock_guard lock(mutex_);
    return owner_locked();
  }

  object_ref make(object_kind kind, std::uint64_t type) {
    const std::lock_guard lock(mutex_);
    auto heap = heap_locked();
    const owner_id self = owner_locked();
    const std::uint32_t number = take_free_record(*heap, slot_of(self));
    object_record& record = heap->record(number);
    const auto building = record_state::of(record.state.load(std::memory_order_relaxed));  // ours
    clear(record, kind, type);
    set_holder(record, self);
    record.state.store(record_state{record_phase::live, 0, building.generation}.word(),
                       std::memory_order_seq_cst);  // publishes the record; after the bit
    return hold(heap, record, number, building.generation);
  }

  object_ref receive(const object_wire& wire, object_kind kind, std::uint64_t type) {
    auto object = find_or_hold(wire);
    if (object == nullptr) return nullptr;
    object_record& record = object->record();
    if (wire.counted != 0) arrived(record);
    if (record.kind.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(kind) ||
        record.type.load(std::memory_order_relaxed) != type) {  // never change while it is held
      throw std::invalid_argument("the handle received is of a shared object of another type");
    }
    return object;
  }

  void give_up(held_object& object) noexcept {
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      const auto entry = holdings_.find(object.number());
      if (entry == holdings_.end() || --entry->second.count != 0) return;
      holdings_.erase(entry);
      if (owner_.load(std::memory_order_relaxed) == 0) return;  // a child without an entry
      clear_holder(object.record(), owner_.load(std::memory_order_relaxed));  // under the mutex
      last = begin_freeing(object.record(), owner_.load(std::memory_order_relaxed));
    }
    if (last) finish_freeing(*object.heap(), object.number());
  }

  void collect(bool look) noexcept {
    const auto heap = heap_if_any();
    if (heap == nullptr) return;
    const std::lock_guard lock(mutex_);
    collection(*heap, owner_.load(std::memory_order_relaxed)).run(look);  // under the mutex
  }

  void reaped(pid_t pid) noexcept {
    const auto heap = heap_if_any();
    if (heap == nullptr) return;
    for (std::size_t slot = first_slot; slot < max_processes; ++slot) {
      slot_access access(heap->control(), slot);
      const slot_state now = access.state();
      if (now.phase != slot_phase::live || now.pid != static_cast<std::uint32_t>(pid)) continue;
      // The number may be another process's by now.
      if (access.has_ended(make_owner_id(slot, now.generation))) {
        wake_those_who_wait_for(*heap, slot);
      }
    }
  }

  // fork_handler
  void lock_for_fork() override {
    mutex_.lock();
    child_owner_ = 0;
    forker_ = PROCPOOL_SYSTEM(getpid());
    if (holdings_.empty()) return;
    const auto heap = heap_.lock();
    if (heap == nullptr) return;
    child_owner_ = reserve_slot(*heap);  // 0: the child enters when there is room again
    if (child_owner_ != 0) mark_holdings(*heap, child_owner_);
  }
  void release_locks() noexcept override {
    if (PROCPOOL_SYSTEM(getpid()) != forker_) enter_child();
    mutex_.unlock();
  }
  void fork_failed() noexcept override {
    const std::lock_guard lock(mutex_);
    const auto heap = heap_.lock();
    if (heap == nullptr || child_owner_ == 0) return;
    slot_access access(heap->control(), slot_of(child_owner_));
    const slot_state reserved = access.state();
    if (reserved.phase == slot_phase::reserved &&
        reserved.generation == generation_of(child_owner_)) {
      access.change(reserved, {slot_phase::dead, reserved.generation, 0, 0});
    }
    child_owner_ = 0;
    collection(*heap, owner_.load(std::memory_order_relaxed)).run(false);  // under the mutex
  }

 private:
  // In the child, before any other handler gives up objects. One thread.
  void enter_child() noexcept {
    pinned_ = heap_.lock();                      // the children of a program stay in its heap
    owner_.store(0, std::memory_order_relaxed);  // one thread
    if (pinned_ == nullptr || child_owner_ == 0) return;
    slot_access access(pinned_->control(), slot_of(child_owner_));
    if (access.enter(child_owner_, forker_)) {
      owner_.store(child_owner_, std::memory_order_relaxed);  // one thread
    }
  }

  struct holding {
    std::weak_ptr<held_object> object;
    unsigned count = 0;  ///< held_objects that exist, also those about to be destroyed
    std::uint32_t generation = 0;
  };

  heap_process() = default;

  std::shared_ptr<shared_heap> heap_locked() {
    if (auto known = heap_.lock()) return known;
    auto fresh = shared_heap::make();
    heap_ = fresh;
    owner_.store(0, std::memory_order_relaxed);  // under the mutex
    return fresh;
  }

  owner_id owner_locked() {
    const owner_id known = owner_.load(std::memory_order_relaxed);  // under the mutex
    if (known != 0) return known;
    const auto heap = heap_locked();
    const owner_id fresh = reserve_slot(*heap);
    const pid_t self = PROCPOOL_SYSTEM(getpid());
    if (fresh == 0 || !slot_access(heap->control(), slot_of(fresh)).enter(fresh, self)) {
      throw ProcessError("too many processes use the shared objects of this program at once",
                         std::make_error_code(std::errc::resource_unavailable_try_again));
    }
    owner_.store(fresh, std::memory_order_relaxed);  // under the mutex
    mark_holdings(*heap, fresh);                     // inherited, if the fork found no entry
    return fresh;
  }

  // @returns 0: all are in use
  owner_id reserve_slot(shared_heap& heap) noexcept {
    const pid_t self = PROCPOOL_SYSTEM(getpid());
    for (int attempt = 0; attempt < 2; ++attempt) {
      for (std::size_t slot = first_slot; slot < max_processes; ++slot) {
        if (const owner_id taken = slot_access(heap.control(), slot).reserve(self)) return taken;
      }
      collection(heap, owner_.load(std::memory_order_relaxed)).run(true);  // under the mutex
    }
    return 0;
  }

  void mark_holdings(shared_heap& heap, owner_id owner) noexcept {
    for (const auto& [number, each] : holdings_) {
      object_record* const record = heap.find_record(number);
      // Another object may be there if nobody knew that this process held the old one.
      const auto now =
          record == nullptr
              ? record_state{}
              : record_state::of(record->state.load(std::memory_order_seq_cst));  // before the bit
      if (now.generation == each.generation) set_holder(*record, owner);
    }
  }

  object_ref find_or_hold(const object_wire& wire) {
    object_ref object;  // before the lock: its destructor takes the mutex
    auto heap = heap_if_any();
    if (heap == nullptr || heap->id() != wire.heap || wire.record >= heap_places::max_records) {
      throw std::invalid_argument("the handle received is of a shared object of another program");
    }
    object_record& record = heap->record(wire.record);
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      const owner_id self = owner_locked();
      if (const auto known = holdings_.find(wire.record); known != holdings_.end()) {
        object = known->second.object.lock();
        if (object != nullptr && object->generation() == wire.generation) return object;
      }
      set_holder(record, self);
      if (is_alive(*heap, record, wire.generation)) {
        return hold(heap, record, wire.record, wire.generation);
      }
      if (!holdings_.contains(wire.record)) last = take_back(record);
    }
    if (last) finish_freeing(*heap, wire.record);
    return nullptr;
  }

  // Clears this process's bit, which may have hidden the end of the object's last holder.
  bool take_back(object_record& record) noexcept {
    const owner_id self = owner_.load(std::memory_order_relaxed);  // under the mutex
    clear_holder(record, self);
    return begin_freeing(record, self);
  }

  // This process has set its bit.
  object_ref hold(const std::shared_ptr<shared_heap>& heap, object_record& record,
                  std::uint32_t number, std::uint32_t generation) {
    try {
      holding& entry = holdings_[number];
      auto object = std::make_shared<held_object>(heap, record, number, generation);
      entry.object = object;
      entry.generation = generation;
      ++entry.count;
      return object;
    } catch (...) {
      const auto entry = holdings_.find(number);
      if (entry == holdings_.end() || entry->second.count == 0) {
        holdings_.erase(number);
        if (take_back(record)) finish_freeing(*heap, number);
      }
      throw;
    }
  }

  static void wake_sleepers(std::array<std::atomic<std::uint32_t>, 4>& words) noexcept {
    for (auto& word : words) {
      const auto value = word.load(std::memory_order_relaxed);  // the sleeper has set it long ago
      if ((value & has_sleepers) != 0) wake_all(word);
    }
  }

  static void wake_those_who_wait_for(shared_heap& heap, std::size_t slot) noexcept {
    for (std::uint32_t number = 0; number < heap.record_end(); ++number) {
      object_record* const record = heap.find_record(number);
      if (record == nullptr) return;
      const auto bits = record->holders[slot / 64].load(std::memory_order_relaxed);  // a slice else
      if ((bits >> slot % 64 & 1U) == 0) continue;
      wake_sleepers(record->wait_words);
      wake_sleepers(record->far_wait_words);
    }
  }

  std::mutex mutex_;
  std::weak_ptr<shared_heap> heap_;
  std::shared_ptr<shared_heap> pinned_;  ///< in children: it stays until the process ends
  std::atomic<owner_id> owner_{0};       ///< this process; 0: not in the table yet
  owner_id child_owner_ = 0;             ///< between lock_for_fork() and abandon()
  pid_t forker_ = 0;                     ///< likewise
  std::unordered_map<std::uint32_t, holding> holdings_;  ///< by number of the record
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

/// Whether somebody still holds the object of a record that this process does not hold.
inline bool record_is_live(std::uint64_t heap_id, std::uint32_t number, std::uint32_t generation) {
  const auto heap = heap_process::instance().heap_if_any();
  if (heap == nullptr || heap->id() != heap_id) return false;
  const object_record* const record = heap->find_record(number);
  if (record == nullptr) return false;
  const auto now = record_state::of(record->state.load(std::memory_order_relaxed));  // a hint
  return now.phase == record_phase::live && now.generation == generation;
}

}  // namespace procpool::detail
