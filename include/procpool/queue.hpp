// SPDX-License-Identifier: MIT
/// @file
/// Queue, JoinableQueue and SimpleQueue: values on their way between processes. See docs/queue.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/queue/queue_handle.hpp>
#include <procpool/error.hpp>

namespace procpool {

/// What bounds a queue.
struct queue_options {
  /// The most items that wait in the queue; put() waits while there are so many. 0 or less: no
  /// limit, put() never waits. As in Python.
  detail::number<std::int64_t> maxsize = 0;
  /// The most bytes that items in the queue take together, encoded; put() waits for room. One item
  /// may be larger: it waits until the queue is empty. 0: no limit.
  detail::number<std::uint64_t> max_bytes = 0;
};

/// The options of a JoinableQueue.
struct joinable_queue_options {
  detail::number<std::int64_t> maxsize = 0;     ///< as in queue_options
  detail::number<std::uint64_t> max_bytes = 0;  ///< as in queue_options
  /// What becomes of values that a process has taken and not finished when it dies. False: they
  /// count as finished. True: they are put at the end of the queue again, when another process
  /// looks for a value or joins, also if the queue is full or closed. Then task_done() means the
  /// oldest value of the process, a value may come twice, and taking one costs a copy more.
  bool redeliver = false;
};

namespace detail {

[[nodiscard]] inline queue_limits limits_of(const joinable_queue_options& options) {
  const std::int64_t items = options.maxsize;
  return {static_cast<std::uint64_t>(std::max<std::int64_t>(items, 0)), options.max_bytes,
          options.redeliver};
}
[[nodiscard]] inline queue_limits limits_of(const queue_options& options) {
  const std::int64_t items = options.maxsize;
  return {static_cast<std::uint64_t>(std::max<std::int64_t>(items, 0)), options.max_bytes, false};
}

/// The functions of Queue and JoinableQueue.
template <class T, class Self, bool joinable>
class full_queue : public queue_handle<T, Self, joinable> {
 public:
  /// Puts a value at the end. Waits while the queue is full; without bounds it never is.
  /// @throws QueueClosed; ProcessError when there is no memory for it; what the codec of `T` throws
  void put(const T& value) const { this->put_until(value, std::nullopt); }
  /// The same. @param timeout zero or less: does not wait. @throws Full: no room in time
  template <class Rep, class Period>
  void put(const T& value, std::chrono::duration<Rep, Period> timeout) const {
    this->put_until(value, os::deadline_after(timeout));
  }
  /// The same without waiting. @throws Full
  void put_nowait(const T& value) const { this->put_until(value, not_waiting); }
  /// The same without waiting. @returns whether there was room. @throws as put()
  [[nodiscard]] bool try_put(const T& value) const {
    return put_item(this->queue()->bytes, value, not_waiting);
  }
  /// @returns whether there was room in time. @throws as put()
  template <class Rep, class Period>
  [[nodiscard]] bool try_put(const T& value, std::chrono::duration<Rep, Period> timeout) const {
    return put_item(this->queue()->bytes, value, os::deadline_after(timeout));
  }
  /// Puts all values of a range in order; those of other processes may come between them. Faster
  /// than one by one: the lock is taken once for many. @throws as put(); some values may have been
  /// put then
  template <std::ranges::input_range Range>
  void put_many(Range&& values) const {
    put_items<T>(this->queue()->bytes, std::forward<Range>(values));
  }

  /// Takes the first value. Waits while there is none.
  /// @throws QueueClosed: it is closed and empty; DecodeError: the item was no `T`, because another
  /// process has damaged the queue (it is removed); what the codec of `T` throws
  T get() const { return this->get_until(std::nullopt); }
  /// The same. @param timeout zero or less: does not wait. @throws Empty: there was none in time
  template <class Rep, class Period>
  T get(std::chrono::duration<Rep, Period> timeout) const {
    return this->get_until(os::deadline_after(timeout));
  }
  /// The same without waiting. @throws Empty
  T get_nowait() const { return this->get_until(not_waiting); }
  /// The same without waiting. @returns nothing: there is none, whether the queue is closed or not
  [[nodiscard]] std::optional<T> try_get() const { return this->try_get_until(not_waiting); }
  /// @returns nothing: there was none in time, or the queue is closed and empty
  template <class Rep, class Period>
  [[nodiscard]] std::optional<T> try_get(std::chrono::duration<Rep, Period> timeout) const {
    return this->try_get_until(os::deadline_after(timeout));
  }
  /// Takes at least one value and at most @p most. Waits while there is none. The codec of `T` must
  /// not use this queue. @throws as get()
  std::vector<T> get_many(number<std::size_t> most) const { return many_until(most, std::nullopt); }
  /// The same. @throws Empty: there was none in time
  template <class Rep, class Period>
  std::vector<T> get_many(number<std::size_t> most,
                          std::chrono::duration<Rep, Period> timeout) const {
    return many_until(most, os::deadline_after(timeout));
  }

  /// How many values are in the queue. Momentary, as empty() and full().
  [[nodiscard]] std::size_t qsize() const noexcept { return this->queue()->bytes.size(); }
  [[nodiscard]] bool empty() const noexcept { return this->queue()->bytes.is_empty(); }
  /// Whether put() would wait, for a value that takes no more than a byte.
  [[nodiscard]] bool full() const noexcept { return this->queue()->bytes.is_full(1); }

  /// From now on nothing can be put, in any process. What is in the queue can be taken; then get()
  /// throws QueueClosed and loops over the queue end. Python: close() concerns this process only.
  void close() const { this->queue()->bytes.close(); }
  [[nodiscard]] bool closed() const noexcept { return this->queue()->bytes.is_closed(); }

  /// For a range-for, which takes values until the queue is closed and empty.
  [[nodiscard]] queue_iterator<T> begin() const { return queue_iterator<T>(this->queue()); }
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

 protected:
  using queue_handle<T, Self, joinable>::queue_handle;

 private:
  [[nodiscard]] std::vector<T> many_until(std::size_t most, const os::deadline& until) const {
    bool is_over = false;
    auto values = get_items<T>(this->queue()->bytes, this->unfinished(),
                               std::max<std::size_t>(most, 1), until, is_over);
    if (is_over) queue_is_over();
    if (values.empty()) queue_has_no_item();
    return values;
  }
};

}  // namespace detail

/// A queue of values between processes and threads of one program: first in, first out, with any
/// number of producers and consumers. A value: copies are the same queue.
///
///     void produce(procpool::Queue<std::string> out, int n) {
///       for (int i = 0; i < n; ++i) out.put("line " + std::to_string(i));
///     }
///     procpool::Queue<std::string> queue;
///     procpool::Process producer(produce, queue, 10);
///     producer.start();
///     std::string first = queue.get();
///
/// `T` is any type that can be sent (see codec.hpp), of any size. A handle travels as an argument,
/// a member, an item, a result, also through another queue, to workers that were started before the
/// queue was made, under fork and spawn.
///
/// Any thread and process may use it at any time. A process that is killed in the middle of put()
/// has not put the value, in get() it has not taken it, or has done it completely; others go on
/// within 100 ms. Values it had put before stay. No thread works behind the queue: put() returns
/// when the value is in it.
///
/// Without bounds the queue grows as long as memory lasts: all values that wait are in memory. What
/// was taken is given back. An empty queue keeps up to 8 MiB, one that has been waited for longer
/// than 63 ms keeps 64 KiB.
///
/// Python: multiprocessing.Queue.
template <class T>
class Queue : public detail::full_queue<T, Queue<T>, false> {
 public:
  /// @throws ProcessError when the system refuses memory or descriptors
  explicit Queue(queue_options options = {})
      : detail::full_queue<T, Queue, false>(detail::limits_of(options)) {}

 private:
  friend detail::queue_codec<Queue>;
  explicit Queue(detail::object_ref object)
      : detail::full_queue<T, Queue, false>(std::move(object)) {}
};

/// A Queue whose consumers tell when they have finished with a value, so that others can wait for
/// that. Values that a process had taken and not finished when it died count as finished, or go
/// back
/// (`.redeliver`): join() never waits for a dead process. Python: multiprocessing.JoinableQueue.
template <class T>
class JoinableQueue : public detail::full_queue<T, JoinableQueue<T>, true> {
 public:
  /// @throws ProcessError when the system refuses memory or descriptors
  explicit JoinableQueue(joinable_queue_options options = {})
      : detail::full_queue<T, JoinableQueue, true>(detail::limits_of(options)) {}

  /// One value that was taken is finished: of this process, or of another one if this process has
  /// none. @throws std::logic_error: all that were taken are finished. Python: ValueError
  void task_done() const {
    if (!this->unfinished()->finish_one()) detail::too_many_finished();
  }
  /// Waits until the queue is empty and all values that were taken are finished.
  void join() const { static_cast<void>(this->unfinished()->wait(std::nullopt)); }
  /// The same. @returns whether it was so in time. Python has no timeout here
  template <class Rep, class Period>
  [[nodiscard]] bool join(std::chrono::duration<Rep, Period> timeout) const {
    return this->unfinished()->wait(detail::os::deadline_after(timeout));
  }

 private:
  friend detail::queue_codec<JoinableQueue>;
  explicit JoinableQueue(detail::object_ref object)
      : detail::full_queue<T, JoinableQueue, true>(std::move(object)) {}
};

/// A queue with few functions, without bounds. Python: multiprocessing.SimpleQueue.
template <class T>
class SimpleQueue : public detail::queue_handle<T, SimpleQueue<T>, false> {
 public:
  /// @throws ProcessError when the system refuses memory or descriptors
  SimpleQueue() : detail::queue_handle<T, SimpleQueue, false>(detail::queue_limits{}) {}

  /// As Queue::put(), never waits.
  void put(const T& value) const { this->put_until(value, std::nullopt); }
  /// As Queue::get().
  T get() const { return this->get_until(std::nullopt); }
  /// Momentary. @throws QueueClosed. Python: OSError
  [[nodiscard]] bool empty() const {
    if (this->queue()->bytes.is_closed()) detail::queue_is_over();
    return this->queue()->bytes.is_empty();
  }
  /// As Queue::close().
  void close() const { this->queue()->bytes.close(); }

 private:
  friend detail::queue_codec<SimpleQueue>;
  explicit SimpleQueue(detail::object_ref object)
      : detail::queue_handle<T, SimpleQueue, false>(std::move(object)) {}
};

/// Queues travel as handles. Decoding throws DecodeError if the queue has ended, or is of another
/// program or type.
template <class T>
struct codec<Queue<T>> : detail::queue_codec<Queue<T>> {};
template <class T>
struct codec<JoinableQueue<T>> : detail::queue_codec<JoinableQueue<T>> {};
template <class T>
struct codec<SimpleQueue<T>> : detail::queue_codec<SimpleQueue<T>> {};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/queue/get_turn.hpp>
#include <procpool/detail/queue/put_turn.hpp>
#include <procpool/detail/queue/queue_errors.hpp>
#include <procpool/detail/queue/unfinished_access.hpp>
#endif
