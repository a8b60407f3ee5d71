// SPDX-License-Identifier: MIT
/// @file
/// wait and as_completed: waiting for many results at once (Python: concurrent.futures).
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
/// wait() returns when any result is there that is an exception and was not cancelled (by cancel()
/// or by the end of its pool); if there is none, when all are ready.
inline constexpr return_when FIRST_EXCEPTION = return_when::first_exception;
/// wait() returns when all results are ready.
inline constexpr return_when ALL_COMPLETED = return_when::all_completed;

/// What wait() found (Python's DoneAndNotDoneFutures): `auto [done, pending] = wait(results);`.
/// Both in the order of the input, each result once.
template <class T>
struct done_and_pending {
  std::vector<AsyncResult<T>> done;     ///< ready: with a value or an exception
  std::vector<AsyncResult<T>> pending;  ///< still going on
};

namespace detail {

template <class Results>
inline constexpr bool are_results = false;
template <class T>
inline constexpr bool are_results<AsyncResult<T>> = true;

template <class T>
std::type_identity<T> value_of(const AsyncResult<T>&);

struct result_access {
  /// The job behind a result. @throws std::invalid_argument for one that was moved from
  template <class T>
  static job& job_of(const AsyncResult<T>& result) {
    if (result.job_ != nullptr) return *result.job_;
    throw std::invalid_argument("a result to wait for is empty: it was moved from");
  }
};

/// Results, each once, and the jobs behind them in the same order.
template <class T>
struct distinct_results {
  template <class Range>
  explicit distinct_results(Range& given) {
    if constexpr (std::ranges::sized_range<Range>) {
      const auto size = static_cast<std::size_t>(std::ranges::size(given));
      results.reserve(size);
      jobs.reserve(size);
    }
    for (const AsyncResult<T>& each : given) {
      if (jobs.insert(result_access::job_of(each))) results.push_back(each);
    }
  }

  std::vector<AsyncResult<T>> results;
  distinct_jobs jobs;
};

template <class T, class Range>
done_and_pending<T> wait_for_results(Range& given, return_when when, os::deadline until,
                                     const stop_token& stop) {
  distinct_results<T> all(given);
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

/// A range of AsyncResult<T>, all of one T.
template <class Range>
concept range_of_results =
    std::ranges::input_range<Range> && detail::are_results<std::ranges::range_value_t<Range>>;

/// The T of a range of AsyncResult<T>.
template <range_of_results Range>
using result_value_t =
    typename decltype(detail::value_of(std::declval<std::ranges::range_value_t<Range>&>()))::type;

/// Waits for some or all of many results, of one pool or of several.
/// @param results a range of AsyncResult<T>; one that is given twice counts once. Empty: returns at
/// once
/// @param when what to wait for; cancelled results count as ready, but not as failed (Python's
/// rule)
/// @returns what is ready and what is not, also when the time is over: it throws for no result.
/// Results of a pool that ends become ready with CancelledError, or BrokenPool.
/// @throws std::invalid_argument for a result that was moved from; std::logic_error when one that
/// is not ready belongs to another process (a forked child waits for its parent's results)
///
/// Any thread, also in a callback, but there not for results that have a callback to be run first.
/// The time it takes is linear in the number of results. In a loop that takes each as it comes
/// as_completed() is better than FIRST_COMPLETED again and again, which is quadratic.
template <range_of_results Range>
auto wait(Range&& results, return_when when = ALL_COMPLETED) {
  return detail::wait_for_results<result_value_t<Range>>(results, when, std::nullopt, {});
}
/// The same, for at most @p timeout; what is ready at once is seen with 0, too.
template <range_of_results Range, class Rep, class Period>
auto wait(Range&& results, return_when when, std::chrono::duration<Rep, Period> timeout) {
  return detail::wait_for_results<result_value_t<Range>>(results, when,
                                                         detail::os::deadline_after(timeout), {});
}
/// The same, until a stop is requested.
template <range_of_results Range>
auto wait(Range&& results, return_when when, const stop_token& stop) {
  return detail::wait_for_results<result_value_t<Range>>(results, when, std::nullopt, stop);
}

/// Results in the order in which they become ready, for one range-based for loop, in one thread;
/// what as_completed() returns. It keeps no result that it has handed out. The loop may be left at
/// any time, and gone on with.
template <class T>
class completed_results {
  // At a fixed address: jobs know where they are watched.
  struct state {
    state(detail::distinct_results<T>&& given, detail::os::deadline until, stop_token stop)
        : results(std::move(given.results)),
          order(detail::watch_completions(given.jobs.all(), until, std::move(stop))) {}

    void advance() {
      current.reset();
      if (const auto index = order->next()) current.emplace(std::move(results[*index]));
    }

    std::vector<AsyncResult<T>> results;  // those that were handed out are empty
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
    /// Lets go of this result and waits for the next. @throws what as_completed() says
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

  completed_results(detail::distinct_results<T>&& given, detail::os::deadline until,
                    stop_token stop)
      : state_(std::make_unique<state>(std::move(given), until, std::move(stop))) {}

  /// Waits for the next result that was not handed out before. @throws what as_completed() says
  [[nodiscard]] iterator begin() {
    state_->advance();
    return iterator(*state_);
  }
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

 private:
  std::unique_ptr<state> state_;
};

/// The results in the order in which they become ready, those first that are ready now:
/// `for (auto& result : as_completed(results)) use(result.get());`.
/// @param results as for wait(); the loop has handles of its own
/// @returns an input range; its iterators wait
/// @throws std::invalid_argument and std::logic_error as wait(), here or in the loop
///
/// Any thread, also in a callback, but there not for results that have a callback to be run first.
/// Costs the same for each result, however many there are.
template <range_of_results Range>
[[nodiscard]] auto as_completed(Range&& results) {
  using T = result_value_t<Range>;
  return completed_results<T>(detail::distinct_results<T>(results), std::nullopt, {});
}
/// The same; @p timeout is for the whole loop, from this call on: then the loop throws
/// TimeoutError, which says how many of how many results are unfinished, unless one is ready to be
/// handed out.
template <range_of_results Range, class Rep, class Period>
[[nodiscard]] auto as_completed(Range&& results, std::chrono::duration<Rep, Period> timeout) {
  using T = result_value_t<Range>;
  const auto until = detail::os::deadline_after(timeout);
  return completed_results<T>(detail::distinct_results<T>(results), until, {});
}
/// The same; when a stop is requested and no result is ready, the loop throws CancelledError.
template <range_of_results Range>
[[nodiscard]] auto as_completed(Range&& results, stop_token stop) {
  using T = result_value_t<Range>;
  return completed_results<T>(detail::distinct_results<T>(results), std::nullopt, std::move(stop));
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/result/wait_set.hpp>
#endif
