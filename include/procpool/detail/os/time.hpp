// SPDX-License-Identifier: MIT
/// @file
/// Points in time at which waits end.
#pragma once

#include <time.h>

#include <chrono>
#include <optional>

namespace procpool::detail::os {

using time_point = std::chrono::steady_clock::time_point;

/// When a wait ends at the latest; nullopt: never.
using deadline = std::optional<time_point>;

/// The moment @p timeout from now. Zero, negative and NaN are now; more than 30 years are never,
/// which keeps duration::max() from overflowing the clock.
template <class Rep, class Period>
[[nodiscard]] deadline deadline_after(std::chrono::duration<Rep, Period> timeout) {
  using seconds = std::chrono::duration<double>;
  const auto now = std::chrono::steady_clock::now();
  const seconds wanted = std::chrono::duration_cast<seconds>(timeout);
  if (!(wanted > seconds::zero())) return now;
  if (wanted > seconds(1e9)) return std::nullopt;
  return now + std::chrono::ceil<std::chrono::steady_clock::duration>(timeout);
}

/// The time left until @p until in the form of ppoll(2); nothing for a deadline in the past.
inline timespec time_left(time_point until) noexcept {
  using namespace std::chrono;
  const auto left = until - steady_clock::now();
  if (left <= left.zero()) return {};
  const auto whole = duration_cast<seconds>(left);
  return {whole.count(), duration_cast<nanoseconds>(left - whole).count()};
}

}  // namespace procpool::detail::os
