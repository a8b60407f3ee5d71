// SPDX-License-Identifier: MIT
/// @file
/// How long workers live, and what they may use: the same for all, but for the jitter that keeps
/// them from leaving all at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <procpool/detail/base/splitmix.hpp>
#include <procpool/detail/worker/worker_limits.hpp>

namespace procpool::detail {

/// What the pool's options say of it.
struct recycle_rules {
  worker_limits limits = {};
  std::chrono::nanoseconds initializer_timeout{0};  ///< from the start of a worker on; 0: none
  double jitter = 0;  ///< the part of a limit that chance may take away, 0 to 1
  std::uint64_t max_result_bytes = ~std::uint64_t{0};  ///< of one encoded result
  std::uint64_t replay_bytes = 0;  ///< of arguments kept of a task that has failed
};

/// Draws the numbers for each new worker.
class recycle_policy {
 public:
  /// @param most_tasks that a worker gets before it leaves; 0: any number
  recycle_policy(const recycle_rules& rules, std::uint32_t most_tasks)
      : rules_(rules), most_tasks_(most_tasks) {}

  [[nodiscard]] std::uint64_t max_result_bytes() const noexcept { return rules_.max_result_bytes; }

  [[nodiscard]] std::uint64_t replay_bytes() const noexcept { return rules_.replay_bytes; }
  [[nodiscard]] std::uint64_t seed() const noexcept { return rules_.limits.seed; }
  [[nodiscard]] std::int64_t cpu_ns() const noexcept { return rules_.limits.cpu_ns; }

  /// Whether workers may leave of their own accord: when they have grown too large.
  [[nodiscard]] bool may_leave() const noexcept { return rules_.limits.resident_bytes != 0; }

  /// Or when they have had nothing to do.
  [[nodiscard]] bool may_stop_idle() const noexcept { return rules_.limits.idle_ns != 0; }
  [[nodiscard]] std::chrono::nanoseconds initializer_timeout() const noexcept {
    return rules_.initializer_timeout;
  }

  /// For the next worker.
  [[nodiscard]] worker_limits limits() {
    worker_limits limits = rules_.limits;
    limits.resident_bytes = shortened(limits.resident_bytes);
    return limits;
  }
  [[nodiscard]] std::uint32_t most_tasks() {
    return static_cast<std::uint32_t>(shortened(most_tasks_));
  }

 private:
  [[nodiscard]] std::uint64_t shortened(std::uint64_t most) {
    if (most == 0 || rules_.jitter == 0) return most;
    const auto less =
        static_cast<std::uint64_t>(chance() * rules_.jitter * static_cast<double>(most));
    return std::max<std::uint64_t>(most - less, 1);
  }

  // From 0 up to 1.
  [[nodiscard]] double chance() noexcept {
    random_ += splitmix_step;
    return static_cast<double>(splitmix(random_) >> 11) * 0x1p-53;
  }

  recycle_rules rules_;
  std::uint32_t most_tasks_;
  std::uint64_t random_ =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
};

}  // namespace procpool::detail
