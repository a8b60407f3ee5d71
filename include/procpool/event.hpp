// SPDX-License-Identifier: MIT
/// @file
/// Event: one process says that something has happened, others wait for it. See
/// docs/synchronize.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>

#include <procpool/codec.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/event_state.hpp>
#include <procpool/detail/sync/object_handle.hpp>

namespace procpool {

/// A flag that processes set, clear and wait for. Copies stand for the same event, and travel. Any
/// thread of any process. It has no owner: a process that dies leaves it as it was. Python:
/// multiprocessing.Event.
class Event : public detail::object_handle {
 public:
  /// A new event, not set. @throws ProcessError when the system refuses memory
  Event() : object_handle(detail::object_kind::event) {}

  [[nodiscard]] bool is_set() const noexcept { return detail::event_is_set(record()); }
  /// Sets the flag. All that wait go on, even if it is cleared at once.
  void set() noexcept { detail::set_event(record()); }
  void clear() noexcept { detail::clear_event(record()); }

  /// Waits until the flag is set.
  void wait() const { static_cast<void>(detail::wait_for_event(record(), std::nullopt)); }
  /// Waits at most @p timeout; zero and negative: not at all.
  /// @returns whether the flag is set, or was set meanwhile
  template <class Rep, class Period>
  bool wait(std::chrono::duration<Rep, Period> timeout) const {
    return is_set() || detail::wait_for_event(record(), detail::os::deadline_after(timeout));
  }

 private:
  friend struct detail::object_access;
  using object_handle::object_handle;
};

template <>
struct codec<Event> : detail::object_codec<Event, detail::object_kind::event> {};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/semaphore_access.hpp>
#endif
