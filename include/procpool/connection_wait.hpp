// SPDX-License-Identifier: MIT
/// @file
/// wait() for Connections, processes, descriptors and results at once. Python:
/// multiprocessing.connection.wait.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

#include <procpool/async_result.hpp>
#include <procpool/connection.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/mixed_waiting.hpp>
#include <procpool/wait.hpp>

namespace procpool {

namespace detail {

/// Has a descriptor that becomes readable: Connection, Listener, Pool.
template <class T>
concept has_fileno = requires(const T& each) {
  { each.fileno() } -> std::same_as<int>;
};

}  // namespace detail

/// Something that wait() can wait for: a Connection, a Listener or anything else with fileno(), a
/// descriptor (of a socket, a pipe, Process::sentinel()), an AsyncResult. Keeps a result alive, but
/// no descriptor open.
class waited_for {
 public:
  // Implicit: they stand in the braces of wait().
  waited_for(int descriptor) : item_{descriptor, nullptr} {}  // NOLINT(google-explicit-constructor)
  template <detail::has_fileno T>
  waited_for(const T& each)  // NOLINT(google-explicit-constructor)
      : item_{each.fileno(), nullptr} {}
  /// @throws std::invalid_argument for a result that was moved from
  template <class T>
  waited_for(const AsyncResult<T>& result)  // NOLINT(google-explicit-constructor)
      : item_{-1, &detail::result_access::job_of(result)} {}

  /// The descriptor; -1 for a result.
  [[nodiscard]] int fileno() const noexcept { return item_.number; }
  /// Whether both are the same descriptor or the same result: `ready.front() == ours`.
  friend bool operator==(const waited_for&, const waited_for&) noexcept = default;

  [[nodiscard]] const detail::waited_item& item() const noexcept { return item_; }  ///< for wait()

 private:
  detail::waited_item item_;
};

namespace detail {

/// The elements of @p all that are ready, in order.
template <class Element>
std::vector<Element> wait_for_ready(std::span<const Element> all, const os::deadline& until) {
  std::vector<waited_item> items;
  items.reserve(all.size());
  for (const Element& each : all) items.push_back(waited_for(each).item());
  std::vector<bool> ready;
  std::vector<Element> found;
  if (!wait_for_items(items, ready, until)) return found;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (ready[i]) found.push_back(all[i]);
  }
  return found;
}

/// Ranges that are waited for as a whole; those of results have a wait() of their own (wait.hpp).
template <class Range>
concept waitable_range = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
                         std::convertible_to < const std::ranges::range_value_t<Range>
&, waited_for > &&!are_results<std::ranges::range_value_t<Range>>;

}  // namespace detail

/// Waits until at least one of several things is ready: a Connection has something to receive or
/// its peer is gone, a Listener has a client, a process has ended (Process::sentinel()), a
/// descriptor is readable, a result is ready. `auto ready = procpool::wait({ours,
/// process.sentinel()}, 1s);`
///
/// Any thread; for results also from a callback, but not for those whose own callbacks have yet to
/// run. Signals do not end the wait.
/// @returns those that are ready, in the order of the list. Of an empty list nothing, at once.
/// @throws std::logic_error when a Connection is closed; ProcessError: EBADF for a descriptor that
/// is not open, or when none is left (results need one)
[[nodiscard]] inline std::vector<waited_for> wait(std::initializer_list<waited_for> all) {
  return detail::wait_for_ready(std::span<const waited_for>(all.begin(), all.size()), {});
}
/// The same for at most @p timeout. @returns nothing when the time is over
/// @param timeout zero or less: does not wait; duration::max(): without limit
template <class Rep, class Period>
[[nodiscard]] std::vector<waited_for> wait(std::initializer_list<waited_for> all,
                                           std::chrono::duration<Rep, Period> timeout) {
  return detail::wait_for_ready(std::span<const waited_for>(all.begin(), all.size()),
                                detail::os::deadline_after(timeout));
}
/// The same for a vector, array or span: of Connections, of descriptors, of waited_for.
/// @returns a std::vector of the same elements
template <detail::waitable_range Range>
[[nodiscard]] auto wait(const Range& all) {
  using element = std::ranges::range_value_t<Range>;
  return detail::wait_for_ready(std::span<const element>(all), {});
}
template <detail::waitable_range Range, class Rep, class Period>
[[nodiscard]] auto wait(const Range& all, std::chrono::duration<Rep, Period> timeout) {
  using element = std::ranges::range_value_t<Range>;
  return detail::wait_for_ready(std::span<const element>(all), detail::os::deadline_after(timeout));
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/result/mixed_wait.hpp>
#endif
