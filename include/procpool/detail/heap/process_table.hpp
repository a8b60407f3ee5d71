// SPDX-License-Identifier: MIT
/// @file
/// The table of processes of a shared heap: entering it, and finding out who has ended.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/machine/small_file.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Nanoseconds since the machine started, the clock that proc(5) gives a process's start in.
[[nodiscard]] inline std::uint64_t boot_time() noexcept {
  timespec now{};
  PROCPOOL_SYSTEM(clock_gettime(CLOCK_BOOTTIME, &now));
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// The pid namespace of this process; 0 if it is unknown. Numbers of processes mean nothing in
/// another one (pid_namespaces(7)).
[[nodiscard]] inline std::uint64_t pid_namespace() noexcept {
  struct stat about {};
  if (PROCPOOL_SYSTEM(stat("/proc/self/ns/pid", &about)) != 0) return 0;
  return about.st_ino;
}

/// When a process started, in ns since the machine started; nullopt if /proc does not tell.
[[nodiscard]] inline std::optional<std::uint64_t> start_of(pid_t pid) {
  std::array<char, 32> self{};  // another pid namespace's /proc shows another number here
  const auto size = PROCPOOL_SYSTEM(readlink("/proc/self", self.data(), self.size()));
  const auto length = static_cast<std::size_t>(size < 0 ? 0 : size);
  if (os::leading_number({self.data(), length}) != PROCPOOL_SYSTEM(getpid())) return std::nullopt;
  const std::string text = os::read_small_file(concat({"/proc/", pid, "/stat"}));
  const auto name_end = text.rfind(')');  // the name may contain anything
  if (name_end == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(text).substr(name_end + 1);
  constexpr int fields_before = 20;  // starttime is field 22, the name is field 2 (proc(5))
  for (int i = 0; i < fields_before; ++i) static_cast<void>(os::next_field(rest, ' '));
  const std::int64_t ticks = os::leading_number(rest);
  const long rate = PROCPOOL_SYSTEM(sysconf(_SC_CLK_TCK));
  if (ticks < 0 || rate <= 0) return std::nullopt;
  return static_cast<std::uint64_t>(ticks) * (1'000'000'000U / static_cast<std::uint64_t>(rate));
}

/// Whether the process @p pid of this pid namespace, which entered the table at @p since, runs. A
/// zombie does not. True when the system does not tell.
[[nodiscard]] inline bool process_runs(pid_t pid, std::uint64_t since) noexcept {
  if (pid <= 0) return false;
  const os::fd process(static_cast<int>(PROCPOOL_SYSTEM(syscall(SYS_pidfd_open, pid, 0U))));
  // EINVAL, ENOENT: the number is that of a thread by now, so the process has ended.
  if (!process && (errno == ESRCH || errno == EINVAL || errno == ENOENT)) return false;
  if (!process && PROCPOOL_SYSTEM(kill(pid, 0)) != 0 && errno == ESRCH) return false;
  try {
    if (process && os::wait_readable(process.get(), std::chrono::steady_clock::now())) return false;
    // Another process may have the number by now. It started after the entry was made.
    constexpr std::uint64_t tolerance = 50'000'000;  // ns; /proc counts in 10 ms
    const auto start = start_of(pid);
    return !start || *start < since + tolerance;
  } catch (...) {  // no memory
    return true;
  }
}

/// The entry of one process. Functions that change it return whether they did: another process may
/// have been faster.
class slot_access {
 public:
  slot_access(heap_control& control, std::size_t number) noexcept
      : slot_(&control.processes[number]), number_(number) {}

  [[nodiscard]] slot_state state() const noexcept {
    return slot_state::of(slot_->state.load(std::memory_order_acquire));  // with its other words
  }
  [[nodiscard]] std::uint64_t since() const noexcept {
    return slot_->since.load(std::memory_order_relaxed);  // ordered by state
  }

  bool change(slot_state from, slot_state to) noexcept {
    std::uint64_t expected = from.word();
    return slot_->state.compare_exchange_strong(expected, to.word(),
                                                std::memory_order_seq_cst);  // after holders' bits
  }

  /// Takes a free entry. @returns the identity of its next owner; 0: it is not free
  owner_id reserve(pid_t by) noexcept {
    const slot_state before = state();
    if (before.phase != slot_phase::free) return 0;
    const std::uint32_t generation = before.next_generation();
    if (!change(before, {slot_phase::reserved, generation, static_cast<std::uint32_t>(by), 0})) {
      return 0;
    }
    slot_->since.store(boot_time(), std::memory_order_relaxed);  // read after state
    return make_owner_id(number_, generation);
  }

  /// Makes a reserved entry that of this process.
  bool enter(owner_id identity, pid_t reserved_by) noexcept {
    slot_->since.store(boot_time(), std::memory_order_relaxed);              // before state
    slot_->pid_namespace.store(pid_namespace(), std::memory_order_relaxed);  // likewise
    const std::uint32_t generation = generation_of(identity);
    return change(
        {slot_phase::reserved, generation, static_cast<std::uint32_t>(reserved_by), 0},
        {slot_phase::live, generation, static_cast<std::uint32_t>(PROCPOOL_SYSTEM(getpid())), 0});
  }

  /// Whether the process that @p seen names is in this process's pid namespace.
  [[nodiscard]] bool in_this_namespace() const noexcept {
    const auto theirs = slot_->pid_namespace.load(std::memory_order_relaxed);  // after state
    return theirs == pid_namespace();
  }

  /// Whether the owner has ended. Records it, so that others need no system call.
  [[nodiscard]] bool has_ended(owner_id owner) noexcept {
    const slot_state now = state();
    if (now.generation != generation_of(owner)) return true;
    if (now.phase == slot_phase::reserved) return false;
    if (now.phase != slot_phase::live) return true;
    if (!in_this_namespace() || process_runs(static_cast<pid_t>(now.pid), since())) return false;
    change(now, {slot_phase::dead, now.generation, now.pid, 0});
    return true;
  }

  /// Frees an entry that this process collects.
  void free(slot_state collected) noexcept {
    slot_->since.store(0, std::memory_order_relaxed);  // before state: its next owner sets it late
    change(collected, {slot_phase::free, collected.generation, 0, 0});
  }

 private:
  process_slot* slot_;
  std::size_t number_;
};

}  // namespace procpool::detail
