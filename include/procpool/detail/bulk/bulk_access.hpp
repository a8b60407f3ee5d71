// SPDX-License-Identifier: MIT
/// @file
/// Implements bulk_memory.hpp.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/bulk/bulk_memory.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/heap/record_life.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/machine/memory_room.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// What lies in the record of an array.
struct bulk_body {
  std::atomic<std::uint64_t> bytes;  ///< never changes
};

/// The mappings of arrays in this process. One in a process; any thread.
class bulk_mappings final : public fork_handler {
 public:
  using mapping_ptr = std::shared_ptr<const extent_mapping>;

  static bulk_mappings& instance() {
    static constinit os::lazily_found<bulk_mappings> only{
        "bulk mappings", []() -> void* { return new bulk_mappings; }};
    return only.get();
  }

  /// The first @p bytes of an array: a mapping that exists, or a new one.
  mapping_ptr find_or_map(const held_object& object, std::size_t bytes, extent_access access) {
    const key wanted{object.heap()->id(), object.number(), object.generation(), access};
    const std::lock_guard lock(mutex_);
    forget_ended();
    for (entry& each : entries_) {
      if (!(each.what == wanted)) continue;
      auto known = each.mapping.lock();
      if (known != nullptr && known->bytes().size() >= bytes) return known;
    }
    auto fresh = std::make_shared<const extent_mapping>(object, 0, bytes, access);
    entry& place = place_for_another();
    place = {wanted, fresh, nullptr, ++clock_};
    return fresh;
  }

  /// The last handle in this process that uses it is gone. A child keeps the mapping if the array
  /// lives on: measured, the page faults of a fresh mapping of 1 GiB take 45 ms, a pass over it 70.
  void released(const mapping_ptr& mapping) noexcept {
    const std::lock_guard lock(mutex_);
    for (entry& each : entries_) {
      if (each.mapping.lock() != mapping) continue;
      if (process_generation() != 0) each.kept = mapping;
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
    extent_access access = extent_access::read;
    bool operator==(const key&) const noexcept = default;
  };
  struct entry {
    key what{};
    std::weak_ptr<const extent_mapping> mapping{};
    mapping_ptr kept{};  ///< while no handle uses it
    std::uint64_t used = 0;
  };

  // The heap's process is registered first: forks then take the locks in the order that
  // forget_ended() takes them in.
  bulk_mappings() { static_cast<void>(heap_process::instance()); }

  // Nobody will send a handle of an array that has ended.
  void forget_ended() noexcept {
    for (entry& each : entries_) {
      const key& array = each.what;
      if (each.kept != nullptr && !record_is_live(array.heap, array.record, array.generation)) {
        each.kept.reset();
      }
    }
  }

  // An entry whose mapping is gone, or else the one that was not used for longest. Handles keep
  // their mapping if its entry is lost.
  entry& place_for_another() noexcept {
    return *std::ranges::min_element(
        entries_, {}, [](const entry& each) { return each.mapping.expired() ? 0 : each.used; });
  }

  std::mutex mutex_;
  std::array<entry, 8> entries_{};
  std::uint64_t clock_ = 0;
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

PROCPOOL_FUNCTION bulk_memory::~bulk_memory() {
  const bool keep = keep_ && holders_of(object_->record()) > 1;
  object_.reset();
  if (keep) bulk_mappings::instance().released(mapping_);
}

[[noreturn, gnu::cold]] inline void no_memory_for(const char* what, std::uint64_t bytes,
                                                  std::uint64_t room) {
  os::throw_errno(
      concat({"cannot reserve ", bytes, " bytes for ", what, ": ", room, " bytes are available"}),
      ENOMEM);
}

/// In steps: a signal that comes again and again undoes one step at most.
PROCPOOL_FUNCTION void reserve_bulk(const held_object& object, std::uint64_t bytes,
                                    const char* what) {
  constexpr std::uint64_t step = std::uint64_t{16} << 20U;
  constexpr std::uint64_t small = std::uint64_t{1} << 20U;  // not worth reading two files
  if (bytes > small) {
    if (const std::uint64_t room = os::memory_room(); bytes > room)
      no_memory_for(what, bytes, room);
  }
  for (std::uint64_t at = 0; at < bytes; at += step) {
    reserve_extent(object, at, std::min(step, bytes - at));
  }
}

PROCPOOL_FUNCTION bulk_ptr make_bulk(std::uint64_t count, std::size_t element_size,
                                     std::uint64_t type) {
  if (count > heap_places::extent_bytes / element_size) {
    os::throw_errno(concat({"a SharedArray of ", count, " elements of ", element_size,
                            " bytes is larger than 2 TiB"}),
                    EFBIG);
  }
  const std::uint64_t bytes = count * element_size;
  auto object = make_object(object_kind::shared_array, type);
  reserve_bulk(*object, bytes, "a SharedArray");
  // Relaxed: no other process has a handle yet.
  body_as<bulk_body>(object->record()).bytes.store(bytes, std::memory_order_relaxed);
  auto mapping = bulk_mappings::instance().find_or_map(*object, bytes, extent_access::read_write);
  return std::make_shared<const bulk_memory>(std::move(object), std::move(mapping));
}

PROCPOOL_FUNCTION bulk_ptr map_bulk(object_ref object, std::uint64_t bytes) {
  constexpr std::uint64_t large = std::uint64_t{1} << 20U;  // smaller ones are mapped in no time
  auto mapping = bulk_mappings::instance().find_or_map(*object, bytes, extent_access::read_write);
  return std::make_shared<const bulk_memory>(std::move(object), std::move(mapping), bytes >= large);
}

PROCPOOL_FUNCTION void put_bulk(encoder& e, const bulk_ptr& memory, bulk_part part) {
  e.put(part.offset);
  e.put(part.count);
  if (part.count != 0) put_object(e, memory->object());
}

PROCPOOL_FUNCTION bulk_ptr get_bulk(decoder& d, bulk_part& part, std::size_t element_size,
                                    std::uint64_t type, extent_access access) {
  part.offset = d.get<std::uint64_t>();
  part.count = d.get<std::uint64_t>();
  if (part.count == 0) {
    part.offset = 0;
    return nullptr;
  }
  auto object = get_object(d, object_kind::shared_array, type);
  // Relaxed: it was there before the handle travelled.
  const std::uint64_t bytes =
      body_as<bulk_body>(object->record()).bytes.load(std::memory_order_relaxed);
  const std::uint64_t size = std::min(bytes, heap_places::extent_bytes) / element_size;
  if (part.offset > size || part.count > size - part.offset) {
    d.fail("a part of a SharedArray that is not within it");
  }
  auto mapping = bulk_mappings::instance().find_or_map(*object, size * element_size, access);
  return std::make_shared<const bulk_memory>(std::move(object), std::move(mapping));
}

PROCPOOL_FUNCTION void not_in_array(std::size_t offset, std::size_t count, std::size_t size) {
  throw std::out_of_range(
      concat({count, " elements from element ", offset, " on are not in an array of ", size}));
}

}  // namespace procpool::detail
