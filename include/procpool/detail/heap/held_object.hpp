// SPDX-License-Identifier: MIT
/// @file
/// A shared object as this process holds it. Handles (Queue, Lock ...) contain an object_ref; the
/// functions here make objects, and send and receive handles. What is behind them is in
/// this_process.hpp and shared_heap.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>

namespace procpool::detail {

class shared_heap;
struct descriptor_wire;

/// Whether a process may write an extent that it maps.
enum class extent_access : std::uint8_t { read, read_write };

/// Keeps one object alive for this process: as long as it exists, this process is a holder. Any
/// thread.
class held_object {
 public:
  held_object(std::shared_ptr<shared_heap> heap, object_record& record, std::uint32_t number,
              std::uint32_t generation) noexcept;
  held_object(const held_object&) = delete;
  held_object& operator=(const held_object&) = delete;
  /// Gives the object up. The last holder in any process frees it.
  ~held_object();

  [[nodiscard]] object_record& record() const noexcept { return *record_; }
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }
  [[nodiscard]] const std::shared_ptr<shared_heap>& heap() const noexcept { return heap_; }

 private:
  std::shared_ptr<shared_heap> heap_;
  object_record* record_;
  std::uint32_t number_;
  std::uint32_t generation_;
};

using object_ref = std::shared_ptr<held_object>;

/// A new object, whose body is zeros. This process is its only holder.
/// @param type of its elements, see type_tag()
/// @throws ProcessError when the system refuses memory or a descriptor, or 2^20 objects exist
[[nodiscard]] object_ref make_object(object_kind kind, std::uint64_t type = 0);

/// A part of an object's extent, mapped. Unmapped by the destructor. Forked children inherit it.
class extent_mapping {
 public:
  extent_mapping() noexcept = default;
  /// @param offset in the extent in bytes, a multiple of 64 KiB. @param size in bytes, not 0
  /// @throws ProcessError when there is no address space, or the range is not within the 2 TiB of
  /// an extent, or another part of the program has closed the heap's descriptor
  extent_mapping(const held_object& object, std::uint64_t offset, std::size_t size,
                 extent_access access);
  extent_mapping(extent_mapping&& other) noexcept;
  extent_mapping& operator=(extent_mapping&& other) noexcept;
  ~extent_mapping();

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

/// Allocates the pages of a part of an extent, so that no later write can fail.
/// @throws ProcessError if there is not enough memory; nothing is allocated then
void reserve_extent(const held_object& object, std::uint64_t offset, std::uint64_t size);

/// Gives pages of an extent back to the system; they read as zeros. Only whole pages in the range.
void discard_extent(const held_object& object, std::uint64_t offset, std::uint64_t size) noexcept;

/// A handle as it travels.
struct object_wire {
  std::uint64_t heap;
  std::uint32_t record;
  std::uint32_t generation;
  std::uint32_t kind;
  std::uint32_t counted;  ///< 1: it is in transit, and received once
};
static_assert(sizeof(object_wire) == 24);

/// How often a message is received.
enum class handle_delivery : std::uint8_t {
  repeated,  ///< a task's frame: several times, or never. The sender keeps the objects itself
  once,      ///< a result, an item of a Queue: the objects are in transit until it is received
};

/// Keeps the objects whose handles are encoded on this thread while it exists. Outside of any scope
/// a handle that is encoded is in transit at once. Scopes nest.
class handle_scope {
 public:
  /// @throws std::bad_alloc
  explicit handle_scope(handle_delivery how) : how_(how) { open(); }
  handle_scope(const handle_scope&) = delete;
  handle_scope& operator=(const handle_scope&) = delete;
  /// Without commit(), a message that is received once was not sent: nothing is in transit.
  ~handle_scope();

  /// For handle_delivery::repeated. @returns what must be kept until the message has been received
  /// for the last time. Null: nothing
  [[nodiscard]] std::shared_ptr<void> take() noexcept { return std::move(kept_); }
  /// For handle_delivery::once, directly before the message is sent.
  void commit() noexcept;

 private:
  friend object_wire send_object(const object_ref& object);
  friend descriptor_wire send_descriptor(int descriptor);
  struct contents;
  struct deposit;

  void open();
  static handle_scope* innermost() noexcept;
  contents& kept();

  handle_delivery how_;
  std::shared_ptr<contents> kept_;
  handle_scope* outer_ = nullptr;
};

/// A handle for a message. @throws std::bad_alloc
[[nodiscard]] object_wire send_object(const object_ref& object);

/// The object of a handle that was received. Any thread. @returns null: it no longer exists
/// @throws std::invalid_argument: the handle is of another program, or of another kind or type
/// @throws ProcessError when the system refuses memory
[[nodiscard]] object_ref receive_object(const object_wire& wire, object_kind kind,
                                        std::uint64_t type = 0);

/// A number for a type that two processes of one program agree on: from its name and size.
[[nodiscard]] constexpr std::uint64_t hash_of_name(const char* name, std::size_t size) noexcept {
  std::uint64_t hash = 14695981039346656037ULL ^ size;  // FNV-1a
  for (; *name != '\0'; ++name) {
    hash = (hash ^ static_cast<unsigned char>(*name)) * 1099511628211ULL;
  }
  return hash;
}
template <class T>
[[nodiscard]] constexpr std::uint64_t type_tag() noexcept {
  return hash_of_name(__PRETTY_FUNCTION__, sizeof(T));
}

}  // namespace procpool::detail
