// SPDX-License-Identifier: MIT
/// @file
/// An Event is one word of its record, wait_words[0]: bit 0 is the flag, bits 1 to 30 count how
/// often it was set, bit 31 is has_sleepers. The count lets a waiter see a set() that was followed
/// by a clear() before it woke.
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail {

[[nodiscard]] inline bool event_is_set(const object_record& record) noexcept {
  return (record.wait_words[0].load(std::memory_order_acquire) & 1U) != 0;  // with what was before
}
void set_event(object_record& record) noexcept;
void clear_event(object_record& record) noexcept;
/// @returns false: the time is over, and it was not set meanwhile
[[nodiscard]] bool wait_for_event(object_record& record, const os::deadline& until);

}  // namespace procpool::detail
