// SPDX-License-Identifier: MIT
/// @file
/// A mutex that no fork finds in the hands of another thread, and the calls that are made under it.
///
/// fork(2) copies the locks of the C library as they are. glibc makes malloc's, stdio's and most of
/// the loader's usable in the child, but not all: the one that dl_iterate_phdr(3) holds and the one
/// of the list of exit handlers stay locked if another thread had them, and the child that needs
/// one waits for ever. What the library itself does with these two it does under this mutex, which
/// is held across every fork. docs/design/decisions.md has the list of all such locks.
#pragma once

#include <link.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// A leaf in the order of locks: who has it calls the C library only, nothing of ours and nothing
/// that runs code of the user's. Yet a thread that wants it may have a lock of the loader's
/// already, for which the holder waits: in a callback of dl_iterate_phdr(3), say. So nobody waits
/// for it without end.
class fork_safe_mutex final : public fork_handler {
 public:
  /// Of the calls below.
  static fork_safe_mutex& instance() {
    static auto& mutex = os::one_per_process<fork_safe_mutex>(
        "fork-safe mutex", []() -> void* { return new fork_safe_mutex; });
    return mutex;
  }

  /// Has the mutex for as long as it lives, unless it was not to be had: then a fork at this moment
  /// is as it would be without this mutex.
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

  /// Waits, but not for ever: the holder may itself wait for the forking thread, if that forks in a
  /// callback of dl_iterate_phdr or in a signal handler. Then the fork is as it would be without
  /// this mutex.
  void lock_for_fork() override {
    constexpr std::chrono::seconds patience{2};
    const auto until = std::chrono::steady_clock::now() + patience;
    held_ = mutex_.try_lock();
    wanted_.store(!held_, std::memory_order_relaxed);  // others let us go first
    while (!held_ && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(pause);
      held_ = mutex_.try_lock();
    }
    wanted_.store(false, std::memory_order_relaxed);  // likewise
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

  [[nodiscard]] bool lock() {
    constexpr std::chrono::seconds patience{5};  // longer than that of a fork, which lets us go on
    if (!wanted_.load(std::memory_order_relaxed) && mutex_.try_lock()) return true;  // a hint
    const auto until = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < until) {
      if (!wanted_.load(std::memory_order_relaxed) && mutex_.try_lock()) return true;  // as above
      std::this_thread::sleep_for(pause);
    }
    return mutex_.try_lock();
  }

  std::mutex mutex_;
  std::atomic<bool> wanted_{false};  ///< by a fork
  bool held_ = false;  ///< by the thread that forks; written under the lock of the registry
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

/// Made before main: the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline auto& fork_safe_mutex_made_early = fork_safe_mutex::instance();

/// dl_iterate_phdr(3), as far as forks allow.
inline int for_each_module(int (*visit)(dl_phdr_info*, std::size_t, void*), void* data) {
  const fork_safe_mutex::hold lock(fork_safe_mutex::instance());
  return ::dl_iterate_phdr(visit, data);
}

/// atexit(3), once for each @p registered, which is false at first.
inline void at_exit_once(bool& registered, void (*handler)()) {
  const fork_safe_mutex::hold lock(fork_safe_mutex::instance());
  if (!registered) registered = std::atexit(handler) == 0;
}

}  // namespace procpool::detail
