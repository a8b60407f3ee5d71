// SPDX-License-Identifier: MIT
/// @file
/// The limits of a worker and how they are enforced: private memory by the kernel (setrlimit(2),
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

/// The limits and settings of a worker. Sent to it as raw bytes. 0: no limit.
struct worker_limits {
  std::uint64_t memory_bytes = 0;    ///< private memory beyond that at the worker's start
  std::uint64_t resident_bytes = 0;  ///< resident memory above which the worker leaves
  std::int64_t cpu_ns = 0;           ///< CPU time of each item
  std::uint64_t seed = 0;            ///< of the random numbers of the tasks
  std::uint64_t pinned = 0;          ///< 1: pinned to one CPU, chosen by the place in the pool
  std::uint64_t kept_bytes = 0;      ///< freed memory that the worker keeps
  std::int64_t idle_ns = 0;          ///< longest wait for a task, then the worker leaves
};

/// In the worker: enforces its limits. The constructor throws ProcessError when a limit cannot be
/// set up.
class limit_guard {
 public:
  explicit limit_guard(const worker_limits& limits) : limits_(limits) {
    if (limits_.resident_bytes != 0) static_cast<void>(require_usage());
    if (limits_.memory_bytes != 0) limit_memory();
    if (limits_.cpu_ns != 0) make_timer();
    if (limits_.kept_bytes != 0) keep_memory();
  }
  limit_guard(const limit_guard&) = delete;
  limit_guard& operator=(const limit_guard&) = delete;

  [[nodiscard]] const worker_limits& limits() const noexcept { return limits_; }

  /// Whether begin_item() has an effect.
  [[nodiscard]] bool any_for_items() const noexcept { return limits_.cpu_ns != 0; }
  /// Starts the CPU time of an item.
  void begin_item() noexcept { set_timer(limits_.cpu_ns); }
  void end_frame() noexcept { set_timer(0); }

  /// While it exists the worker may allocate a little above its memory limit, to report that it has
  /// reached the limit.
  class more_memory {
   public:
    explicit more_memory(limit_guard& guard) noexcept : guard_(&guard) {
      guard_->raise_limit(reserve);
    }
    more_memory(const more_memory&) = delete;
    more_memory& operator=(const more_memory&) = delete;
    ~more_memory() { guard_->raise_limit(0); }

   private:
    limit_guard* guard_;
  };

  /// A task has failed with std::bad_alloc. If the memory is not freed afterwards, the worker
  /// leaves.
  void note_shortage() noexcept { shortage_ = true; }

  /// Whether the worker is to leave. Reads its resident size at most once a millisecond.
  [[nodiscard]] bool too_large() {
    constexpr std::chrono::milliseconds pause{1};
    if (shortage_) {
      shortage_ = false;
      if (usage().data > memory_.rlim_cur - limits_.memory_bytes / 8) return true;
    }
    if (limits_.resident_bytes == 0) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_check_ < pause) return false;
    last_check_ = now;
    return usage().resident > limits_.resident_bytes;
  }

 private:
  // In bytes, from /proc/self/statm (proc(5)).
  struct memory_usage {
    std::uint64_t resident = 0;
    std::uint64_t data = 0;
  };

  // Opened each time: a task may close descriptors that it has not opened.
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

  // All zero when it cannot be read.
  [[nodiscard]] static memory_usage usage() noexcept {
    const os::fd statm = open_usage();
    return statm ? read_usage(statm) : memory_usage{};
  }

  // @throws ProcessError when it cannot be read
  [[nodiscard]] static memory_usage require_usage() {
    constexpr const char* attempt =
        "cannot look at the memory of a worker (pread /proc/self/statm)";
    const os::fd statm = open_usage();
    if (!statm) os::throw_errno(attempt);
    const memory_usage found = read_usage(statm);
    if (found.data == 0) os::throw_errno(attempt);
    return found;
  }

  void limit_memory() {
    rlimit limit{};
    os::check(PROCPOOL_SYSTEM(getrlimit(RLIMIT_DATA, &limit)),
              "cannot limit a worker's memory (getrlimit)");
    const std::uint64_t used = require_usage().data;
    const std::uint64_t wanted = used + std::min(limits_.memory_bytes, RLIM_INFINITY - used);
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    os::check(PROCPOOL_SYSTEM(setrlimit(RLIMIT_DATA, &limit)),
              "cannot limit a worker's memory (setrlimit)");
    memory_ = limit;
  }

  // Sets the limit to the worker's own plus @p bytes.
  void raise_limit(std::uint64_t bytes) noexcept {
    if (limits_.memory_bytes == 0) return;
    rlimit raised = memory_;
    raised.rlim_cur += std::min(bytes, memory_.rlim_max - memory_.rlim_cur);
    PROCPOOL_SYSTEM(setrlimit(RLIMIT_DATA, &raised));
  }

  // By default the C library maps and unmaps large blocks each time, and gives free memory at the
  // end of its heap back to the kernel (mallopt(3)). Its thresholds are ints.
  void keep_memory() const noexcept {
    constexpr std::uint64_t max_threshold = std::numeric_limits<int>::max();
    const int bytes = static_cast<int>(std::min(limits_.kept_bytes, max_threshold));
    mallopt(M_TRIM_THRESHOLD, bytes);
    if (mallopt(M_MMAP_THRESHOLD, bytes) == 0) mallopt(M_MMAP_MAX, 0);  // above its maximum
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
  rlimit memory_{};        ///< the limit of private memory, as set
  bool shortage_ = false;  ///< a task has failed with std::bad_alloc, see note_shortage()
  std::optional<timer_t> timer_;
  std::chrono::steady_clock::time_point last_check_{};
};

}  // namespace procpool::detail
