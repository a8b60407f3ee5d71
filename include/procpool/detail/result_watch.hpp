// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// Waiting for some of many results, of one pool or several.
///
/// Results of one pool: the waiting thread drives the pool, as with a single result. Results of
/// several: their service threads drive, and the waiting thread sleeps on a condition variable of
/// its own; unless it is a service thread itself (a callback waits), because nobody would drive its
/// pool then: it drives one pool after the other, for a moment each.
///
/// A watch is told under the lock of a pool and takes its own lock then, never the other way round.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include <procpool/detail/job.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/watcher.hpp>

namespace procpool {

/// What wait() waits for; Python's names for the values are below.
enum class return_when {
  first_completed,
  first_exception,
  all_completed,
};

}  // namespace procpool

namespace procpool::detail {

/// What is news to a watch.
enum class watch_rule {
  any_ready,      ///< each job that becomes ready
  first_failure,  ///< the first that ends with an exception, or the last of all
};

/// Watches jobs, all different, that live longer than it. For one thread.
class result_watch final : public watcher, public waitable {
 public:
  result_watch(std::span<job* const> jobs, watch_rule rule)
      : rule_(rule), points_(jobs.size()), missing_(jobs.size()) {
    for (std::size_t i = 0; i < jobs.size(); ++i) points_[i].what = jobs[i];
  }
  result_watch(const result_watch&) = delete;
  result_watch& operator=(const result_watch&) = delete;
  ~result_watch() {
    for (watch_point& each : points_) {
      if (each.owner != nullptr) each.what->pool().unwatch(each);  // it may have been told
    }
  }

  /// Takes note of the jobs that are ready and has itself told of the others; those are left out
  /// when there is news enough, unless @p all is set. Once. @throws what driver::watch() throws
  void start(bool all);

  /// Waits until there is news, @p until has come or a stop is requested; whether there is news.
  bool wait(std::optional<time_point> until, const std::stop_token& stop);

  /// The index of a ready job that was not returned before, in the order in which they became so.
  [[nodiscard]] std::optional<std::size_t> pop() noexcept;

  /// There is something to pop, or there was a failure, or all are ready.
  [[nodiscard]] bool ready() const noexcept override {
    return news_.load(std::memory_order_acquire);  // what the other thread knew
  }
  [[nodiscard]] bool resolved() const noexcept override { return ready(); }

  void told(watch_point& at, const job& what) noexcept override;

 private:
  void register_at(watch_point& point);
  void remember(driver& pool);
  bool sleep(std::optional<time_point> until, const std::stop_token& stop);
  bool take_turns(std::optional<time_point> until, const std::stop_token& stop);
  [[nodiscard]] bool failed(const job& what) noexcept;

  const watch_rule rule_;
  // A point has its owner as long as the job may know it, and its job until the watch starts with
  // a job that is ready.
  std::vector<watch_point> points_;
  std::vector<boost::intrusive_ptr<driver>> pools_;  ///< of jobs that were not ready, each once
  watch_point* popped_ = nullptr;                    ///< the next ones to be returned

  std::mutex mutex_;
  std::condition_variable changed_;
  watch_point* first_ = nullptr;  ///< those that are ready, chained by next
  watch_point* last_ = nullptr;
  std::size_t missing_;              ///< jobs that are not ready
  std::exception_ptr cancellation_;  ///< the last one met: a pool that ends gives all the same
  std::atomic<bool> news_{false};
  bool sleeping_ = false;
};

/// Waits until some of these jobs are ready, @p until has come or a stop is requested.
/// @param jobs all different
void wait_for_jobs(std::span<job* const> jobs, return_when when, std::optional<time_point> until,
                   const std::stop_token& stop);

/// What as_completed does, for jobs of any type: they are all different and live until they have
/// been returned.
class completion_order {
 public:
  completion_order(std::span<job* const> jobs, std::optional<time_point> until,
                   std::stop_token stop)
      : watch_(jobs, watch_rule::any_ready),
        all_(jobs.size()),
        left_(jobs.size()),
        until_(until),
        stop_(std::move(stop)) {}

  /// To be called once, before next(). @throws what driver::watch() throws
  void start() { watch_.start(true); }

  /// The index of the next job that is ready; empty at the end. @throws TimeoutError,
  /// CancelledError; what driver::wait() throws
  [[nodiscard]] std::optional<std::size_t> next();

 private:
  result_watch watch_;
  const std::size_t all_;
  std::size_t left_;
  const std::optional<time_point> until_;
  const std::stop_token stop_;
};

}  // namespace procpool::detail
