// SPDX-License-Identifier: MIT
/// @file
/// Pool: runs functions in worker processes, with the names and semantics of Python's
/// multiprocessing.Pool.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/async_result.hpp>
#include <procpool/backend.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/pool/pool_misuse.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/calls.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/submit/submission_terms.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/imap.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>

namespace procpool {

/// A pool of workers. `procpool::Pool pool{4};` forks four processes when the pool is made. They
/// see the program's memory as it was at that moment.
///
/// A task can call a function, a lambda with trivially copyable captures, or a function object with
/// encodable members. Arguments travel as the callee's parameter types (see codec.hpp); results
/// come back by value. Each worker runs one task at a time. The order of tasks and the choice of
/// the worker are unspecified.
///
/// Failures: the exception of a task is thrown to each caller that asks for the result, with its
/// own type and a nested RemoteTraceback. A worker that dies (signal, exit, abort) is replaced. The
/// item that it ran ends with WorkerDied (Python: the result never arrives). No other item is lost
/// or run twice. If this process is killed, its workers are killed immediately.
///
/// Threads: any thread of the process that made the pool may call any member. No call may be in
/// progress when the destructor begins, except waits for results, which end with CancelledError.
///
/// Processes: a forked child, and a task in one of its workers, cannot use the pool. Every member
/// throws std::logic_error there, and the destructor does nothing. Make another pool there.
template <class Backend = Processes>
class Pool : detail::pool_misuse {
  template <class F, class Range, class Passing>
  using map_result = detail::map_result_t<detail::gather_results, Passing, F, Range&>;
  template <class F, class Range, class Passing>
  using map_outcomes_result = detail::map_result_t<detail::gather_outcomes, Passing, F, Range&>;

 public:
  using detail::pool_misuse::apply, detail::pool_misuse::apply_async, detail::pool_misuse::map,
      detail::pool_misuse::map_async, detail::pool_misuse::starmap,
      detail::pool_misuse::starmap_async, detail::pool_misuse::imap,
      detail::pool_misuse::imap_unordered;  // calls that do not compile, with the reason

  /// One worker for each CPU that this process may use. @throws as Pool(pool_options)
  Pool() : Pool(pool_options{}) {}
  /// @param processes number of workers, at least 1
  /// @throws as Pool(pool_options)
  explicit Pool(int processes) : Pool(pool_options{.processes = processes}) {}
  /// Starts the workers and waits until each has been forked.
  /// @throws std::invalid_argument for an option out of range; ProcessError when the system refuses
  /// descriptors, or has refused processes or memory for 2 s. Nothing is left behind then.
  explicit Pool(pool_options options) {
    // Not in an initializer list: workers are forked during this call, and core_ must be null
    // there.
    core_ = detail::start_pool<Backend>(options, options.initializer.frame_);
  }

  template <detail::no_number T>
  explicit Pool(T) = delete;  // a number is required
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  /// Calls terminate(), as the end of Python's `with` block does: unfinished results end with
  /// CancelledError. To finish them, call close() and join() first.
  ~Pool() {
    if (core_ == nullptr) return;  // in one of the pool's workers
    if (core_->ours()) {
      core_->terminate();
      core_->close_fileno();
    } else {
      core_.detach();  // in a forked child: the pool's threads and locks do not exist here
    }
  }

  /// Calls @p function(@p arguments...) in a worker and waits for the result.
  /// @returns the result, by value
  /// @throws the exception of the task; WorkerDied; PoolClosed, BrokenPool; CancelledError when the
  /// pool is terminated meanwhile
  template <class F, class... A>
    requires(!std::is_same_v<std::decay_t<F>, call_options>)
  auto apply(F&& function, A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      return apply({}, function, std::forward<A>(arguments)...);
    }
  }
  /// apply() with options: `pool.apply({.timeout = 2s, .retries = 1}, f, 7)`.
  /// @throws as above; TimeoutError when the task ran too long; CancelledError after a stop
  /// request; std::invalid_argument for an option out of range
  template <class F, class... A>
  auto apply(call_options options, F&& function, A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      const auto limits = detail::checked_limits(options.timeout, options.retries);
      const detail::terms_scope stoppable(options.stop);
      return detail::finish(*detail::start_call(core(), detail::attended::yes, limits, function,
                                                nullptr, arguments...),
                            options.stop);
    }
  }

  /// Submits a call of @p function(@p arguments...) and returns at once; waits only while
  /// pool_options::max_pending tasks are unfinished.
  /// @returns an AsyncResult, which gets what the task returns or throws
  /// @throws PoolClosed, BrokenPool; exceptions of encoding the arguments
  template <class F, class... A>
    requires(!is_task_options_v<std::decay_t<F>>)
  auto apply_async(F&& function, A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      using result = detail::task_result_t<std::decay_t<F>, A...>;
      return AsyncResult<result>(
          detail::start_call(core(), detail::attended::no, {}, function, nullptr, arguments...));
    }
  }
  /// apply_async() with options: `pool.apply_async({.timeout = 2s, .callback = log}, f, 7)`.
  /// @throws as above; std::invalid_argument for an option out of range
  template <class F, class... A>
  auto apply_async(task_options<detail::task_result_t<std::decay_t<F>, A...>> options, F&& function,
                   A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      using result = detail::task_result_t<std::decay_t<F>, A...>;
      const auto limits = detail::checked_limits(options.timeout, options.retries);
      return AsyncResult<result>(
          detail::start_call(core(), detail::attended::no, limits, function,
                             detail::callback_of<result>(
                                 {std::move(options.callback), std::move(options.error_callback)}),
                             arguments...));
    }
  }

  /// apply_async() that never waits for room.
  /// @returns an empty optional when pool_options::max_pending tasks are unfinished
  template <class... A>
  auto try_apply_async(A&&... arguments) {
    return detail::without_waiting(core(),
                                   [&] { return apply_async(std::forward<A>(arguments)...); });
  }
  template <class F, class... A>
  auto try_apply_async(task_options<detail::task_result_t<std::decay_t<F>, A...>> options,
                       F&& function, A&&... arguments) {
    return detail::without_waiting(core(), [&] {
      return apply_async(std::move(options), function, std::forward<A>(arguments)...);
    });
  }

  /// Calls @p function for each item of @p items, any input range, and waits for all results. Every
  /// item is run, even after a failure.
  /// @returns a std::vector of the results in the order of the input; void if @p function returns
  /// void
  /// @throws the first failure by index: the exception of a task, or WorkerDied with item();
  /// exceptions of the range; PoolClosed, BrokenPool, CancelledError
  template <class F, std::ranges::input_range Range>
  auto map(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::as_argument>(function, items, options);
  }
  template <class F, class Item>
  auto map(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::as_argument>(function, items, options);
  }
  /// map() that does not wait for the results. It reads all items before it returns.
  /// @returns an AsyncResult, whose get() returns or throws what map() would
  template <class F, std::ranges::input_range Range>
  auto map_async(F&& function, Range&& items,
                 map_async_options<map_result<F, Range, detail::as_argument>> options = {}) {
    return start_map<detail::as_argument>(function, items, std::move(options));
  }

  /// map() for a function of several parameters: each item is a tuple, pair or array of its
  /// arguments.
  template <class F, std::ranges::input_range Range>
  auto starmap(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::spread>(function, items, options);
  }
  template <class F, class Item>
  auto starmap(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::spread>(function, items, options);
  }
  /// starmap() that does not wait for the results, as map_async().
  template <class F, std::ranges::input_range Range>
  auto starmap_async(F&& function, Range&& items,
                     map_async_options<map_result<F, Range, detail::spread>> options = {}) {
    return start_map<detail::spread>(function, items, std::move(options));
  }

  /// map() that throws for no item.
  /// @returns a std::vector with one Outcome for each item: a value or an exception. Items that the
  /// end of the pool leaves undone have CancelledError or BrokenPool.
  template <class F, std::ranges::input_range Range>
  auto map_outcomes(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::as_argument, detail::gather_outcomes>(function, items, options);
  }
  template <class F, class Item>
  auto map_outcomes(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::as_argument, detail::gather_outcomes>(function, items, options);
  }
  /// map_outcomes() that does not wait for the results, as map_async().
  template <class F, std::ranges::input_range Range>
  auto map_outcomes_async(
      F&& function, Range&& items,
      map_async_options<map_outcomes_result<F, Range, detail::as_argument>> options = {}) {
    return start_map<detail::as_argument, detail::gather_outcomes>(function, items,
                                                                   std::move(options));
  }
  /// starmap() that returns outcomes, as map_outcomes().
  template <class F, std::ranges::input_range Range>
  auto starmap_outcomes(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::spread, detail::gather_outcomes>(function, items, options);
  }

  /// Reduces the results of @p function for all items to one value. Most of the reduction runs in
  /// the workers; map_reduce.hpp has the rules, also for the initial value.
  /// @throws as map(); exceptions of @p reduce; std::invalid_argument for no items and no initial
  /// value
  template <class F, std::ranges::input_range Range, class Reduce>
  auto map_reduce(F&& function, Range&& items, Reduce&& reduce, map_options options = {});
  template <class F, class Item, class Reduce>
  auto map_reduce(F&& function, std::initializer_list<Item> items, Reduce&& reduce,
                  map_options options = {});
  template <class F, std::ranges::input_range Range, class Reduce, class Initial>
    requires(!std::is_same_v<std::decay_t<Initial>, map_options>)
  auto map_reduce(F&& function, Range&& items, Reduce&& reduce, Initial&& initial,
                  map_options options = {});

  /// Returns results one by one in the order of the input, while later ones are computed; see
  /// ImapIterator. An lvalue range must outlive the result.
  /// @throws PoolClosed, BrokenPool; std::invalid_argument for an option out of range
  template <class F, std::ranges::viewable_range Range>
  [[nodiscard]] auto imap(F&& function, Range&& items, imap_options options = {}) {
    return start_imap(function, std::forward<Range>(items), options, true);
  }
  /// imap() that returns results in the order in which they finish.
  template <class F, std::ranges::viewable_range Range>
  [[nodiscard]] auto imap_unordered(F&& function, Range&& items, imap_options options = {}) {
    return start_imap(function, std::forward<Range>(items), options, false);
  }

  /// Changes the number of workers (Python has no equivalent). Any thread may call it while tasks
  /// run. New workers start at once, with the initializer. Surplus workers leave after the tasks
  /// they have begun; other workers do the rest. If the system refuses some of the new workers the
  /// pool is smaller; processes() returns the number. Memory and descriptors of workers that left
  /// are freed the next time this process waits for results.
  /// @param processes at least 1; at most the initial number, or min(256, 64 MiB / ring_bytes) if
  /// that is larger, or fewer if address space is limited (RLIMIT_AS)
  /// @throws std::invalid_argument for a number out of range; PoolClosed, BrokenPool
  void resize(int processes) {
    if (processes < 1) throw std::invalid_argument("a pool has at least 1 worker");
    core()->resize(static_cast<std::uint32_t>(processes));
  }
  /// The number of workers that the pool keeps.
  [[nodiscard]] int processes() const { return static_cast<int>(core()->workers()); }
  /// A descriptor for event loops (poll, epoll, libuv): an eventfd(2), readable when results have
  /// become ready. Its counter is the number of results of asynchronous calls that have become
  /// ready since it was last read; a chunk of an imap counts as one. A result that is ready when it
  /// is submitted (a map of no items without a callback) does not count.
  ///
  /// When it is readable, read its 8 bytes, which resets it, then check your AsyncResults with
  /// ready(). A result may become ready between the two steps: then the descriptor is readable once
  /// more with nothing new to find. No thread has to wait or drive: the pool's service thread does.
  ///
  /// The first call makes it and starts to count; a pool without that call pays nothing. It is
  /// nonblocking, close-on-exec and greater than 2. The pool owns it: the destructor closes it, so
  /// remove it from the loop before. terminate() does not close it, so that a loop sees the results
  /// that end then. It is closed in a forked process.
  /// @throws ProcessError when no descriptor is left; std::logic_error in a forked process
  [[nodiscard]] int fileno() { return core()->fileno(); }

  /// Refuses new work; work already submitted goes on. Idempotent.
  void close() { core()->close(); }
  /// Waits until all work is done and all workers have left.
  /// @throws std::logic_error unless close() or terminate() was called before
  void join() { static_cast<void>(core()->join({}, {})); }
  /// join() for at most @p timeout; can be repeated. @returns whether all workers have left
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) {
    return core()->join(detail::os::deadline_after(timeout), {});
  }
  /// join() until a stop is requested. @returns whether all workers have left
  bool join(const stop_token& stop) { return core()->join({}, stop); }
  /// Kills the workers; unfinished results end with CancelledError. Idempotent.
  void terminate() { core()->terminate(); }
  /// The state of the pool as far as this process knows, without waiting. A pool is found to be
  /// broken only when a thread submits or waits, or the service thread runs.
  /// @throws std::logic_error in a forked process
  [[nodiscard]] pool_state state() const { return core()->state(); }

 private:
  [[nodiscard]] const detail::intrusive_ptr<detail::pool_interface>& core() const {
    if (core_ == nullptr) [[unlikely]]
      detail::pool_interface::not_there();
    return core_;
  }

  template <class Passing, class Gather = detail::gather_results, class F, class Range>
  auto run_map(const F& function, Range& items, const map_options& options) {
    if constexpr (check_map<Passing, F, Range>()) {
      const detail::terms_scope stoppable(options.stop);
      return detail::finish(*detail::start_map<Passing, Gather>(core(), detail::attended::yes,
                                                                function, items, options, nullptr),
                            options.stop);
    }
  }

  template <class Passing, class Gather = detail::gather_results, class F, class Range,
            class Options>
  auto start_map(const F& function, Range& items, Options options) {
    if constexpr (check_map<Passing, F, Range>()) {
      using result = detail::map_result_t<Gather, Passing, F, Range&>;
      auto callback = detail::callback_of<result>(
          {std::move(options.callback), std::move(options.error_callback)});
      return AsyncResult<result>(detail::start_map<Passing, Gather>(
          core(), detail::attended::no, function, items, options, std::move(callback)));
    }
  }

  template <class F, class Range>
  auto start_imap(const F& function, Range&& items, const imap_options& options, bool ordered) {
    if constexpr (check_map<detail::as_argument, F, std::remove_reference_t<Range>>()) {
      using iterator = ImapIterator<std::decay_t<F>, std::views::all_t<Range>>;
      core()->check_open();
      const auto sizes =
          detail::imap_sizes(options.chunksize, options.buffersize, core()->workers());
      const auto rules =
          detail::rules_of<std::decay_t<F>>(options.timeout, options.retries, function);
      core()->check_timeout(rules.timeout);
      iterator results(core(), rules, function, std::views::all(std::forward<Range>(items)),
                       sizes.chunk, sizes.buffer, ordered);
      results.refill();
      return results;
    }
  }

  template <class Passing, class F, class Range>
  static consteval bool check_map() {
    using item = std::ranges::range_reference_t<Range&>;
    return detail::check_listed_call<std::decay_t<F>>(
        detail::item_arguments<std::decay_t<F>, item, Passing>{});
  }

  detail::intrusive_ptr<detail::pool_interface> core_;
};

Pool(int)->Pool<Processes>;
Pool(pool_options)->Pool<Processes>;

/// A pool whose workers are threads (Python: multiprocessing.pool.ThreadPool).
using ThreadPool = Pool<Threads>;

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/pool/start_pool.hpp>
#endif
