// SPDX-License-Identifier: MIT
/// @file
/// Semaphore and BoundedSemaphore: at most so many go on at a time. See docs/synchronize.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstdint>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/object_handle.hpp>
#include <procpool/detail/sync/semaphore_state.hpp>

namespace procpool {

/// What both semaphores have in common. Any thread of any process may acquire and release.
/// TimedLockable, so that std::scoped_lock and std::unique_lock take it.
template <class Handle>
class basic_semaphore : public detail::object_handle {
 public:
  /// Waits until the value is not 0, and takes 1 from it.
  /// @throws ProcessError: more than 1024 processes use the shared objects of this program
  void acquire() { static_cast<void>(self().take(std::nullopt)); }
  /// Waits at most @p timeout; zero and negative: not at all. @returns whether 1 was taken
  /// @throws as acquire(). Python: acquire(timeout=...)
  template <class Rep, class Period>
  bool acquire(std::chrono::duration<Rep, Period> timeout) {
    return self().take(detail::os::deadline_after(timeout));
  }
  /// Takes 1 if the value is not 0. Python: acquire(block=False)
  bool try_lock() { return self().try_take(); }

  void lock() { acquire(); }
  /// As release(), but does nothing where that throws, because guards call it.
  void unlock() noexcept {
    try {
      self().release();
    } catch (...) {
    }
  }
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(std::chrono::duration<Rep, Period> timeout) {
    return acquire(timeout);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(std::chrono::time_point<Clock, Duration> time) {
    return acquire(time - Clock::now());
  }
  /// Whether acquire() would wait. Python: locked(), from 3.14 on
  [[nodiscard]] bool locked() const noexcept {
    return static_cast<const Handle&>(*this).get_value() == 0;
  }

 protected:
  using object_handle::object_handle;

 private:
  Handle& self() noexcept { return static_cast<Handle&>(*this); }
};

/// A counter that processes raise and lower, and wait for while it is 0. A signal, which has no
/// owner: one process may acquire and another one release. So what a process had acquired when it
/// died stays taken; a BoundedSemaphore gets it back. Copies stand for the same semaphore, and
/// travel. Python: multiprocessing.Semaphore.
class Semaphore : public basic_semaphore<Semaphore> {
 public:
  /// @param value 0 to 2^31 - 1. @throws std::invalid_argument for another one; ProcessError when
  /// the system refuses memory
  explicit Semaphore(detail::number<std::uint64_t> value = 1)
      : basic_semaphore(detail::object_kind::semaphore) {
    detail::semaphore_word(record()).store(
        detail::checked_semaphore_value(value, detail::max_semaphore_value),
        std::memory_order_relaxed);  // before there are other handles
  }

  /// Adds @p count to the value, above the first value too, and wakes as many that wait.
  /// @throws std::logic_error: the value would be above 2^31 - 1. Python: OverflowError
  void release(detail::number<std::uint32_t> count = 1) {
    detail::release_semaphore(record(), count);
  }
  /// The value; others may change it a moment later.
  [[nodiscard]] std::uint32_t get_value() const noexcept {
    return detail::semaphore_word(record()).load(std::memory_order_relaxed) &  // a snapshot
           ~detail::has_sleepers;
  }

 private:
  friend struct detail::object_access;
  friend class basic_semaphore<Semaphore>;
  using basic_semaphore::basic_semaphore;
  [[nodiscard]] bool try_take() { return detail::try_acquire_semaphore(record()); }
  [[nodiscard]] bool take(const detail::os::deadline& until) {
    return try_take() || detail::acquire_semaphore(record(), until);
  }
};

/// A semaphore of so many tokens. What a process has when it dies, however that happens, comes back
/// within a fraction of a second: it has tokens, not a count. Copies stand for the same semaphore,
/// and travel. Python: multiprocessing.BoundedSemaphore, which loses them.
///
/// A process may release what another one acquired; it gives back its own first.
class BoundedSemaphore : public basic_semaphore<BoundedSemaphore> {
 public:
  /// @param value 0 to 1,048,576: the tokens, all free. @throws std::invalid_argument for another
  /// one; ProcessError when the system refuses memory
  explicit BoundedSemaphore(detail::number<std::uint64_t> value = 1)
      : BoundedSemaphore(
            detail::from_object{detail::make_object(detail::object_kind::bounded_semaphore)},
            detail::checked_semaphore_value(value, detail::max_bounded_value)) {}

  /// Gives a token back. @throws std::logic_error: all are there. Python: ValueError
  void release() { detail::release_token(record(), cells_); }
  /// How many tokens are free; others may change it a moment later.
  [[nodiscard]] std::uint32_t get_value() const noexcept { return detail::free_tokens(cells_); }
  /// How many tokens there are.
  [[nodiscard]] std::uint32_t max_value() const noexcept {
    return static_cast<std::uint32_t>(cells_.all().size());
  }

 private:
  friend struct detail::object_access;
  friend class basic_semaphore<BoundedSemaphore>;

  static detail::cell_state& state_of(const detail::object_ref& object) noexcept {
    return detail::body_as<detail::bounded_state>(object->record()).cells;
  }
  BoundedSemaphore(const detail::from_object& from, std::uint32_t value)
      : basic_semaphore(from),
        cells_(
            detail::make_cells(from.object, state_of(from.object), value, "a BoundedSemaphore")) {}
  explicit BoundedSemaphore(const detail::from_object& from)
      : basic_semaphore(from),
        cells_(detail::find_cells(from.object, state_of(from.object), detail::max_bounded_value)) {}

  [[nodiscard]] bool try_take() { return detail::try_acquire_token(record(), cells_); }
  [[nodiscard]] bool take(const detail::os::deadline& until) {
    return detail::acquire_token(record(), cells_, until);
  }

  detail::owner_cells cells_;
};

template <>
struct codec<Semaphore> : detail::object_codec<Semaphore, detail::object_kind::semaphore> {};
template <>
struct codec<BoundedSemaphore>
    : detail::object_codec<BoundedSemaphore, detail::object_kind::bounded_semaphore> {};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/semaphore_access.hpp>
#endif
