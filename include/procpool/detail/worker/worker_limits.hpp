// SPDX-License-Identifier: MIT
/// @file
/// What a worker may use, and how it is held to it: memory by the kernel (setrlimit(2),
/// RLIMIT_DATA), CPU time of an item by a timer of the kernel (timer_create(2)), resident memory by
/// the worker itself, which leaves when it has grown too large.
#pragma once

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// What a worker is to keep to. Travels to it as it is. 0: no limit.
struct worker_limits {
  std::uint64_t memory_bytes = 0;    ///< private memory beyond what it is born with
  std::uint64_t resident_bytes = 0;  ///< resident memory after which it leaves
  std::int64_t cpu_ns = 0;           ///< CPU time for each item
  std::uint64_t seed = 0;            ///< of the random numbers of its tasks
  std::uint64_t pinned = 0;          ///< 1: to one CPU, by its place in the pool
  std::uint64_t kept_bytes = 0;      ///< memory that it keeps when tasks have freed it
  std::int64_t idle_ns = 0;          ///< it waits for a task before it leaves
};

/// In the worker: holds it to its limits. For a limit that cannot be set up: ProcessError.
class limit_guard {
 public:
  explicit limit_guard(const worker_limits& limits) : limits_(limits) {
    if (limits_.resident_bytes != 0) static_cast<void>(certain_usage());
    if (limits_.memory_bytes != 0) limit_memory();
    if (limits_.cpu_ns != 0) make_timer();
    if (limits_.kept_bytes != 0) keep_memory();
  }
  limit_guard(const limit_guard&) = delete;
  limit_guard& operator=(const limit_guard&) = delete;

  [[nodiscard]] const worker_limits& limits() const noexcept { return limits_; }

  /// Whether begin_item() does something.
  [[nodiscard]] bool any_for_items() const noexcept { return limits_.cpu_ns != 0; }
  /// An item begins: its CPU time counts from now on.
  void begin_item() noexcept { set_timer(limits_.cpu_ns); }
  void end_frame() noexcept { set_timer(0); }

  /// While it exists the worker may take a little more memory than its limit: to tell that it has
  /// met it.
  class more_memory {
   public:
    explicit more_memory(limit_guard& guard) noexcept : guard_(&guard) { guard_->ease(reserve); }
    more_memory(const more_memory&) = delete;
    more_memory& operator=(const more_memory&) = delete;
    ~more_memory() { guard_->ease(0); }

   private:
    limit_guard* guard_;
  };

  /// A task has failed for want of memory. If what there is is not given back the worker leaves.
  void note_shortage() noexcept { shortage_ = true; }

  /// Whether the worker is to leave. Looks at its size at most once a millisecond.
  [[nodiscard]] bool too_large() {
    constexpr std::chrono::milliseconds pause{1};
    if (shortage_) {
      shortage_ = false;
      if (usage().data > memory_.rlim_cur - limits_.memory_bytes / 8) return true;
    }
    if (limits_.resident_bytes == 0) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now - looked_ < pause) return false;
    looked_ = now;
    return usage().resident > limits_.resident_bytes;
  }

 private:
  // In bytes, of /proc/self/statm (proc(5)).
  struct memory_usage {
    std::uint64_t resident = 0;
    std::uint64_t data = 0;
  };

  // Opened each time: a task may close what it does not know.
  static os::fd open_usage() noexcept {
    return os::fd(PROCPOOL_SYSTEM(open("/proc/self/statm", O_RDONLY | O_CLOEXEC)));
  }

  [[nodiscard]] static memory_usage read_usage(const os::fd& statm) noexcept {
    std::array<char, 256> text{};
    const auto got = PROCPOOL_SYSTEM(pread(statm.get(), text.data(), text.size() - 1, 0));
    unsigned long resident = 0;
    unsigned long data = 0;
    if (got <= 0 || std::sscanf(text.data(), "%*u %lu %*u %*u %*u %lu", &resident, &data) != 2) {
      return {};
    }
    const auto page = static_cast<std::uint64_t>(PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE)));
    return {resident * page, data * page};
  }

  // Nothing when it cannot be told.
  [[nodiscard]] static memory_usage usage() noexcept {
    const os::fd statm = open_usage();
    return statm ? read_usage(statm) : memory_usage{};
  }

  // @throws ProcessError when it cannot be told
  [[nodiscard]] static memory_usage certain_usage() {
    constexpr const char* what = "cannot look at the memory of a worker (pread /proc/self/statm)";
    const os::fd statm = open_usage();
    if (!statm) os::throw_errno(what);
    const memory_usage found = read_usage(statm);
    if (found.data == 0) os::throw_errno(what);
    return found;
  }

  void limit_memory() {
    rlimit limit{};
    os::check(PROCPOOL_SYSTEM(getrlimit(RLIMIT_DATA, &limit)),
              "cannot limit a worker's memory (getrlimit)");
    const std::uint64_t used = certain_usage().data;
    const std::uint64_t most = used + std::min(limits_.memory_bytes, RLIM_INFINITY - used);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    os::check(PROCPOOL_SYSTEM(setrlimit(RLIMIT_DATA, &limit)),
              "cannot limit a worker's memory (setrlimit)");
    memory_ = limit;
  }

  void ease(std::uint64_t bytes) noexcept {
    if (limits_.memory_bytes == 0) return;
    rlimit eased = memory_;
    eased.rlim_cur += std::min(bytes, memory_.rlim_max - memory_.rlim_cur);
    PROCPOOL_SYSTEM(setrlimit(RLIMIT_DATA, &eased));
  }

  // The C library maps large blocks afresh each time, and gives back what is free at the end of its
  // heap (mallopt(3)). Its limits are ints.
  void keep_memory() const noexcept {
    constexpr std::uint64_t most = std::numeric_limits<int>::max();
    const int bytes = static_cast<int>(std::min(limits_.kept_bytes, most));
    mallopt(M_TRIM_THRESHOLD, bytes);
    if (mallopt(M_MMAP_THRESHOLD, bytes) == 0) mallopt(M_MMAP_MAX, 0);  // too much for it
  }

  void make_timer() {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGXCPU;
    timer_.emplace();
    os::check(PROCPOOL_SYSTEM(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &*timer_)),
              "cannot limit a worker's CPU time (timer_create)");
  }

  void set_timer(std::int64_t nanoseconds) noexcept {
    constexpr std::int64_t second = 1'000'000'000;
    if (!timer_) return;
    itimerspec when{};
    when.it_value = {nanoseconds / second, nanoseconds % second};
    PROCPOOL_SYSTEM(timer_settime(*timer_, 0, &when, nullptr));
  }

  static constexpr std::uint64_t reserve = std::uint64_t{1} << 20;

  worker_limits limits_;
  rlimit memory_{};        ///< of private memory, as set
  bool shortage_ = false;  ///< an allocation has failed
  std::optional<timer_t> timer_;
  std::chrono::steady_clock::time_point looked_{};
};

}  // namespace procpool::detail
