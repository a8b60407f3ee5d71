// SPDX-License-Identifier: MIT
/// @file
/// Implements lock_state.hpp.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <stdexcept>

#include <procpool/config.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/sync/lock_state.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION std::uint64_t this_thread_of(owner_id self) noexcept {
  // A forked child has another owner_id. Modules may each have the variable: the number is the
  // same.
  thread_local std::uint64_t known = 0;
  if (known >> 32U != self) [[unlikely]] {
    known = std::uint64_t{self} << 32U | static_cast<std::uint32_t>(PROCPOOL_SYSTEM(gettid()));
  }
  return known;
}

PROCPOOL_FUNCTION std::int32_t pid_of_owner(owner_id owner) noexcept {
  const auto heap = heap_process::instance().heap_if_any();
  if (heap == nullptr || owner == 0 || owner_is_dead(owner)) return 0;
  const slot_state state = slot_access(heap->control(), slot_of(owner)).state();
  return state.generation == generation_of(owner) ? static_cast<std::int32_t>(state.pid) : 0;
}

PROCPOOL_FUNCTION void not_locked(const char* what) {
  throw std::logic_error(what);
}

}  // namespace procpool::detail
