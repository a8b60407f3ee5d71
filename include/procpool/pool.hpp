// SPDX-License-Identifier: MIT
/// @file
/// Pool: runs functions in worker processes, with the names and the meaning of Python's
/// multiprocessing.Pool.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <boost/smart_ptr/intrusive_ptr.hpp>

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
#include <procpool/imap.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>

namespace procpool {

/// A pool of workers. `procpool::Pool pool{4};` has four processes, forked when the pool is made;
/// they see the program's memory as it was then.
///
/// What can be run: functions, lambdas whose captures are trivially copyable, and function objects
/// with encodable members; arguments travel as the callee's parameter types (see codec.hpp).
/// Results come back by value. Tasks run in any order, on any worker, one at a time in each.
///
/// Failures: a task's exception is thrown to whoever asks for its result, with its own type and a
/// RemoteTraceback nested inside. A worker that dies (signal, exit, abort) is replaced; the one
/// item that it was running ends with WorkerDied, nothing else is lost or run twice.
///
/// Threads: all members may be called from several threads of the process that made the pool, but
/// none may still be in a call of it when the destructor begins, except waits on results, which end
/// with CancelledError. In a forked child, and in a task that it runs, a pool cannot be used: all
/// members are std::logic_error there, and the destructor does nothing. Make another one.
///
/// If this process is killed, the workers are gone within a moment.
template <class Backend = Processes>
class Pool : detail::pool_misuse {
  template <class F, class Range, class How>
  using map_result = detail::map_result_t<detail::gather_results, How, F, Range&>;
  template <class F, class Range, class How>
  using map_outcomes_result = detail::map_result_t<detail::gather_outcomes, How, F, Range&>;

 public:
  using detail::pool_misuse::apply, detail::pool_misuse::apply_async, detail::pool_misuse::map,
      detail::pool_misuse::map_async, detail::pool_misuse::starmap,
      detail::pool_misuse::starmap_async, detail::pool_misuse::imap,
      detail::pool_misuse::imap_unordered;  // what does not compile, and says why

  /// As many workers as CPUs are usable.
  Pool() : Pool(pool_options{}) {}
  /// @param processes number of workers. @throws as below
  explicit Pool(int processes) : Pool(pool_options{.processes = processes}) {}
  /// @throws std::invalid_argument for options out of range; ProcessError when the system refuses
  /// processes, memory or descriptors, processes and memory for 2 s: nothing is left behind then.
  explicit Pool(pool_options options) {
    // Not as an initializer: the workers, which are forked in between, see that it is not there.
    core_ = detail::start_pool<Backend>(options, options.initializer.frame_);
  }

  template <detail::no_number T>
  explicit Pool(T) = delete;  // a number is wanted
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  /// Terminates, as leaving Python's `with` does: outstanding results end with CancelledError.
  ~Pool() {
    if (core_ == nullptr) return;  // in one of its workers
    if (core_->ours()) {
      core_->terminate();
      core_->close_fileno();
    } else {
      core_.detach();  // another process's: its threads and locks do not exist here
    }
  }

  /// Calls @p function(@p arguments...) in a worker and waits for the result.
  /// @throws what the task throws; WorkerDied; PoolClosed, BrokenPool, CancelledError
  template <class F, class... A>
    requires(!std::is_same_v<std::decay_t<F>, call_options>)
  auto apply(F&& function, A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      return apply({}, function, std::forward<A>(arguments)...);
    }
  }
  /// With options: `pool.apply({.timeout = 2s, .retries = 1}, f, 7)`.
  /// @throws TimeoutError when it ran too long; std::invalid_argument for options out of range
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

  /// The same without waiting. @throws PoolClosed, BrokenPool; what encoding the arguments throws
  template <class F, class... A>
    requires(!is_task_options_v<std::decay_t<F>>)
  auto apply_async(F&& function, A&&... arguments) {
    if constexpr (detail::check_listed_call<std::decay_t<F>>(detail::type_list<A...>{})) {
      using result = detail::task_result_t<std::decay_t<F>, A...>;
      return AsyncResult<result>(
          detail::start_call(core(), detail::attended::no, {}, function, nullptr, arguments...));
    }
  }
  /// With options: `pool.apply_async({.timeout = 2s, .callback = log}, f, 7)`.
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

  /// The same, but does not wait for room: empty when pool_options::max_pending tasks are not done.
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

  /// Calls @p function for every item of any input range; a std::vector of the results in the
  /// order of the input. All items are run; then the first failure by index is thrown, if any.
  /// @throws what the range throws; what tasks throw; WorkerDied with item(); PoolClosed ...
  template <class F, std::ranges::input_range Range>
  auto map(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::as_argument>(function, items, options);
  }
  template <class F, class Item>
  auto map(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::as_argument>(function, items, options);
  }
  /// The same without waiting for the results; the items are read before it returns.
  template <class F, std::ranges::input_range Range>
  auto map_async(F&& function, Range&& items,
                 map_async_options<map_result<F, Range, detail::as_argument>> options = {}) {
    return start_map<detail::as_argument>(function, items, std::move(options));
  }

  /// Calls @p function with the elements of each item, a tuple, pair or array, as its arguments.
  template <class F, std::ranges::input_range Range>
  auto starmap(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::spread>(function, items, options);
  }
  template <class F, class Item>
  auto starmap(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::spread>(function, items, options);
  }
  /// The same without waiting.
  template <class F, std::ranges::input_range Range>
  auto starmap_async(F&& function, Range&& items,
                     map_async_options<map_result<F, Range, detail::spread>> options = {}) {
    return start_map<detail::spread>(function, items, std::move(options));
  }

  /// Like map, but gives one Outcome for each item, a value or an exception, and throws for none of
  /// them. What a pool leaves undone that ends has CancelledError or BrokenPool as its outcome.
  template <class F, std::ranges::input_range Range>
  auto map_outcomes(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::as_argument, detail::gather_outcomes>(function, items, options);
  }
  template <class F, class Item>
  auto map_outcomes(F&& function, std::initializer_list<Item> items, map_options options = {}) {
    return run_map<detail::as_argument, detail::gather_outcomes>(function, items, options);
  }
  /// The same without waiting.
  template <class F, std::ranges::input_range Range>
  auto map_outcomes_async(
      F&& function, Range&& items,
      map_async_options<map_outcomes_result<F, Range, detail::as_argument>> options = {}) {
    return start_map<detail::as_argument, detail::gather_outcomes>(function, items,
                                                                   std::move(options));
  }
  /// Like starmap, with outcomes.
  template <class F, std::ranges::input_range Range>
  auto starmap_outcomes(F&& function, Range&& items, map_options options = {}) {
    return run_map<detail::spread, detail::gather_outcomes>(function, items, options);
  }

  /// The results of @p function for all items, put together by @p reduce in the workers first; see
  /// map_reduce.hpp, also for the initial value. @throws std::invalid_argument for no items without
  /// one; what map throws; what @p reduce throws
  template <class F, std::ranges::input_range Range, class Reduce>
  auto map_reduce(F&& function, Range&& items, Reduce&& reduce, map_options options = {});
  template <class F, class Item, class Reduce>
  auto map_reduce(F&& function, std::initializer_list<Item> items, Reduce&& reduce,
                  map_options options = {});
  template <class F, std::ranges::input_range Range, class Reduce, class Initial>
    requires(!std::is_same_v<std::decay_t<Initial>, map_options>)
  auto map_reduce(F&& function, Range&& items, Reduce&& reduce, Initial&& initial,
                  map_options options = {});

  /// Results one by one, in order, while they are computed; see ImapIterator. An lvalue range must
  /// outlive the result.
  template <class F, std::ranges::viewable_range Range>
  [[nodiscard]] auto imap(F&& function, Range&& items, imap_options options = {}) {
    return start_imap(function, std::forward<Range>(items), options, true);
  }
  /// The same in the order in which they are done.
  template <class F, std::ranges::viewable_range Range>
  [[nodiscard]] auto imap_unordered(F&& function, Range&& items, imap_options options = {}) {
    return start_imap(function, std::forward<Range>(items), options, false);
  }

  /// From now on there are to be so many workers. More are started at once, with their initializer;
  /// those that are too many leave when they have done what they have begun, and what they have not
  /// begun is done by others. Any thread, while work is going on. If the system has no room for so
  /// many the pool is as large as it could be: processes() tells. What this process holds for those
  /// that left (memory, descriptors) it gives back when it waits for results the next time.
  /// @param processes at least 1, at most 256 or what the pool was made with (less if ring_bytes is
  /// more than 256 KiB: the rings of all that there is room for take 64 MiB of address space)
  /// @throws std::invalid_argument; PoolClosed, BrokenPool
  void resize(int processes) {
    if (processes < 1) throw std::invalid_argument("a pool has at least 1 worker");
    core()->resize(static_cast<std::uint32_t>(processes));
  }
  /// How many workers there are to be.
  [[nodiscard]] int processes() const { return static_cast<int>(core()->workers()); }
  /// A descriptor for event loops (poll, epoll, libuv): an eventfd(2) that counts the results that
  /// have become ready, of apply_async and the other asynchronous calls (a chunk of an imap counts
  /// as one; what is ready when it is submitted, a map of nothing
  /// without a callback, does not), since it was last
  /// read. When it is readable read its 8 bytes, which sets it to 0, then look at your AsyncResults
  /// with ready(). Results may become ready between the two: that makes it readable once more, with
  /// nothing new to be found. Nobody has to wait or drive: the pool's service thread does.
  ///
  /// Made by the first call, which counts from then on; nothing is paid before. Nonblocking,
  /// close-on-exec, above 2. It belongs to the pool and is closed by its destructor (not by
  /// terminate(), so that a loop hears of what that ends): take it out of the loop before. In a
  /// process forked from this one it is closed.
  /// @throws ProcessError when there is no descriptor left; std::logic_error in a forked process
  [[nodiscard]] int fileno() { return core()->fileno(); }

  /// No more work can be submitted; what was submitted goes on. Idempotent.
  void close() { core()->close(); }
  /// Waits until all work is done and all workers have left.
  /// @throws std::logic_error unless close() or terminate() was called before
  void join() { static_cast<void>(core()->join({}, {})); }
  /// The same, but waits at most for @p timeout; whether all have left. It can be repeated.
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) {
    return core()->join(detail::os::deadline_after(timeout), {});
  }
  /// The same, but gives up when a stop is requested; whether all have left.
  bool join(const stop_token& stop) { return core()->join({}, stop); }
  /// Kills the workers; outstanding results end with CancelledError. Idempotent.
  void terminate() { core()->terminate(); }
  /// What can be done with it now, as far as is known: that a pool is broken comes to light when
  /// somebody submits, waits for results, or has work done. Does not wait. @throws std::logic_error
  /// in a forked process
  [[nodiscard]] pool_state state() const { return core()->state(); }

 private:
  [[nodiscard]] const boost::intrusive_ptr<detail::pool_interface>& core() const {
    if (core_ == nullptr) [[unlikely]]
      detail::pool_interface::not_there();
    return core_;
  }

  template <class How, class Gather = detail::gather_results, class F, class Range>
  auto run_map(const F& function, Range& items, const map_options& options) {
    if constexpr (check_map<How, F, Range>()) {
      const detail::terms_scope stoppable(options.stop);
      return detail::finish(*detail::start_map<How, Gather>(core(), detail::attended::yes, function,
                                                            items, options, nullptr),
                            options.stop);
    }
  }

  template <class How, class Gather = detail::gather_results, class F, class Range, class Options>
  auto start_map(const F& function, Range& items, Options options) {
    if constexpr (check_map<How, F, Range>()) {
      using result = detail::map_result_t<Gather, How, F, Range&>;
      auto callback = detail::callback_of<result>(
          {std::move(options.callback), std::move(options.error_callback)});
      return AsyncResult<result>(detail::start_map<How, Gather>(
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

  template <class How, class F, class Range>
  static consteval bool check_map() {
    using item = std::ranges::range_reference_t<Range&>;
    return detail::check_listed_call<std::decay_t<F>>(
        detail::item_arguments<std::decay_t<F>, item, How>{});
  }

  boost::intrusive_ptr<detail::pool_interface> core_;
};

Pool(int)->Pool<Processes>;
Pool(pool_options)->Pool<Processes>;

/// Python's multiprocessing.pool.ThreadPool.
using ThreadPool = Pool<Threads>;

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/pool/start_pool.hpp>
#endif
