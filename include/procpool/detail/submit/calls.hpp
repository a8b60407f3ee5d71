// SPDX-License-Identifier: MIT
/// @file
/// The common part of Pool's members: checks options, starts work, and turns a job into a result.
/// Runs on the submitting thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/submit/submission.hpp>
#include <procpool/detail/submit/submission_terms.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// Whether the submitting thread waits for the result at once.
enum class attended { yes, no };

/// Limits of one call. Passed by value in registers, which matters for many small calls.
struct call_limits {
  std::chrono::nanoseconds timeout{0};  ///< as in job_rules
  std::uint32_t retries = 0;            ///< likewise
};

/// Checks options of a submission. @throws std::invalid_argument
inline call_limits checked_limits(std::optional<time_limit> timeout, int retries) {
  constexpr int max_retries = 1000;
  constexpr double max_seconds = 1e9;  // seconds, more than 30 years: no limit
  if (retries < 0 || retries > max_retries) {
    throw std::invalid_argument(concat({"retries must be 0 to 1000, but is ", retries}));
  }
  call_limits limits{.retries = static_cast<std::uint32_t>(retries)};
  if (!timeout) return limits;
  const double seconds = timeout->count();
  if (!(seconds > 0)) {
    throw std::invalid_argument("timeout must be positive, but is " + std::to_string(seconds) +
                                " s");
  }
  if (seconds < max_seconds) {
    limits.timeout = std::chrono::ceil<std::chrono::nanoseconds>(*timeout);
  }
  return limits;
}
template <class F>
job_rules rules_of(std::optional<time_limit> timeout, int retries, const F& function) {
  const call_limits limits = checked_limits(timeout, retries);
  return {limits.timeout, limits.retries, label_of<F>(function)};
}

/// Submits one call.
template <class F, class... A>
auto start_call(const intrusive_ptr<pool_interface>& pool, attended attendance, call_limits limits,
                const F& function, std::unique_ptr<done_callback> callbacks,
                const A&... arguments) {
  using result = task_result_t<std::decay_t<F>, const A&...>;
  intrusive_ptr<call_job<result>> job(new call_job<result>(pool, std::move(callbacks)), false);
  pool->check_timeout(limits.timeout);
  job->set_rules({limits.timeout, limits.retries, label_of<std::decay_t<F>>(function)});
  if (attendance == attended::no) pool->ensure_service(*job);
  submit_call<std::decay_t<F>>(*pool, job->share_first(), function, arguments...);
  return job;
}

/// The result of @p submit(); empty if the pool has no room for a task now.
template <class Submit>
auto without_waiting(const intrusive_ptr<pool_interface>& pool, Submit submit)
    -> std::optional<decltype(submit())> {
  if (pool->full()) return std::nullopt;
  const terms_scope no_wait(submission_terms{.may_wait = false});
  try {
    return submit();
  } catch (const pool_full&) {  // another thread took the room
    return std::nullopt;
  }
}

/// Waits for a job and moves its result out, or throws its exception. A stop request ends the job.
template <class T>
T finish(typed_job<T>& job, const stop_token& stop = {}) {
  if (!job.wait_until(std::nullopt, stop)) {
    job.pool().cancel(job, true);
    static_cast<void>(job.wait_until(std::nullopt));  // short: it is cancelled or done
  }
  if (job.failure() != nullptr) std::rethrow_exception(job.failure());
  if constexpr (!std::is_void_v<T>) return std::move(job.result());
}

/// The number of items of a range; nullopt for an input range of unknown size.
template <class Range>
std::optional<std::size_t> known_size(Range& range) {
  if constexpr (std::ranges::sized_range<Range>) {
    return static_cast<std::size_t>(std::ranges::size(range));
  } else if constexpr (std::ranges::forward_range<Range>) {
    return static_cast<std::size_t>(std::ranges::distance(range));
  } else {
    return std::nullopt;
  }
}

/// Submits a map over a range of @p size items. A range of unknown size is read first, as in
/// Python.
template <class Passing, class Gather, class F, class Range, class Options>
auto start_map_of(const intrusive_ptr<pool_interface>& pool, attended attendance, const F& function,
                  Range& items, std::size_t size, const Options& options,
                  std::unique_ptr<done_callback> callbacks) {
  using arguments = item_arguments<F, std::ranges::range_reference_t<Range>, Passing>;
  const auto chunksize = checked_size(options.chunksize, "chunksize");
  auto job = Gather::template make<listed_result_t<F, arguments>>(pool, size, std::move(callbacks));
  const job_rules rules = rules_of(options.timeout, options.retries, function);
  pool->check_timeout(rules.timeout);
  job->set_rules(rules);
  pool->check_open();
  const bool has_work = size > 0 || job->has_callback();
  if (size == 0) reject_null(function);
  if (attendance == attended::no && has_work) pool->ensure_service(*job);
  if (size == 0) {
    has_work ? pool->complete(*job) : job->set_ready();
    return job;
  }
  submit_items<Passing, listed_shipped_t<F, arguments>>(
      pool, intrusive_ptr<detail::job>(job), function, items, size,
      chunksize.value_or(default_chunksize(size, pool->workers())));
  return job;
}

/// A map gives a vector of results, or throws the first failure.
struct gather_results {
  template <class R>
  using type = gathered_t<R>;
  template <class R>
  static auto make(intrusive_ptr<driver> pool, std::size_t size,
                   std::unique_ptr<done_callback> callbacks) {
    return intrusive_ptr<map_job<R>>(new map_job<R>(std::move(pool), size, std::move(callbacks)),
                                     false);
  }
};
/// A map gives a vector of outcomes: values and failures.
struct gather_outcomes {
  template <class R>
  using type = std::vector<Outcome<R>>;
  template <class R>
  static auto make(intrusive_ptr<driver> pool, std::size_t size,
                   std::unique_ptr<done_callback> callbacks) {
    return intrusive_ptr<outcomes_job<R>>(
        new outcomes_job<R>(std::move(pool), 0, size, nullptr, std::move(callbacks)), false);
  }
};

/// The result of a map of F over a Range.
template <class Gather, class Passing, class F, class Range>
using map_result_t = typename Gather::template type<listed_result_t<
    std::decay_t<F>,
    item_arguments<std::decay_t<F>, std::ranges::range_reference_t<Range>, Passing>>>;

template <class Passing, class Gather, class F, class Range, class Options>
auto start_map(const intrusive_ptr<pool_interface>& pool, attended attendance, const F& function,
               Range& items, const Options& options, std::unique_ptr<done_callback> callbacks) {
  using callable = std::decay_t<F>;
  if constexpr (std::ranges::sized_range<Range&> || std::ranges::forward_range<Range&>) {
    return start_map_of<Passing, Gather, callable>(
        pool, attendance, function, items, *known_size(items), options, std::move(callbacks));
  } else {
    std::vector<std::ranges::range_value_t<Range&>> read;
    for (auto&& item : items) read.emplace_back(std::forward<decltype(item)>(item));
    auto moving =
        std::ranges::subrange(std::move_iterator(read.begin()), std::move_sentinel(read.end()));
    return start_map_of<Passing, Gather, callable>(pool, attendance, function, moving, read.size(),
                                                   options, std::move(callbacks));
  }
}

/// Chunk size and buffer size of an imap, in items.
struct imap_sizes_type {
  std::size_t chunk;
  std::size_t buffer;
};

/// The defaults keep enough items in flight that no worker waits for the reader.
inline imap_sizes_type imap_sizes(const std::optional<std::ptrdiff_t>& chunksize,
                                  const std::optional<std::ptrdiff_t>& buffersize,
                                  std::size_t workers) {
  constexpr std::size_t chunks_per_worker = 32;
  const std::size_t chunk = checked_size(chunksize, "chunksize").value_or(1);
  return {chunk,
          checked_size(buffersize, "buffersize").value_or(chunk * workers * chunks_per_worker)};
}

}  // namespace procpool::detail
