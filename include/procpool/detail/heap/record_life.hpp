// SPDX-License-Identifier: MIT
/// @file
/// The life of a record: free, building, live, freeing. Who holds it.
///
/// A process sets its bit in the record before it looks whether the object is alive. Who clears the
/// last bit marks the record as `freeing` before it looks whether a bit was set meanwhile. Both are
/// sequentially consistent, so one of them sees the other. A process that dies leaves its bits, and
/// the mark of what it was doing; heap_process::collect() takes them away.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// A message with a handle is received or given up.
inline void arrived(object_record& record) noexcept {
  auto before = record.in_transit.load(std::memory_order_relaxed);  // checked by the exchange
  while (before != 0 && !record.in_transit.compare_exchange_weak(
                            before, before - 1, std::memory_order_seq_cst)) {  // see begin_freeing
  }
}

inline void raise_to(std::atomic<std::uint32_t>& word, std::uint32_t to) noexcept {
  std::uint32_t before = word.load(std::memory_order_relaxed);  // checked by the exchange
  while (before < to && !word.compare_exchange_weak(before, to, std::memory_order_release,
                                                    std::memory_order_relaxed)) {  // see record_end
  }
}

/// The first free record, now `building` by this process.
inline std::uint32_t take_free_record(shared_heap& heap, std::size_t self) {
  heap_header& header = heap.control().header;
  // Relaxed: a hint, which is wrong when another process takes the record.
  std::uint32_t hint = header.first_free.load(std::memory_order_relaxed);
  std::uint32_t number = hint;
  for (int lap = 0; lap < 2; ++lap, number = 0) {
    for (; number < heap_places::max_records; ++number) {
      object_record& record = heap.record(number);
      std::uint64_t word = record.state.load(std::memory_order_relaxed);  // checked below
      const record_state state = record_state::of(word);
      if (state.phase != record_phase::free) continue;
      const record_state building{record_phase::building, static_cast<std::uint16_t>(self),
                                  state.generation + 1};
      if (!record.state.compare_exchange_strong(word, building.word(),
                                                std::memory_order_seq_cst))  // take it
        continue;
      // A hint. Not if another process has freed one meanwhile, and lowered it.
      header.first_free.compare_exchange_strong(hint, number + 1, std::memory_order_relaxed);
      raise_to(header.record_end, number + 1);
      return number;
    }
  }
  throw ProcessError("there are 1048576 shared objects already",
                     std::make_error_code(std::errc::not_enough_memory));
}

inline void clear(object_record& record, object_kind kind, std::uint64_t type) noexcept {
  // Relaxed: published with the state.
  record.type.store(type, std::memory_order_relaxed);
  record.data_size.store(0, std::memory_order_relaxed);
  record.kind.store(static_cast<std::uint32_t>(kind), std::memory_order_relaxed);
  record.in_transit.store(0, std::memory_order_relaxed);
  for (auto& word : record.wait_words) word.store(0, std::memory_order_relaxed);
  for (auto& word : record.far_wait_words) word.store(0, std::memory_order_relaxed);
  std::memset(record.body.data(), 0, record.body.size());
}

/// Before the state is read, and before bits are read by who frees: see @file.
inline void set_holder(object_record& record, owner_id owner) noexcept {
  const std::size_t slot = slot_of(owner);
  record.holders[slot / 64].fetch_or(std::uint64_t{1} << slot % 64, std::memory_order_seq_cst);
}
inline void clear_holder(object_record& record, owner_id owner) noexcept {
  const std::size_t slot = slot_of(owner);
  record.holders[slot / 64].fetch_and(~(std::uint64_t{1} << slot % 64),
                                      std::memory_order_seq_cst);  // as above
}
inline bool is_held(const object_record& record) noexcept {
  if (record.in_transit.load(std::memory_order_seq_cst) != 0) return true;  // as above
  const bool held = std::ranges::any_of(record.holders, [](const auto& word) {
    return word.load(std::memory_order_seq_cst) != 0;  // as above
  });
  // Again: a holder may have sent the object and given it up between the two.
  return held || record.in_transit.load(std::memory_order_seq_cst) != 0;
}

/// How many processes hold the object now. Relaxed: another one may begin or end to hold it.
[[nodiscard]] inline int holders_of(const object_record& record) noexcept {
  int holders = 0;
  for (const auto& word : record.holders) {
    holders += std::popcount(word.load(std::memory_order_relaxed));  // as above
  }
  return holders;
}

/// Marks an object that nobody holds as `freeing` by this process.
inline bool begin_freeing(object_record& record, owner_id self) noexcept {
  std::uint64_t word = record.state.load(std::memory_order_seq_cst);  // see @file
  const record_state state = record_state::of(word);
  if (state.phase != record_phase::live || is_held(record)) return false;
  const record_state freeing{record_phase::freeing, static_cast<std::uint16_t>(slot_of(self)),
                             state.generation};
  if (!record.state.compare_exchange_strong(word, freeing.word(), std::memory_order_seq_cst))
    return false;  // another process frees it
  if (!is_held(record)) return true;
  word = freeing.word();
  record.state.compare_exchange_strong(word, state.word(), std::memory_order_seq_cst);
  return false;
}

inline void finish_freeing(shared_heap& heap, std::uint32_t number) noexcept {
  object_record* const record = heap.find_record(number);
  if (record == nullptr) return;
  if (record->data_size.load(std::memory_order_relaxed) != 0) {  // nobody else uses it
    heap.discard(heap_places::extent_at(number), heap_places::extent_bytes);
  }
  const auto state = record_state::of(record->state.load(std::memory_order_relaxed));  // ours
  record->state.store(record_state{record_phase::free, 0, state.generation}.word(),
                      std::memory_order_seq_cst);  // after the pages are gone
  auto& hint = heap.control().header.first_free;
  std::uint32_t first = hint.load(std::memory_order_relaxed);  // a hint
  while (number < first && !hint.compare_exchange_weak(first, number, std::memory_order_relaxed)) {
  }
}

/// Waits for a process that is about to free the object, and finds that it is still held.
inline bool is_alive(shared_heap& heap, object_record& record, std::uint32_t generation) {
  constexpr int max_looks = 4000;  // 0.2 s and more
  for (int look = 0; look < max_looks; ++look) {
    std::uint64_t word = record.state.load(std::memory_order_seq_cst);  // after the bit: see @file
    const record_state state = record_state::of(word);
    if (state.generation != generation) return false;
    if (state.phase == record_phase::live) return true;
    if (state.phase != record_phase::freeing) return false;
    const auto by = slot_access(heap.control(), state.by).state();
    if (state.by >= first_slot &&
        by.phase != slot_phase::live) {  // it died while it freed the object
      record.state.compare_exchange_strong(word,
                                           record_state{record_phase::live, 0, generation}.word(),
                                           std::memory_order_seq_cst);  // take it back
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return false;
}

}  // namespace procpool::detail
