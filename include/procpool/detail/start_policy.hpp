// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// What to do about workers that fail to start: try again, later and later, and give up before the
/// machine has nothing else to do. (Python's pool starts them again without end.)
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace procpool::detail {

/// Counts failures, and remembers which places are to be filled when. No clock of its own.
class start_policy {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// Makes room for so many places: nothing fails for want of memory then.
  void reserve(std::size_t places) { postponed_.reserve(places); }

  /// A worker has come up: what went wrong before was not for good.
  void succeeded() noexcept { failures_ = 0; }

  /// A worker has failed to start. @returns whether that is enough.
  bool failed() noexcept { return ++failures_ >= enough; }
  [[nodiscard]] int failures() const noexcept { return failures_; }

  /// The place is to be filled after a pause: 10 ms after one failure, 100 ms after two in a row.
  void postpone(std::uint32_t worker, time_point now) {
    auto pause = first_pause;
    for (int i = 1; i < failures_; ++i) pause *= 10;
    postponed_.push_back({now + pause, worker});
  }
  /// A place that is to be filled by now.
  [[nodiscard]] std::optional<std::uint32_t> due(time_point now) {
    for (auto each = postponed_.begin(); each != postponed_.end(); ++each) {
      if (each->when > now) continue;
      const std::uint32_t worker = each->worker;
      postponed_.erase(each);
      return worker;
    }
    return std::nullopt;
  }
  /// When the next place is to be filled.
  [[nodiscard]] std::optional<time_point> next() const noexcept {
    std::optional<time_point> first;
    for (const start& each : postponed_) {
      if (!first || each.when < *first) first = each.when;
    }
    return first;
  }
  /// Whether this place is to be filled later.
  [[nodiscard]] bool postponed(std::uint32_t worker) const noexcept {
    return std::ranges::any_of(postponed_,
                               [&](const start& each) { return each.worker == worker; });
  }
  /// No more workers are wanted.
  void clear() noexcept { postponed_.clear(); }

 private:
  struct start {
    time_point when;
    std::uint32_t worker;
  };

  static constexpr int enough = 3;
  static constexpr std::chrono::milliseconds first_pause{10};

  std::vector<start> postponed_;
  int failures_ = 0;
};

}  // namespace procpool::detail
