// SPDX-License-Identifier: MIT
/// @file
/// What to do about workers that fail to start: try again, later and later, and give up before the
/// machine has nothing else to do. (Python's pool starts them again without end.)
///
/// There are two kinds of failures. An error is the worker's own: its initializer throws, it cannot
/// do what its limits ask for. The third in a row is enough, in whatever places. A refusal is the
/// system's: no process, memory or descriptor just now, or somebody has killed it. That may be over
/// in a moment, and it hits all places at once; so it is enough when it has lasted for a time in
/// which no worker came up.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <procpool/detail/base/concat.hpp>

namespace procpool::detail {

/// Whether the system may grant a little later what it refuses with this errno.
[[nodiscard]] constexpr bool is_transient(int error) noexcept {
  return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE ||
         error == ENOBUFS || error == ETOOMANYREFS;
}

/// Why a worker has not come up.
enum class start_failure { error, refusal };

[[nodiscard]] constexpr start_failure failure_of(int error) noexcept {
  return is_transient(error) ? start_failure::refusal : start_failure::error;
}

/// Counts failures, and remembers which places are to be filled when. No clock of its own.
class restart_policy {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// So many errors in a row are enough.
  static constexpr int enough = 3;
  /// Refusals are, when they have lasted for so long and no worker is there.
  static constexpr std::chrono::seconds patience{3};
  /// The same while a pool is made: its maker may try again.
  static constexpr std::chrono::seconds patience_at_first{2};

  /// Makes room for so many places: nothing fails for want of memory then.
  void reserve(std::size_t places) { failing_.reserve(places); }

  /// How long to wait behind so many failures in a row: 10 ms, 100 ms, then a second each time.
  [[nodiscard]] static constexpr std::chrono::milliseconds pause_after(int failures) noexcept {
    constexpr std::chrono::milliseconds pauses[] = {std::chrono::milliseconds{10},
                                                    std::chrono::milliseconds{100},
                                                    std::chrono::milliseconds{1000}};
    return pauses[std::clamp(failures, 1, 3) - 1];
  }

  /// A worker has done something: what went wrong before was not for good.
  void succeeded() noexcept { errors_ = refusals_ = 0; }
  /// The worker in this place, which has ended, had come up.
  void came_up(std::uint32_t worker) noexcept {
    refusals_ = 0;
    std::erase_if(failing_, [&](const failing_slot& each) { return each.worker == worker; });
  }

  /// A worker has failed to start. The place is to be filled after a pause.
  /// @param anybody_up whether other workers are there
  /// @returns whether that is enough: there is no sense in going on
  bool failed(std::uint32_t worker, start_failure why, bool anybody_up, time_point now) noexcept {
    failing_slot& here = failures_of(worker);
    if (now > here.due + lapse) here.failures = 0;
    here.due = now + pause_after(++here.failures);
    here.waits = true;
    if (why == start_failure::error) return ++errors_ >= enough;
    if (refusals_ == 0 || anybody_up || now > last_refused_ + lapse) {
      refusals_ = 0;
      refused_since_ = now;
    }
    ++refusals_;
    last_refused_ = now;
    return !anybody_up && now - refused_since_ >= patience;
  }

  /// Errors in a row.
  [[nodiscard]] int errors() const noexcept { return errors_; }
  /// Refusals, and for how long there have been some.
  [[nodiscard]] int refusals() const noexcept { return refusals_; }
  [[nodiscard]] std::chrono::nanoseconds refused_for() const noexcept {
    return last_refused_ - refused_since_;
  }

  /// A place that is to be filled by now.
  [[nodiscard]] std::optional<std::uint32_t> due(time_point now) noexcept {
    for (failing_slot& each : failing_) {
      if (!each.waits || each.due > now) continue;
      each.waits = false;
      return each.worker;
    }
    return std::nullopt;
  }
  /// When the next place is to be filled.
  [[nodiscard]] std::optional<time_point> next() const noexcept {
    std::optional<time_point> first;
    for (const failing_slot& each : failing_) {
      if (each.waits && (!first || each.due < *first)) first = each.due;
    }
    return first;
  }
  /// Whether this place is to be filled later.
  [[nodiscard]] bool postponed(std::uint32_t worker) const noexcept {
    return std::ranges::any_of(
        failing_, [&](const failing_slot& each) { return each.worker == worker && each.waits; });
  }
  /// No more workers are wanted.
  void clear() noexcept { failing_.clear(); }

 private:
  // A place where a start has failed.
  struct failing_slot {
    std::uint32_t worker;
    int failures = 0;    ///< in a row
    time_point due{};    ///< when it is, or was, to be filled
    bool waits = false;  ///< for that
  };

  // What failed longer ago than that has nothing to do with what fails now: starts were tried, or
  // nobody wanted any.
  static constexpr std::chrono::seconds lapse{5};

  failing_slot& failures_of(std::uint32_t worker) {
    const auto at = std::ranges::find(failing_, worker, &failing_slot::worker);
    return at != failing_.end() ? *at : failing_.emplace_back(failing_slot{worker});
  }

  std::vector<failing_slot> failing_;
  int errors_ = 0;
  int refusals_ = 0;
  time_point refused_since_{};
  time_point last_refused_{};
};

/// How long the maker of a pool waits for what the system refuses.
class start_backoff {
 public:
  /// Waits a little, longer each time. @returns false, at once, when it is not worth it: @p error
  /// will stay, or it has lasted for long
  [[nodiscard]] bool wait_after(int error) {
    const bool may_change = error == EAGAIN || error == ENOMEM;  // descriptors: the maker has them
    const auto now = std::chrono::steady_clock::now();
    if (attempts_++ == 0) since_ = now;
    if (!may_change || now - since_ >= restart_policy::patience_at_first) return false;
    std::this_thread::sleep_for(restart_policy::pause_after(attempts_));
    return true;
  }
  /// For an error: what was done about it; empty: nothing.
  [[nodiscard]] std::string text() const {
    if (attempts_ < 2) return {};
    return concat(
        {" (", attempts_, " attempts in ", restart_policy::patience_at_first.count(), " s)"});
  }

 private:
  int attempts_ = 0;
  restart_policy::time_point since_{};
};

}  // namespace procpool::detail
