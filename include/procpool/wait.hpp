// SPDX-License-Identifier: MIT
/// @file
/// wait and as_completed: wait for many results at once (Python: concurrent.futures).
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/async_result.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/distinct_jobs.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/waiting.hpp>

namespace procpool {

/// wait() returns when any result is ready.
inline constexpr return_when FIRST_COMPLETED = return_when::first_completed;
/// wait() returns when any result is an exception other than a cancellation (by cancel() or the end
/// of its pool); if there is none, when all results are ready.
inline constexpr return_when FIRST_EXCEPTION = return_when::first_exception;
/// wait() returns when all results are ready.
inline constexpr return_when ALL_COMPLETED = return_when::all_completed;

/// Returned by wait() (Python: DoneAndNotDoneFutures): `auto [done, pending] = wait(results);`.
/// Both in the order of the input, each result once.
template <class T>
struct done_and_pending {
  std::vector<AsyncResult<T>> done;     ///< ready: with a value or an exception
  std::vector<AsyncResult<T>> pending;  ///< not ready
};

namespace detail {

template <class Results>
inline constexpr bool are_results = false;
template <class T>
inline constexpr bool are_results<AsyncResult<T>> = true;

template <class T>
std::type_identity<T> value_of(const AsyncResult<T>&);

struct result_access {
  /// The job of a result. @throws std::invalid_argument for an empty handle
  template <class T>
  static job& job_of(const AsyncResult<T>& result) {
    if (result.job_ != nullptr) return *result.job_;
    throw std::invalid_argument("a result to wait for is empty: it was moved from");
  }
};

/// The distinct results of a range, and their jobs in the same order.
template <class T>
struct distinct_results {
  template <class Range>
  explicit distinct_results(Range& input) {
    if constexpr (std::ranges::sized_range<Range>) {
      const auto size = static_cast<std::size_t>(std::ranges::size(input));
      results.reserve(size);
      jobs.reserve(size);
    }
    for (const AsyncResult<T>& each : input) {
      if (jobs.insert(result_access::job_of(each))) results.push_back(each);
    }
  }

  std::vector<AsyncResult<T>> results;
  distinct_jobs jobs;
};

template <class T, class Range>
done_and_pending<T> wait_for_results(Range& input, return_when when, os::deadline until,
                                     const stop_token& stop) {
  distinct_results<T> all(input);
  wait_for_jobs(all.jobs.all(), when, until, stop);
  done_and_pending<T> found{std::move(all.results), {}};
  std::size_t done = 0;
  for (auto& each : found.done) {
    if (!each.ready()) {
      found.pending.push_back(std::move(each));
    } else if (&each != &found.done[done++]) {
      found.done[done - 1] = std::move(each);
    }
  }
  found.done.erase(found.done.begin() + static_cast<std::ptrdiff_t>(done), found.done.end());
  return found;
}

}  // namespace detail

/// A range of AsyncResult<T> with a single T.
template <class Range>
concept range_of_results =
    std::ranges::input_range<Range> && detail::are_results<std::ranges::range_value_t<Range>>;

/// The T of a range of AsyncResult<T>.
template <range_of_results Range>
using result_value_t =
    typename decltype(detail::value_of(std::declval<std::ranges::range_value_t<Range>&>()))::type;

/// Waits for some or all of many results, of one or several pools. Throws no exception of a task.
/// @param results a range of AsyncResult<T>; duplicates count once. Empty: returns at once
/// @param when when to return; a cancelled result counts as ready, but not as failed (as in Python)
/// @returns the ready and the pending results, also after a timeout. If a worker dies its results
/// become ready with WorkerDied, if a pool ends with CancelledError or BrokenPool.
/// @throws std::invalid_argument for an empty handle; std::logic_error when a result that is not
/// ready belongs to another process (a forked child waits for its parent's results)
///
/// Any thread may call it. A callback may call it too, but not for results whose own callbacks have
/// yet to run. Takes time linear in the number of results. To handle each result as it becomes
/// ready use as_completed(): FIRST_COMPLETED in a loop is quadratic.
template <range_of_results Range>
auto wait(Range&& results, return_when when = ALL_COMPLETED) {
  return detail::wait_for_results<result_value_t<Range>>(results, when, std::nullopt, {});
}
/// wait() for at most @p timeout; with 0 it still finds results that are ready.
template <range_of_results Range, class Rep, class Period>
auto wait(Range&& results, return_when when, std::chrono::duration<Rep, Period> timeout) {
  return detail::wait_for_results<result_value_t<Range>>(results, when,
                                                         detail::os::deadline_after(timeout), {});
}
/// wait() until a stop is requested.
template <range_of_results Range>
auto wait(Range&& results, return_when when, const stop_token& stop) {
  return detail::wait_for_results<result_value_t<Range>>(results, when, std::nullopt, stop);
}

/// Returned by as_completed(): results in the order in which they become ready, for one range-based
/// for loop in one thread. Keeps no result that it has returned. The loop may be left at any time
/// and resumed by another.
template <class T>
class completed_results {
  // At a fixed address: jobs refer to it while they are observed.
  struct state {
    state(detail::distinct_results<T>&& input, detail::os::deadline until, stop_token stop)
        : results(std::move(input.results)),
          order(detail::watch_completions(input.jobs.all(), until, std::move(stop))) {}

    void advance() {
      current.reset();
      if (const auto index = order->next()) current.emplace(std::move(results[*index]));
    }

    std::vector<AsyncResult<T>> results;  // results that were returned are empty
    std::optional<AsyncResult<T>> current;
    std::unique_ptr<detail::completion_order> order;
  };

 public:
  using value_type = AsyncResult<T>;

  class iterator {
   public:
    using value_type = AsyncResult<T>;
    using difference_type = std::ptrdiff_t;

    AsyncResult<T>& operator*() const noexcept { return *state_->current; }
    AsyncResult<T>* operator->() const noexcept { return &*state_->current; }
    /// Drops this result and waits for the next. @throws as as_completed()
    iterator& operator++() {
      state_->advance();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& at, std::default_sentinel_t) noexcept {
      return !at.state_->current.has_value();
    }

   private:
    friend class completed_results;
    explicit iterator(state& from) : state_(&from) {}

    state* state_;
  };

  completed_results(detail::distinct_results<T>&& input, detail::os::deadline until,
                    stop_token stop)
      : state_(std::make_unique<state>(std::move(input), until, std::move(stop))) {}

  /// Waits for the next result that was not returned before. @throws as as_completed()
  [[nodiscard]] iterator begin() {
    state_->advance();
    return iterator(*state_);
  }
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

 private:
  std::unique_ptr<state> state_;
};

/// Returns results in the order in which they become ready; results that are ready already come
/// first: `for (auto& result : as_completed(results)) use(result.get());`.
/// @param results as for wait(); the loop keeps its own handles
/// @returns an input range whose iterators wait
/// @throws as wait(), here or in the loop
///
/// Any thread may call it. A callback may call it too, but not for results whose own callbacks have
/// yet to run. The cost per result is constant.
template <range_of_results Range>
[[nodiscard]] auto as_completed(Range&& results) {
  using T = result_value_t<Range>;
  return completed_results<T>(detail::distinct_results<T>(results), std::nullopt, {});
}
/// as_completed() with a @p timeout for the whole loop, counted from this call. After it, when no
/// result is ready, the loop throws TimeoutError with the number of unfinished results.
template <range_of_results Range, class Rep, class Period>
[[nodiscard]] auto as_completed(Range&& results, std::chrono::duration<Rep, Period> timeout) {
  using T = result_value_t<Range>;
  const auto until = detail::os::deadline_after(timeout);
  return completed_results<T>(detail::distinct_results<T>(results), until, {});
}
/// as_completed() until a stop is requested: then, when no result is ready, the loop throws
/// CancelledError.
template <range_of_results Range>
[[nodiscard]] auto as_completed(Range&& results, stop_token stop) {
  using T = result_value_t<Range>;
  return completed_results<T>(detail::distinct_results<T>(results), std::nullopt, std::move(stop));
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/result/wait_set.hpp>
#endif
