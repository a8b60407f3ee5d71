// SPDX-License-Identifier: MIT
/// @file
/// Condition: wait until what a lock guards has become as it should be. See docs/synchronize.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/condition_state.hpp>
#include <procpool/detail/sync/object_handle.hpp>
#include <procpool/lock.hpp>

namespace procpool {

class Condition;

namespace detail {
template <class L>
concept lock_of_condition =
    std::same_as<L, Condition> || std::same_as<L, Lock> || std::same_as<L, RLock>;
}  // namespace detail

/// A condition variable with its lock. Itself a lock: acquire(), std::scoped_lock and the rest.
///
///     procpool::Condition condition;
///     { std::unique_lock held(condition); condition.wait(held, [&] { return ready(); }, 1s); }
///     { std::scoped_lock held(condition); change(); condition.notify(2); }
///
/// notify(n) wakes the n that have waited longest, exactly those. If one of them dies before it has
/// the lock again, another one is woken in its place. After such a death one too many may be woken.
/// If a process dies that has the lock, the next one gets it; see owner_died(). Copies stand for
/// the same condition, and travel. At most 4096 threads can wait at the same time. Python:
/// multiprocessing.Condition.
class Condition : public detail::object_handle, public basic_lock<Condition> {
 public:
  /// With an RLock of its own. @throws ProcessError when the system refuses memory
  Condition() : object_handle(detail::object_kind::condition) {
    cells_ = detail::make_waiter_cells(detail::object_access::object_of(*this));
  }
  /// With a lock that guards other things as well.
  explicit Condition(const Lock& lock) : Condition() {
    lock_ = detail::object_access::object_of(lock);
    kind_ = detail::lock_kind::plain;
  }
  explicit Condition(const RLock& lock) : Condition() {
    lock_ = detail::object_access::object_of(lock);
  }

  Condition(const Condition&) noexcept = default;  // to move is to copy
  Condition& operator=(const Condition&) noexcept = default;
  ~Condition() = default;

  /// Gives the lock back, once. @throws std::logic_error: this thread does not have it
  void release() {
    if (!lock_of_object().release()) {
      detail::not_locked("a Condition is released by a thread that does not have its lock");
    }
  }

  /// Gives the lock back, however often this thread has it, waits until another one notifies, and
  /// takes the lock again. @param held owns this condition, or the lock it was made with
  /// @throws std::logic_error: it does not; ProcessError: 4096 threads wait already, or there is no
  /// memory. Then it has not waited
  template <detail::lock_of_condition L>
  void wait(std::unique_lock<L>& held) {
    check(held);
    wait();
  }
  /// The same for at most @p timeout; zero and negative: not at all. @returns whether it was
  /// notified
  template <detail::lock_of_condition L, class Rep, class Period>
  bool wait(std::unique_lock<L>& held, std::chrono::duration<Rep, Period> timeout) {
    check(held);
    return wait(timeout);
  }
  /// Waits until @p predicate, called with the lock, is true. @throws as wait(); what it throws
  template <detail::lock_of_condition L, std::predicate Predicate>
  void wait(std::unique_lock<L>& held, Predicate predicate) {
    check(held);
    wait_for(std::move(predicate));
  }
  /// The same for at most @p timeout. @returns what @p predicate returned last
  template <detail::lock_of_condition L, std::predicate Predicate, class Rep, class Period>
  bool wait(std::unique_lock<L>& held, Predicate predicate,
            std::chrono::duration<Rep, Period> timeout) {
    check(held);
    return wait_for(std::move(predicate), timeout);
  }

  /// The same without a guard: this thread must have the lock. Python: wait(timeout)
  void wait() { static_cast<void>(here().wait(std::nullopt)); }
  template <class Rep, class Period>
  bool wait(std::chrono::duration<Rep, Period> timeout) {
    return here().wait(detail::os::deadline_after(timeout));
  }
  /// Python: wait_for(predicate, timeout)
  template <std::predicate Predicate>
  bool wait_for(Predicate predicate) {
    while (!std::invoke(predicate)) wait();
    return true;
  }
  template <std::predicate Predicate, class Rep, class Period>
  bool wait_for(Predicate predicate, std::chrono::duration<Rep, Period> timeout) {
    const auto until = detail::os::deadline_after(timeout);
    while (!std::invoke(predicate)) {
      if (!here().wait(until)) return std::invoke(predicate);
    }
    return true;
  }

  /// Wakes the @p count that have waited longest, or all if there are fewer. They go on when they
  /// have the lock. @throws std::logic_error: this thread does not have the lock
  void notify(detail::number<std::uint64_t> count = 1) { here().notify(count); }
  void notify_all() { here().notify(std::numeric_limits<std::uint64_t>::max()); }

  /// How many wait and are not yet notified.
  [[nodiscard]] std::uint32_t waiting() const noexcept { return here().waiting(); }

 private:
  friend struct detail::object_access;
  friend class basic_lock<Condition>;
  friend codec<Condition>;

  explicit Condition(detail::from_object from) noexcept : object_handle(std::move(from)) {}

  [[nodiscard]] detail::record_lock lock_of_object() const noexcept {
    return {lock_ != nullptr ? lock_->record() : record(), kind_};
  }
  [[nodiscard]] detail::condition_access here() const noexcept {
    return {*cells_, lock_of_object()};
  }
  template <class L>
  void check(const std::unique_lock<L>& held) const {
    if (held.owns_lock() && guards(*held.mutex())) return;
    detail::not_locked("a thread waits on a Condition with a guard that does not have its lock");
  }
  [[nodiscard]] bool guards(const Condition& other) const noexcept { return *this == other; }
  [[nodiscard]] bool guards(const detail::object_handle& lock) const noexcept {
    return detail::object_access::object_of(lock) == lock_;
  }

  detail::bulk_ptr cells_;
  detail::object_ref lock_;  ///< null: its own
  detail::lock_kind kind_ = detail::lock_kind::recursive;
};

/// Travels with the lock that it was made with.
template <>
struct codec<Condition> : detail::same_level {
  static constexpr std::size_t min_wire_size = sizeof(detail::object_wire) + 1;

  static void encode(encoder& e, const Condition& condition) {
    detail::put_object(e, detail::object_access::object_of(condition));
    const bool plain = condition.kind_ == detail::lock_kind::plain;
    e.put(condition.lock_ == nullptr ? own : plain ? with_lock : with_rlock);
    if (condition.lock_ == nullptr) return;
    if (plain) {
      e.put(detail::object_access::make<Lock>(condition.lock_));
    } else {
      e.put(detail::object_access::make<RLock>(condition.lock_));
    }
  }
  static Condition decode(decoder& d) {
    Condition condition(detail::from_object{detail::get_object(d, detail::object_kind::condition)});
    condition.cells_ = detail::find_waiter_cells(detail::object_access::object_of(condition));
    const auto lock = d.get<std::uint8_t>();
    if (lock > with_rlock) d.fail("a Condition with a lock of no kind");
    if (lock == with_lock) {
      condition.lock_ = detail::object_access::object_of(d.get<Lock>());
      condition.kind_ = detail::lock_kind::plain;
    } else if (lock == with_rlock) {
      condition.lock_ = detail::object_access::object_of(d.get<RLock>());
    }
    return condition;
  }

 private:
  static constexpr std::uint8_t own = 0;
  static constexpr std::uint8_t with_lock = 1;
  static constexpr std::uint8_t with_rlock = 2;
};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/condition_access.hpp>
#endif
