// SPDX-License-Identifier: MIT
/// @file
/// The shared heap byte for byte: one sparse memory file for a program and all its descendants. It
/// begins with a control area: a header and a table of processes. Then come the records, one for
/// each shared object (a Queue, a Lock). Each record has an extent for bulk data, at a place that
/// follows from its number. Pages that nobody has written take no memory.
///
/// Every process of the family may write all of it, so nothing read from it is trusted: numbers are
/// checked before use, places are computed and not read, waits end.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <procpool/config.hpp>

namespace procpool::detail {

/// Entries in the table of processes. Entry 0 is no process's: it stands for one that has no entry
/// because the table is full.
inline constexpr std::size_t max_processes = 1024;
inline constexpr std::size_t first_slot = 1;

/// Names a process in the heap: its number in the table of processes and the generation of that
/// entry, in 31 bits. 0: none. A process that gets the entry later has another identity.
using owner_id = std::uint32_t;

/// Set in a word when a process may sleep on it (futex). Whoever changes the word then wakes.
inline constexpr std::uint32_t has_sleepers = 1U << 31U;

[[nodiscard]] constexpr std::size_t slot_of(owner_id id) noexcept {
  return id % max_processes;
}
[[nodiscard]] constexpr std::uint32_t generation_of(owner_id id) noexcept {
  return static_cast<std::uint32_t>((id & ~has_sleepers) / max_processes);
}
[[nodiscard]] constexpr owner_id make_owner_id(std::size_t slot,
                                               std::uint32_t generation) noexcept {
  return static_cast<owner_id>(generation * max_processes + slot);
}

/// The life of an entry in the table of processes.
enum class slot_phase : std::uint8_t {
  free,
  reserved,    ///< by a process that forks, for its child
  live,        ///< of the process `pid`
  dead,        ///< it has ended; records may still name it
  collecting,  ///< `collector` removes its name from the records
};

/// The state of an entry, changed as one word.
struct slot_state {
  slot_phase phase = slot_phase::free;
  std::uint32_t generation = 0;  ///< 21 bits, never 0 once used
  std::uint32_t pid = 0;         ///< 24 bits; while reserved: of the process that forks
  std::uint32_t collector = 0;   ///< 10 bits: an entry

  static constexpr std::uint32_t max_generation = (1U << 21U) - 1;

  [[nodiscard]] constexpr std::uint64_t word() const noexcept {
    return std::uint64_t{pid} | std::uint64_t{static_cast<std::uint8_t>(phase)} << 24U |
           std::uint64_t{generation} << 28U | std::uint64_t{collector} << 49U;
  }
  [[nodiscard]] static constexpr slot_state of(std::uint64_t word) noexcept {
    return {static_cast<slot_phase>(word >> 24U & 15U),
            static_cast<std::uint32_t>(word >> 28U & max_generation),
            static_cast<std::uint32_t>(word & 0xFFFFFFU),
            static_cast<std::uint32_t>(word >> 49U & 1023U)};
  }
  [[nodiscard]] constexpr std::uint32_t next_generation() const noexcept {
    return generation == max_generation ? 1 : generation + 1;
  }
};

/// An entry of the table of processes.
struct alignas(64) process_slot {
  std::atomic<std::uint64_t> state;          ///< a slot_state
  std::atomic<std::uint64_t> since;          ///< CLOCK_BOOTTIME in ns when the process entered
  std::atomic<std::uint64_t> pid_namespace;  ///< inode number of its pid namespace; 0: unknown
};
static_assert(sizeof(process_slot) == 64);

/// Descriptors on their way to another process: see descriptor_store.hpp.
inline constexpr std::size_t max_taken_tickets = 512;
struct ticket_table {
  std::atomic<std::uint32_t> lock;  ///< an owner word
  std::atomic<std::uint32_t> count;
  std::atomic<std::uint64_t> next;
  std::array<std::atomic<std::uint64_t>, max_taken_tickets> taken;
};

struct heap_header {
  std::uint64_t id;                       ///< random; written before any other process exists
  std::atomic<std::uint32_t> record_end;  ///< records from here on were never used
  std::atomic<std::uint32_t> first_free;  ///< a hint: all records before are in use
  alignas(64) ticket_table tickets;
};
static_assert(sizeof(heap_header) <= 8192);
static_assert(offsetof(heap_header, tickets) == 64);

struct heap_control {
  alignas(4096) heap_header header;  // no more than mmap(2) gives
  std::array<std::byte, 8192 - sizeof(heap_header)> unused;
  std::array<process_slot, max_processes> processes;
};
static_assert(offsetof(heap_control, processes) == 8192);

/// The life of a record. `by` is the process that makes or frees it.
enum class record_phase : std::uint8_t { free, building, live, freeing };

struct record_state {
  record_phase phase = record_phase::free;
  std::uint16_t by = 0;          ///< an entry in the table of processes
  std::uint32_t generation = 0;  ///< of the object; handles of earlier objects are refused

  [[nodiscard]] constexpr std::uint64_t word() const noexcept {
    return std::uint64_t{generation} | std::uint64_t{by} << 32U |
           std::uint64_t{static_cast<std::uint8_t>(phase)} << 48U;
  }
  [[nodiscard]] static constexpr record_state of(std::uint64_t word) noexcept {
    return {static_cast<record_phase>(word >> 48U & 3U),
            static_cast<std::uint16_t>(word >> 32U & (max_processes - 1)),
            static_cast<std::uint32_t>(word)};
  }
};

/// What an object is. Part of every handle that travels.
enum class object_kind : std::uint32_t {
  none,
  lock,
  rlock,
  semaphore,
  bounded_semaphore,
  condition,
  event,
  barrier,
  value,
  array,
  queue,
  shared_array,
  ticket,
  manager,
  managed,  ///< an object that a manager's process keeps
};

inline constexpr std::size_t object_body_size = 256;

/// One shared object. The holders are the processes that have a handle of it: one bit for each
/// entry in the table of processes. Setting and clearing a bit twice changes nothing, so a process
/// that finds a dead holder can repeat what another has begun.
struct object_record {
  std::atomic<std::uint64_t> state;       ///< a record_state
  std::atomic<std::uint64_t> type;        ///< a hash of the type of its elements, see type_tag()
  std::atomic<std::uint64_t> data_size;   ///< bytes of the extent that are in use
  std::atomic<std::uint32_t> kind;        ///< an object_kind
  std::atomic<std::uint32_t> in_transit;  ///< handles sent and not yet received
  std::array<std::atomic<std::uint64_t>, max_processes / 64> holders;
  /// Words on which processes sleep until another process acts. If has_sleepers is set when a
  /// holder dies, its reaper wakes them, and they look who has died.
  std::array<std::atomic<std::uint32_t>, 4> wait_words;
  std::array<std::byte, 16> reserved;
  /// More such words, on another cache line: objects with two ends do not disturb each other's.
  alignas(64) std::array<std::atomic<std::uint32_t>, 4> far_wait_words;
  std::array<std::byte, 48> reserved_too;
  alignas(64) std::array<std::byte, object_body_size> body;  ///< of the object's kind
};
static_assert(sizeof(object_record) == 512);
static_assert(offsetof(object_record, holders) == 32);
static_assert(offsetof(object_record, wait_words) == 160);
static_assert(offsetof(object_record, far_wait_words) == 192);
static_assert(offsetof(object_record, body) == 256);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

/// Places in the file, in bytes.
struct heap_places {
  static constexpr std::uint64_t control_bytes = 128 << 10;
  static constexpr std::uint64_t records_at = std::uint64_t{1} << 20;
  static constexpr std::uint32_t max_records = 1U << 20U;
  /// Records are mapped in windows of this many.
  static constexpr std::uint32_t window_records = 2048;
  static constexpr std::uint64_t window_bytes = window_records * sizeof(object_record);
  /// The room that each object has for bulk data: 2 TiB, of which only written pages exist.
  static constexpr std::uint64_t extent_bytes = std::uint64_t{1} << 41;
  static constexpr std::uint64_t file_bytes = extent_bytes * (max_records + 1ULL);

  [[nodiscard]] static constexpr std::uint64_t extent_at(std::uint32_t record) noexcept {
    return extent_bytes * (record + 1ULL);
  }
};
static_assert(sizeof(heap_control) <= heap_places::control_bytes);
static_assert(heap_places::records_at + heap_places::max_records * sizeof(object_record) <=
              heap_places::extent_bytes);

/// A body as the kind of object that it is. @tparam Body standard layout, at most 256 bytes
template <class Body>
[[nodiscard]] Body& body_as(object_record& record) noexcept {
  static_assert(std::is_standard_layout_v<Body> && sizeof(Body) <= object_body_size);
  return *reinterpret_cast<Body*>(record.body.data());
}

}  // namespace procpool::detail
