// SPDX-License-Identifier: MIT
/// @file
/// Deadlines of waits, on the steady clock.
#pragma once

#include <time.h>

#include <chrono>
#include <optional>

namespace procpool::detail::os {

using time_point = std::chrono::steady_clock::time_point;

/// The latest end of a wait; nullopt: no limit.
using deadline = std::optional<time_point>;

/// The deadline @p timeout from now. Zero, negative and NaN mean now. More than 30 years mean no
/// limit, so that duration::max() does not overflow the clock.
template <class Rep, class Period>
[[nodiscard]] deadline deadline_after(std::chrono::duration<Rep, Period> timeout) {
  using seconds = std::chrono::duration<double>;
  const auto now = std::chrono::steady_clock::now();
  const seconds wanted = std::chrono::duration_cast<seconds>(timeout);
  if (!(wanted > seconds::zero())) return now;
  if (wanted > seconds(1e9)) return std::nullopt;
  return now + std::chrono::ceil<std::chrono::steady_clock::duration>(timeout);
}

/// The time left until @p until, as ppoll(2) takes it; zero for a deadline in the past.
inline timespec time_left(time_point until) noexcept {
  using namespace std::chrono;
  const auto left = until - steady_clock::now();
  if (left <= left.zero()) return {};
  const auto whole = duration_cast<seconds>(left);
  return {whole.count(), duration_cast<nanoseconds>(left - whole).count()};
}

}  // namespace procpool::detail::os
