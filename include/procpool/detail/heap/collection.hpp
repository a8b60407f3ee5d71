// SPDX-License-Identifier: MIT
/// @file
/// Takes the names of processes that have ended out of all records, and frees objects that nobody
/// holds any more. Any process may do it, several at once; one that dies meanwhile is replaced.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/record_life.hpp>
#include <procpool/detail/heap/shared_heap.hpp>

namespace procpool::detail {

class collection {
 public:
  /// @param self the calling process; 0: it has no entry
  collection(shared_heap& heap, owner_id self) noexcept : heap_(heap), self_(self) {}

  /// @param look whether to ask the system about processes that are not known to have ended
  void run(bool look) noexcept {
    bool any = false;
    for (std::size_t slot = first_slot; slot < max_processes; ++slot) any |= claim(slot, look);
    if (!any) return;
    for (std::uint32_t number = 0; number < heap_.record_end(); ++number) {
      object_record* const record = heap_.find_record(number);
      if (record == nullptr) return;  // those that are left stay `collecting` until another comes
      visit(*record, number);
    }
    for (std::size_t slot = first_slot; slot < max_processes; ++slot) {
      if (is_claimed(slot)) slot_access(heap_.control(), slot).free(claimed_state(slot));
    }
  }

 private:
  bool claim(std::size_t slot, bool look) noexcept {
    slot_access access(heap_.control(), slot);
    slot_state now = access.state();
    if (look && now.phase == slot_phase::live && make_owner_id(slot, now.generation) != self_) {
      static_cast<void>(access.has_ended(make_owner_id(slot, now.generation)));
      now = access.state();
    }
    if (!may_collect(access, now)) return false;
    const slot_state mine{slot_phase::collecting, now.generation, now.pid,
                          static_cast<std::uint32_t>(slot_of(self_))};
    if (!access.change(now, mine)) return false;
    claimed_[slot / 64] |= std::uint64_t{1} << slot % 64;
    return true;
  }

  // Reserved entries of children that never came, after a minute.
  [[nodiscard]] bool may_collect(const slot_access& access, const slot_state& now) const noexcept {
    if (now.phase == slot_phase::dead) return true;
    if (now.phase == slot_phase::reserved) {
      constexpr std::uint64_t patience = 60'000'000'000;  // ns
      return access.since() != 0 && boot_time() > access.since() + patience;
    }
    if (now.phase != slot_phase::collecting || now.collector < first_slot) return false;
    return slot_access(heap_.control(), now.collector).state().phase != slot_phase::live;
  }

  [[nodiscard]] bool is_claimed(std::size_t slot) const noexcept {
    return (claimed_[slot / 64] >> slot % 64 & 1U) != 0;
  }
  [[nodiscard]] slot_state claimed_state(std::size_t slot) const noexcept {
    return slot_access(heap_.control(), slot).state();
  }

  void visit(object_record& record, std::uint32_t number) noexcept {
    std::uint64_t word = record.state.load(std::memory_order_seq_cst);  // see record_life.hpp
    const record_state state = record_state::of(word);
    if (state.phase == record_phase::building && is_claimed(state.by)) {
      take_over(record, number, word);
    } else if (state.phase == record_phase::freeing && is_claimed(state.by)) {
      record.state.compare_exchange_strong(
          word, record_state{record_phase::live, 0, state.generation}.word(),
          std::memory_order_seq_cst);  // it is freed below
    }
    clear_claimed(record);
    // Also without a bit of theirs: they may have died after they had cleared it.
    if (state.phase != record_phase::free && begin_freeing(record, self_)) {
      finish_freeing(heap_, number);
    }
  }

  void clear_claimed(object_record& record) const noexcept {
    for (std::size_t i = 0; i < claimed_.size(); ++i) {
      // Relaxed: bits of the dead do not appear any more.
      if (claimed_[i] == 0 ||
          (record.holders[i].load(std::memory_order_relaxed) & claimed_[i]) == 0)
        continue;
      record.holders[i].fetch_and(~claimed_[i], std::memory_order_seq_cst);  // see record_life.hpp
    }
  }

  void take_over(object_record& record, std::uint32_t number, std::uint64_t word) noexcept {
    const record_state state = record_state::of(word);
    const record_state mine{record_phase::freeing, static_cast<std::uint16_t>(slot_of(self_)),
                            state.generation};
    if (record.state.compare_exchange_strong(word, mine.word(), std::memory_order_seq_cst)) {
      finish_freeing(heap_, number);
    }
  }

  shared_heap& heap_;
  const owner_id self_;
  std::array<std::uint64_t, max_processes / 64> claimed_{};  ///< entries, as bits
};

}  // namespace procpool::detail
