// SPDX-License-Identifier: MIT
/// @file
/// Implements held_object.hpp and heap_of_program.hpp: making, sending and receiving objects.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/heap/descriptor_transfer.hpp>
#include <procpool/detail/heap/heap_of_program.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION std::shared_ptr<shared_heap> use_heap() noexcept {
  try {
    return heap_process::instance().heap();
  } catch (...) {
    return nullptr;
  }
}

PROCPOOL_FUNCTION void join_heap(os::fd file, os::fd store_in, os::fd store_out) {
  heap_process::instance().join(
      shared_heap::adopt({std::move(file), std::move(store_in), std::move(store_out)}));
}

PROCPOOL_FUNCTION held_object::held_object(std::shared_ptr<shared_heap> heap, object_record& record,
                                           std::uint32_t number, std::uint32_t generation) noexcept
    : heap_(std::move(heap)), record_(&record), number_(number), generation_(generation) {}

PROCPOOL_FUNCTION held_object::~held_object() {
  heap_process::instance().give_up(*this);
}

PROCPOOL_FUNCTION object_ref make_object(object_kind kind, std::uint64_t type) {
  return heap_process::instance().make(kind, type);
}

/// Whether a part lies within an extent.
inline void check_extent(std::uint64_t offset, std::uint64_t size) {
  if (size == 0 || offset > heap_places::extent_bytes ||
      size > heap_places::extent_bytes - offset) {
    os::throw_errno("a shared object cannot have more than 2 TiB of data", EFBIG);
  }
}

PROCPOOL_FUNCTION extent_mapping::extent_mapping(const held_object& object, std::uint64_t offset,
                                                 std::size_t size, extent_access access) {
  check_extent(offset, size);
  // Not zero: the pages are freed with the object. Relaxed: read when nobody else has it.
  object.record().data_size.store(1, std::memory_order_relaxed);
  const int protection = access == extent_access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  bytes_ = {object.heap()->map(heap_places::extent_at(object.number()) + offset, size, protection),
            size};
}
PROCPOOL_FUNCTION extent_mapping::extent_mapping(extent_mapping&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})) {}
PROCPOOL_FUNCTION extent_mapping& extent_mapping::operator=(extent_mapping&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}
PROCPOOL_FUNCTION extent_mapping::~extent_mapping() {
  if (!bytes_.empty()) shared_heap::unmap(bytes_.data(), bytes_.size());
}

PROCPOOL_FUNCTION void reserve_extent(const held_object& object, std::uint64_t offset,
                                      std::uint64_t size) {
  check_extent(offset, size);
  object.record().data_size.store(1, std::memory_order_relaxed);  // as in extent_mapping
  object.heap()->reserve(heap_places::extent_at(object.number()) + offset, size);
}

PROCPOOL_FUNCTION void discard_extent(const held_object& object, std::uint64_t offset,
                                      std::uint64_t size) noexcept {
  if (offset > heap_places::extent_bytes || size > heap_places::extent_bytes - offset) return;
  object.heap()->discard(heap_places::extent_at(object.number()) + offset, size);
}

/// A descriptor in the store that this process keeps there; see descriptor_transfer.hpp.
struct handle_scope::deposit {
  std::shared_ptr<shared_heap> heap;
  std::uint64_t ticket = 0;
  bool stays = false;  ///< until it is received
  std::uint32_t process = process_generation();

  deposit(std::shared_ptr<shared_heap> in, std::uint64_t number) noexcept
      : heap(std::move(in)), ticket(number) {}
  deposit(deposit&&) noexcept = default;
  deposit& operator=(deposit&&) = delete;
  ~deposit() {
    if (heap != nullptr && !stays && process == process_generation())
      discard_descriptor(*heap, ticket);
  }
};

struct handle_scope::contents {
  std::vector<object_ref> objects;
  std::vector<deposit> deposits;
};

/// The innermost scope of each thread.
inline os::per_thread_pointer<handle_scope>& open_scope() {
  static constinit os::per_thread_pointer<handle_scope> scope{"handle scope"};
  return scope;
}
/// The key exists before main, so that no later use can fail.
inline const bool open_scope_prepared = open_scope().prepare();

PROCPOOL_FUNCTION void handle_scope::open() {
  outer_ = open_scope().exchange(this);
}
PROCPOOL_FUNCTION handle_scope* handle_scope::innermost() noexcept {
  return open_scope();
}
PROCPOOL_FUNCTION handle_scope::~handle_scope() {
  open_scope() = outer_;
}

PROCPOOL_FUNCTION handle_scope::contents& handle_scope::kept() {
  if (kept_ == nullptr) kept_ = std::make_shared<contents>();
  return *kept_;
}

PROCPOOL_FUNCTION void handle_scope::commit() noexcept {
  if (kept_ == nullptr) return;
  for (const object_ref& each : kept_->objects) {
    // Sequentially consistent: who gives up the last handle looks at it, see this_process.hpp.
    each->record().in_transit.fetch_add(1, std::memory_order_seq_cst);
  }
  for (deposit& each : kept_->deposits) each.stays = true;
  kept_.reset();
}

PROCPOOL_FUNCTION object_wire send_object(const object_ref& object) {
  object_record& record = object->record();
  handle_scope* const scope = handle_scope::innermost();
  const bool once = scope == nullptr || scope->how_ == handle_delivery::once;
  if (scope != nullptr) {
    scope->kept().objects.push_back(object);
  } else {
    record.in_transit.fetch_add(1, std::memory_order_seq_cst);  // as in commit()
  }
  // The kind never changes while the object is held.
  return {object->heap()->id(), object->number(), object->generation(),
          record.kind.load(std::memory_order_relaxed), once ? 1U : 0U};
}

PROCPOOL_FUNCTION descriptor_wire send_descriptor(int descriptor) {
  auto heap = heap_process::instance().heap();
  handle_scope* const scope = handle_scope::innermost();
  const bool once = scope == nullptr || scope->how_ == handle_delivery::once;
  if (scope != nullptr) scope->kept().deposits.reserve(scope->kept().deposits.size() + 1);
  const std::uint64_t ticket = descriptor_store(*heap).deposit(descriptor);
  const descriptor_wire wire{heap->id(), ticket, once ? 1U : 0U};
  if (scope != nullptr) scope->kept().deposits.emplace_back(std::move(heap), ticket);
  return wire;
}

PROCPOOL_FUNCTION object_ref receive_object(const object_wire& wire, object_kind kind,
                                            std::uint64_t type) {
  return heap_process::instance().receive(wire, kind, type);
}

}  // namespace procpool::detail
