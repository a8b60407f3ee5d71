// SPDX-License-Identifier: MIT
/// @file
/// The limits of workers: how long they live and what they may use. All workers have the same
/// limits, except for jitter, which keeps them from leaving all at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <procpool/detail/base/splitmix.hpp>
#include <procpool/detail/worker/worker_limits.hpp>

namespace procpool::detail {

/// From the pool's options.
struct recycle_rules {
  worker_limits limits = {};
  std::chrono::nanoseconds initializer_timeout{0};  ///< from the start of a worker; 0: none
  double jitter = 0;  ///< the largest part of a limit that is taken away at random, 0 to 1
  std::uint64_t max_result_bytes = ~std::uint64_t{0};  ///< of one encoded result
  std::uint64_t replay_bytes = 0;  ///< of arguments that are kept of a failed task
};

/// Computes the limits of each new worker.
class recycle_policy {
 public:
  /// @param max_tasks that a worker runs before it leaves; 0: any number
  recycle_policy(const recycle_rules& rules, std::uint32_t max_tasks)
      : rules_(rules), max_tasks_(max_tasks) {}

  [[nodiscard]] std::uint64_t max_result_bytes() const noexcept { return rules_.max_result_bytes; }

  [[nodiscard]] std::uint64_t replay_bytes() const noexcept { return rules_.replay_bytes; }
  [[nodiscard]] std::uint64_t seed() const noexcept { return rules_.limits.seed; }
  [[nodiscard]] std::int64_t cpu_ns() const noexcept { return rules_.limits.cpu_ns; }

  /// Whether workers leave when they have grown too large.
  [[nodiscard]] bool may_leave() const noexcept { return rules_.limits.resident_bytes != 0; }

  /// Whether workers leave when they have been idle for too long.
  [[nodiscard]] bool may_stop_idle() const noexcept { return rules_.limits.idle_ns != 0; }
  [[nodiscard]] std::chrono::nanoseconds initializer_timeout() const noexcept {
    return rules_.initializer_timeout;
  }

  /// Of the next worker.
  [[nodiscard]] worker_limits limits() {
    worker_limits limits = rules_.limits;
    limits.resident_bytes = with_jitter(limits.resident_bytes);
    return limits;
  }
  /// Of the next worker. @returns 0: any number
  [[nodiscard]] std::uint32_t most_tasks() {
    return static_cast<std::uint32_t>(with_jitter(max_tasks_));
  }

 private:
  [[nodiscard]] std::uint64_t with_jitter(std::uint64_t limit) {
    if (limit == 0 || rules_.jitter == 0) return limit;
    const auto reduction =
        static_cast<std::uint64_t>(random_fraction() * rules_.jitter * static_cast<double>(limit));
    return std::max<std::uint64_t>(limit - reduction, 1);
  }

  // In [0, 1).
  [[nodiscard]] double random_fraction() noexcept {
    random_ += splitmix_step;
    return static_cast<double>(splitmix(random_) >> 11) * 0x1p-53;
  }

  recycle_rules rules_;
  std::uint32_t max_tasks_;
  std::uint64_t random_ =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
};

}  // namespace procpool::detail
