// SPDX-License-Identifier: MIT
/// @file
/// Waiting for some of many results, as those see it who do it; how it is done: wait_set.hpp.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/result/job.hpp>

namespace procpool {

/// What wait() waits for; Python's names for the values are below.
enum class return_when {
  first_completed,
  first_exception,
  all_completed,
};

}  // namespace procpool

namespace procpool::detail {

/// Waits until some of these jobs are ready, @p until has come or a stop is requested.
/// @param jobs all different
/// @throws what driver::wait() and driver::watch() throw
void wait_for_jobs(std::span<job* const> jobs, return_when when, std::optional<time_point> until,
                   const stop_token& stop);

/// What as_completed does, for jobs of any type.
class completion_order {
 public:
  virtual ~completion_order() = default;
  /// The index of the next job that is ready; empty at the end. @throws TimeoutError,
  /// CancelledError; what driver::wait() throws
  [[nodiscard]] virtual std::optional<std::size_t> next() = 0;
};

/// @param jobs all different; each must live until next() has returned its index
/// @throws what driver::watch() throws
[[nodiscard]] std::unique_ptr<completion_order> watch_completions(std::span<job* const> jobs,
                                                                  std::optional<time_point> until,
                                                                  stop_token stop);

}  // namespace procpool::detail
