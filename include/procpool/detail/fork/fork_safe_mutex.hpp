// SPDX-License-Identifier: MIT
/// @file
/// A mutex that the forking thread holds across every fork, and the C library calls made under it.
///
/// fork(2) copies the locks of the C library as they are. glibc resets those of malloc, stdio and
/// most of the loader in the child. Two stay locked if another thread had them: that of
/// dl_iterate_phdr(3) and that of the list of exit handlers. A child that needs one then waits for
/// ever. procpool takes these two only under this mutex, so that no fork copies them locked by
/// procpool. docs/design/decisions.md lists all such locks.
#pragma once

#include <link.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

#include <procpool/detail/base/sanitizers.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// The last lock in the lock order: its holder calls the C library only, and no user code. But a
/// thread that waits for it may already hold the loader lock that the holder needs, for example in
/// a callback of dl_iterate_phdr(3). So every wait for it has a time limit.
class fork_safe_mutex final : public fork_handler {
 public:
  /// The mutex of the functions below.
  static fork_safe_mutex& instance() {
    static auto& mutex = os::one_per_process<fork_safe_mutex>(
        "fork-safe mutex", []() -> void* { return new fork_safe_mutex; });
    return mutex;
  }

  /// Holds the mutex as long as it lives. After the time limit it continues without: a fork at this
  /// moment may then copy the C library's lock locked.
  class hold {
   public:
    explicit hold(fork_safe_mutex& of) : of_(&of), held_(of.lock()) {}
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() {
      if (held_) of_->mutex_.unlock();
    }

   private:
    fork_safe_mutex* of_;
    bool held_;
  };

  /// The holder may itself wait for the forking thread, if that forks in a callback of
  /// dl_iterate_phdr or in a signal handler. So the fork goes on without the mutex after the limit.
  void lock_for_fork() override {
    constexpr std::chrono::seconds limit{2};
    const auto until = std::chrono::steady_clock::now() + limit;
    held_ = mutex_.try_lock();
    fork_waits_.store(!held_, std::memory_order_relaxed);  // a hint: lock() lets the fork go first
    while (!held_ && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(pause);
      held_ = mutex_.try_lock();
    }
    fork_waits_.store(false, std::memory_order_relaxed);  // likewise
  }
  void release_locks() noexcept override {
    if (held_) mutex_.unlock();
  }
  void abandon() noexcept override {
    if (!held_) std::construct_at(&mutex_);  // its holder does not exist in this process
  }

 private:
  fork_safe_mutex() = default;

  static constexpr std::chrono::microseconds pause{50};
  // ThreadSanitizer does not know pthread_mutex_clocklock(3), which waits by the steady clock.
  using lock_clock =
      std::conditional_t<thread_sanitizer, std::chrono::system_clock, std::chrono::steady_clock>;

  [[nodiscard]] bool lock() {
    constexpr std::chrono::seconds limit{5};  // longer than a fork's, whose end lets us go on
    if (!fork_waits_.load(std::memory_order_relaxed) && mutex_.try_lock()) return true;  // a hint
    const auto until = lock_clock::now() + limit;
    while (fork_waits_.load(std::memory_order_relaxed) && lock_clock::now() < until) {  // as above
      std::this_thread::sleep_for(pause);
    }
    return mutex_.try_lock_until(until);  // in line with others: no thread starves
  }

  std::timed_mutex mutex_;
  std::atomic<bool> fork_waits_{false};  ///< a forking thread waits for the mutex
  bool held_ = false;  ///< by the forking thread; written under the registry's mutex
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline auto& fork_safe_mutex_made_early = fork_safe_mutex::instance();

/// dl_iterate_phdr(3) under the fork-safe mutex.
inline int for_each_module(int (*visit)(dl_phdr_info*, std::size_t, void*), void* data) {
  const fork_safe_mutex::hold lock(fork_safe_mutex::instance());
  return ::dl_iterate_phdr(visit, data);
}

/// Calls atexit(3) if @p registered is false, and sets it on success. Under the fork-safe mutex.
inline void at_exit_once(bool& registered, void (*handler)()) {
  const fork_safe_mutex::hold lock(fork_safe_mutex::instance());
  if (!registered) registered = std::atexit(handler) == 0;
}

}  // namespace procpool::detail
