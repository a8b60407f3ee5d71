// SPDX-License-Identifier: MIT
/// @file
/// The pause instruction for loops that poll memory.
#pragma once

namespace procpool::detail {

/// Tells the CPU that this thread polls: the other thread of the core gets more of it.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace procpool::detail
