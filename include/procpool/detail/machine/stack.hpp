// SPDX-License-Identifier: MIT
/// @file
/// The stack of the calling thread, and a larger stack for a forked process.
///
/// A forked child runs on a copy of the forking thread's stack. That may be a helper thread's or a
/// coroutine's 64 KiB, while a fresh process has RLIMIT_STACK.
#pragma once

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>

#include <procpool/config.hpp>
#include <procpool/detail/base/sanitizers.hpp>
#include <procpool/detail/machine/address_space.hpp>

#if PROCPOOL_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

namespace procpool::detail::os {

/// The calling thread's stack, as thread_stack() caches it.
struct stack_facts {
  const std::byte* low = nullptr;
  std::size_t size = 0;  ///< in bytes; 0: unknown
  bool queried = false;
};
inline constinit thread_local stack_facts known_stack{};

/// The calling thread's stack; empty if unknown. Queried once per thread (pthread_getattr_np(3)).
inline std::span<const std::byte> thread_stack() {
  stack_facts& known = known_stack;
  if (!known.queried) {
    known.queried = true;
    pthread_attr_t attributes;
    if (PROCPOOL_SYSTEM(pthread_getattr_np(pthread_self(), &attributes)) == 0) {
      void* low = nullptr;
      pthread_attr_getstack(&attributes, &low, &known.size);
      pthread_attr_destroy(&attributes);
      known.low = static_cast<const std::byte*>(low);
    }
  }
  return {known.low, known.size};
}

/// The guard pages below a stack that run_on_process_stack() made; an access to them is a stack
/// overflow. Empty in most processes. Written while there is one thread.
struct stack_guard {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;

  [[nodiscard]] bool holds(std::uintptr_t address) const noexcept {
    return begin <= address && address < end;
  }
};
inline constinit stack_guard guard_of_process_stack{};

/// The stack size of a fresh process in bytes (RLIMIT_STACK), at most 1 GiB; 0 if unknown.
inline std::size_t wanted_stack() noexcept {
  constexpr std::size_t max_size = std::size_t{1} << 30;
  rlimit limit{};
  if (PROCPOOL_SYSTEM(getrlimit(RLIMIT_STACK, &limit)) != 0) return 0;
  return std::min<rlim_t>(limit.rlim_cur, max_size);
}

/// Bytes left below the caller's frame; 0 on a stack other than the thread's own, such as a
/// coroutine's; nullopt if unknown.
[[gnu::noinline]] inline std::optional<std::size_t> stack_left() {
  const auto stack = thread_stack();
  if (stack.empty()) return std::nullopt;
  const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
  if (here < stack.data() || here >= stack.data() + stack.size()) return 0;
  return static_cast<std::size_t>(here - stack.data());
}

/// A new stack for a process, never unmapped. The kernel allocates its pages on first touch.
class process_stack {
 public:
  /// Tries to reserve @p wanted bytes, then less, but always more than @p current; empty on
  /// failure.
  static process_stack reserve(std::size_t wanted, std::size_t current) {
    process_stack made;
    const std::size_t room = static_cast<std::size_t>(std::min<std::uint64_t>(
        wanted, address_space_left() / 4));  // the rest is for the heap of the process
    for (std::size_t size = room / page * page; size > current && size > guard; size /= 2) {
      if (made.map(size / page * page)) break;
    }
    return made;
  }

  [[nodiscard]] explicit operator bool() const noexcept { return size_ != 0; }
  [[nodiscard]] std::byte* low() const noexcept { return low_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  static constexpr std::size_t page = std::size_t{64} << 10;  // the largest page of any kernel
  static constexpr std::size_t guard = std::size_t{1} << 20;  // as below the kernel's own stacks

  // Not MAP_GROWSDOWN: another mapping can end up directly below such a mapping, and its growth is
  // not limited to the requested size.
  bool map(std::size_t size) noexcept {
    void* const at =
        PROCPOOL_SYSTEM(mmap(nullptr, guard + size, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
    if (at == MAP_FAILED) return false;
    auto* const low = static_cast<std::byte*>(at) + guard;
    if (PROCPOOL_SYSTEM(mprotect(low, size, PROT_READ | PROT_WRITE)) != 0) {
      PROCPOOL_SYSTEM(munmap(at, guard + size));
      return false;
    }
    PROCPOOL_SYSTEM(madvise(low, size, MADV_NOHUGEPAGE));  // allocate one small page at a time
    low_ = low;
    size_ = size;
    guard_of_process_stack = {reinterpret_cast<std::uintptr_t>(at),
                              reinterpret_cast<std::uintptr_t>(low)};
    return true;
  }

  std::byte* low_ = nullptr;
  std::size_t size_ = 0;
};

/// The parameters of enter_stack(), to which makecontext(3) can pass only ints.
struct stack_entry {
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  const std::byte* low = nullptr;
  std::size_t size = 0;
};
inline constinit thread_local stack_entry entry_of_stack{};

[[noreturn]] inline void enter_stack() {
  const stack_entry entry = entry_of_stack;
#if PROCPOOL_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  known_stack = {entry.low, entry.size, true};
  entry.body(entry.argument);
  std::abort();  // it must not return
}

/// Implements run_on_process_stack(); returns if the process stays on its current stack.
inline void change_to_process_stack(void (*body)(void*), void* argument) {
  const std::size_t wanted = wanted_stack();
  const std::size_t left = stack_left().value_or(wanted);
  if (left < wanted / 4 * 3) {
    const process_stack stack = process_stack::reserve(wanted, left);
    ucontext_t context;
    if (stack && getcontext(&context) == 0) {
      context.uc_stack.ss_sp = stack.low();
      context.uc_stack.ss_size = stack.size();
      context.uc_link = nullptr;
      makecontext(&context, &enter_stack, 0);
      entry_of_stack = {body, argument, stack.low(), stack.size()};
#if PROCPOOL_ADDRESS_SANITIZER
      void* left_behind = nullptr;
      __sanitizer_start_switch_fiber(&left_behind, stack.low(), stack.size());
#endif
      setcontext(&context);
    }
  }
}

/// Calls body(argument), which must not return, in a forked child with one thread. If the current
/// stack is much smaller than that of a fresh process, switches to a new one first; without memory
/// for it, stays. The old stack is left as it is. Never throws into the parent's frames below.
[[noreturn]] inline void run_on_process_stack(void (*body)(void*), void* argument) noexcept {
  try {
    change_to_process_stack(body, argument);
  } catch (...) {  // out of memory while reading /proc
  }
  body(argument);
  std::abort();  // it must not return
}

}  // namespace procpool::detail::os
