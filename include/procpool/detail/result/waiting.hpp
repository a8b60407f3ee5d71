// SPDX-License-Identifier: MIT
/// @file
/// The interface for waiting for some of many results; the implementation is in wait_set.hpp.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool {

/// When wait() returns; the constants with Python's names are in wait.hpp.
enum class return_when {
  first_completed,
  first_exception,
  all_completed,
};

}  // namespace procpool

namespace procpool::detail {

/// Waits until the condition @p when holds, @p until is reached or a stop is requested.
/// @param jobs all different
/// @throws as driver::wait() and driver::watch()
void wait_for_jobs(std::span<job* const> jobs, return_when when, std::optional<time_point> until,
                   const stop_token& stop);

/// The part of as_completed that does not depend on types.
class completion_order {
 public:
  virtual ~completion_order() = default;
  /// The index of the next ready job; empty at the end.
  /// @throws TimeoutError, CancelledError; as driver::wait()
  [[nodiscard]] virtual std::optional<std::size_t> next() = 0;
};

/// @param jobs all different; each must live until next() has returned its index
/// @throws as driver::watch()
[[nodiscard]] std::unique_ptr<completion_order> watch_completions(std::span<job* const> jobs,
                                                                  std::optional<time_point> until,
                                                                  stop_token stop);

}  // namespace procpool::detail
