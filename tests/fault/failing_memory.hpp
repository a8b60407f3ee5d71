// SPDX-License-Identifier: MIT
/// @file
/// Makes allocations of this program fail: operator new, and realloc, from which the library's
/// buffers come. For one source of a program. Nothing fails before arm(), nor in a process that was
/// forked after it.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#include "support/sanitizers.hpp"

namespace failing_memory {

inline std::atomic<bool> armed{false};
inline std::atomic<long> made{0};      ///< attempts since arm(), of all threads
inline std::atomic<long> injected{0};  ///< of these: have failed
inline std::atomic<long> first{0};     ///< the first that fails, counted from 0
inline std::atomic<long> end{0};       ///< the first behind those that fails no more
inline std::atomic<long> live{0};      ///< pieces of operator new there are

inline std::atomic<long>* counted_elsewhere = nullptr;  ///< the same as injected

/// So many allocations succeed, then @p fail of them do not.
inline void arm(long succeed, long fail) noexcept {
  made = injected = 0;
  first = succeed;
  end = fail > std::numeric_limits<long>::max() - succeed ? std::numeric_limits<long>::max()
                                                          : succeed + fail;
  armed = true;
}
inline void disarm() noexcept {
  armed = false;
}

/// Whether this allocation is to fail.
[[nodiscard]] inline bool now() noexcept {
  if (!armed.load(std::memory_order_relaxed)) return false;
  const long number = made.fetch_add(1);
  if (number < first.load() || number >= end.load()) return false;
  ++injected;
  if (counted_elsewhere != nullptr) ++*counted_elsewhere;
  return true;
}

/// In processes forked from this one, the library's too, all is well; but for the next one, if
/// arm_next_child() was called.
inline bool next_child = false;
inline const int calm_children =
    ::pthread_atfork(nullptr, nullptr, [] { armed = std::exchange(next_child, false); });

/// As arm(), but in the next process that this one forks, alone. @param count is in shared memory
inline void arm_next_child(long succeed, long fail, std::atomic<long>& count) noexcept {
  arm(succeed, fail);
  armed = false;
  counted_elsewhere = &count;
  next_child = true;
}

}  // namespace failing_memory

// NOLINTBEGIN: this is what they are. Inlined, g++ would take malloc and free for mismatched.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (failing_memory::now()) throw std::bad_alloc();
  void* memory = std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  ++failing_memory::live;
  return memory;
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (failing_memory::now()) return nullptr;
  void* memory = std::malloc(size != 0 ? size : 1);
  if (memory != nullptr) ++failing_memory::live;
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) --failing_memory::live;
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  operator delete(memory);
}

// The sanitizer has its own.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" void* __libc_realloc(void* memory, std::size_t size);
extern "C" void* realloc(void* memory, std::size_t size) noexcept {
  if (!failing_memory::now()) return __libc_realloc(memory, size);
  errno = ENOMEM;
  return nullptr;
}
#endif
// NOLINTEND
