// SPDX-License-Identifier: MIT
/// @file
/// When a worker that failed to start is started again, and when the pool gives up. The pauses
/// grow with each failure. (Python's pool starts workers again without end.)
///
/// There are two kinds of failures. An error is the worker's own: its initializer throws, or its
/// limits cannot be set up. The third error in a row, in whatever places, ends the pool. A refusal
/// is the system's: no process, memory or descriptor at this time, or the worker was killed. It may
/// be over soon and it affects all places at once. So refusals end the pool only after a time in
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

/// Whether a call that fails with this errno may succeed a little later.
[[nodiscard]] constexpr bool is_transient(int error) noexcept {
  return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE ||
         error == ENOBUFS || error == ETOOMANYREFS;
}

/// Why a worker has not come up.
enum class start_failure { error, refusal };

[[nodiscard]] constexpr start_failure failure_of(int error) noexcept {
  return is_transient(error) ? start_failure::refusal : start_failure::error;
}

/// Counts failures, and remembers when each place is to be filled. The caller passes the time.
class restart_policy {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// The pool gives up after this many errors in a row.
  static constexpr int max_errors = 3;
  /// The pool gives up when refusals have lasted for this time and no worker is up.
  static constexpr std::chrono::seconds max_refused_time{3};
  /// The same while a pool is made. Shorter: the caller may try again.
  static constexpr std::chrono::seconds max_refused_time_at_first{2};

  /// Makes room for all places, so that failed() allocates nothing.
  void reserve(std::size_t places) { failing_.reserve(places); }

  /// The pause after this number of failures in a row: 10 ms, 100 ms, then 1 s each time.
  [[nodiscard]] static constexpr std::chrono::milliseconds pause_after(int failures) noexcept {
    constexpr std::chrono::milliseconds pauses[] = {std::chrono::milliseconds{10},
                                                    std::chrono::milliseconds{100},
                                                    std::chrono::milliseconds{1000}};
    return pauses[std::clamp(failures, 1, 3) - 1];
  }

  /// A worker has come up and run code: the failures before were temporary.
  void succeeded() noexcept { errors_ = refusals_ = 0; }
  /// The worker in this place has ended after it had come up.
  void came_up(std::uint32_t worker) noexcept {
    refusals_ = 0;
    std::erase_if(failing_, [&](const failing_slot& each) { return each.worker == worker; });
  }

  /// A worker has failed to start. The place is to be filled after a pause.
  /// @param any_worker_up whether another worker is up
  /// @returns whether the pool is to give up
  bool failed(std::uint32_t worker, start_failure why, bool any_worker_up,
              time_point now) noexcept {
    failing_slot& slot = failures_of(worker);
    if (now > slot.due + lapse) slot.failures = 0;
    slot.due = now + pause_after(++slot.failures);
    slot.waits = true;
    if (why == start_failure::error) return ++errors_ >= max_errors;
    if (refusals_ == 0 || any_worker_up || now > last_refused_ + lapse) {
      refusals_ = 0;
      refused_since_ = now;
    }
    ++refusals_;
    last_refused_ = now;
    return !any_worker_up && now - refused_since_ >= max_refused_time;
  }

  /// Errors in a row.
  [[nodiscard]] int errors() const noexcept { return errors_; }
  /// Refusals in a row, and the time from the first to the last.
  [[nodiscard]] int refusals() const noexcept { return refusals_; }
  [[nodiscard]] std::chrono::nanoseconds refused_for() const noexcept {
    return last_refused_ - refused_since_;
  }

  /// A place that is to be filled now. Each is returned once.
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
  /// Whether this place waits to be filled.
  [[nodiscard]] bool postponed(std::uint32_t worker) const noexcept {
    return std::ranges::any_of(
        failing_, [&](const failing_slot& each) { return each.worker == worker && each.waits; });
  }
  /// No more workers are started.
  void clear() noexcept { failing_.clear(); }

 private:
  // A place where a start has failed.
  struct failing_slot {
    std::uint32_t worker;
    int failures = 0;    ///< in a row
    time_point due{};    ///< when the place is, or was, to be filled
    bool waits = false;  ///< to be filled
  };

  // Failures further apart than this are not in a row: starts in between succeeded, or no start was
  // needed.
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

/// While a pool is made: waits and tries again when the system refuses a process.
class start_backoff {
 public:
  /// Waits, longer each time. @returns false, at once, when the caller is to give up: @p error is
  /// permanent, or it has lasted for max_refused_time_at_first
  [[nodiscard]] bool wait_after(int error) {
    const bool may_change = error == EAGAIN || error == ENOMEM;  // descriptors: held by the caller
    const auto now = std::chrono::steady_clock::now();
    if (attempts_++ == 0) since_ = now;
    if (!may_change || now - since_ >= restart_policy::max_refused_time_at_first) return false;
    std::this_thread::sleep_for(restart_policy::pause_after(attempts_));
    return true;
  }
  /// For the message of an error: the attempts and their time; empty after a single attempt.
  [[nodiscard]] std::string text() const {
    if (attempts_ < 2) return {};
    return concat({" (", attempts_, " attempts in ",
                   restart_policy::max_refused_time_at_first.count(), " s)"});
  }

 private:
  int attempts_ = 0;
  restart_policy::time_point since_{};
};

}  // namespace procpool::detail
