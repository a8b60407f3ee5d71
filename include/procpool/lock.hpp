// SPDX-License-Identifier: MIT
/// @file
/// Lock and RLock: only one process or thread at a time goes on. See docs/synchronize.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/lock_state.hpp>
#include <procpool/detail/sync/object_handle.hpp>

namespace procpool {

/// What Lock, RLock and Condition have in common. Meets the standard's requirements TimedLockable,
/// so that std::scoped_lock, std::unique_lock and std::lock take it. Any thread of any process may
/// use it.
///
/// If the process that has the lock dies, however that happens, the next one gets it within a
/// fraction of a second, and owner_died() says that what the lock guards may be half-done.
template <class Handle>
class basic_lock {
 public:
  /// Waits until the lock is free and takes it. Python: acquire()
  /// @throws ProcessError: more than 1024 processes use the shared objects of this program
  void acquire() { mine().acquire(std::nullopt); }

  /// Waits at most @p timeout; zero and negative: not at all. @returns whether the lock is taken
  /// @throws as acquire(). Python: acquire(timeout=...)
  template <class Rep, class Period>
  bool acquire(std::chrono::duration<Rep, Period> timeout) {
    if (try_lock()) return true;
    if (!(timeout > timeout.zero())) return false;
    return mine().acquire(detail::os::deadline_after(timeout));
  }

  /// Takes the lock if it is free. @throws as acquire(). Python: acquire(block=False)
  bool try_lock() { return mine().try_acquire(); }

  /// As the standard's mutexes have them.
  void lock() { acquire(); }
  /// Gives the lock back. Does nothing if it is not locked, because guards call it.
  void unlock() noexcept { static_cast<void>(mine().release()); }
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(std::chrono::duration<Rep, Period> timeout) {
    return acquire(timeout);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(std::chrono::time_point<Clock, Duration> time) {
    return acquire(time - Clock::now());
  }

  /// Whether a process has the lock that has not ended. Python: locked(), from 3.14 on
  [[nodiscard]] bool locked() const { return owner().has_value(); }

  /// The process that has the lock; empty if nobody has it, or its owner has ended.
  [[nodiscard]] std::optional<pid_t> owner() const {
    const pid_t pid = detail::pid_of_owner(mine().owner());
    return pid != 0 ? std::optional(pid) : std::nullopt;
  }

  /// Whether a process has died while it had the lock, and nobody has called consistent() since.
  /// To be asked by the owner of the lock. Python cannot tell: its lock is never free again.
  [[nodiscard]] bool owner_died() const {
    return mine().state().owner_died.load(std::memory_order_relaxed) != 0;  // the lock orders it
  }

  /// Says that what the lock guards is in order again. To be called by the owner of the lock.
  void consistent() { mine().state().owner_died.store(0, std::memory_order_relaxed); }

 protected:
  basic_lock() noexcept = default;

 private:
  [[nodiscard]] detail::record_lock mine() const noexcept {
    return static_cast<const Handle&>(*this).lock_of_object();
  }
};

/// A lock. A value: copies stand for the same lock, and travel: arguments, results, items, members.
///
///     procpool::Lock lock;
///     { std::scoped_lock guard(lock); }
///
/// It is not recursive: a thread that has it and takes it again waits for ever. Any process may
/// release it. Python: multiprocessing.Lock.
class Lock : public detail::object_handle, public basic_lock<Lock> {
 public:
  /// A new lock, which nobody has. @throws ProcessError when the system refuses memory
  Lock() : object_handle(detail::object_kind::lock) {}

  /// Gives the lock back. @throws std::logic_error: it is not locked. Python: ValueError
  void release() {
    if (!lock_of_object().release()) detail::not_locked("a Lock is released that is not locked");
  }

 private:
  friend struct detail::object_access;
  friend class basic_lock<Lock>;
  using object_handle::object_handle;
  [[nodiscard]] detail::record_lock lock_of_object() const noexcept {
    return {record(), detail::lock_kind::plain};
  }
};

/// A lock that its owner, one thread of one process, may take again; it is free when it has been
/// given back as often. Copies stand for the same lock, and travel. A forked child does not own
/// what its parent owns. Python: multiprocessing.RLock.
class RLock : public detail::object_handle, public basic_lock<RLock> {
 public:
  /// A new lock, which nobody has. @throws ProcessError when the system refuses memory
  RLock() : object_handle(detail::object_kind::rlock) {}

  /// Gives the lock back once. @throws std::logic_error: this thread does not have it. Python:
  /// AssertionError
  void release() {
    if (!lock_of_object().release()) {
      detail::not_locked("an RLock is released by a thread that does not have it");
    }
  }

  /// The thread that has the lock, as gettid(2) names it; empty if nobody has it.
  [[nodiscard]] std::optional<pid_t> owner_thread() const {
    if (!locked()) return std::nullopt;
    return static_cast<pid_t>(lock_of_object().state().thread.load(std::memory_order_relaxed) &
                              0x7FFFFFFFU);  // a snapshot
  }

  /// How often the owner has the lock; 0: nobody has it.
  [[nodiscard]] std::uint32_t depth() const noexcept { return lock_of_object().depth(); }

 private:
  friend struct detail::object_access;
  friend class basic_lock<RLock>;
  using object_handle::object_handle;
  [[nodiscard]] detail::record_lock lock_of_object() const noexcept {
    return {record(), detail::lock_kind::recursive};
  }
};

template <>
struct codec<Lock> : detail::lock_codec<Lock, detail::object_kind::lock> {};
template <>
struct codec<RLock> : detail::lock_codec<RLock, detail::object_kind::rlock> {};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/lock_access.hpp>
#endif
