// SPDX-License-Identifier: MIT
/// @file
/// How processes are started: by fork or by spawn. Python: "Contexts and start methods" in the
/// documentation of multiprocessing.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>

#include <procpool/detail/os/one_per_process.hpp>

namespace procpool {

/// How a Process, or the processes of a Pool, are started. Python has forkserver, too.
enum class start_method : std::uint8_t {
  /// fork(2): the process starts with a copy of the program's memory. The default. The program's
  /// other threads do not exist in it, but locks that they held stay locked. If the program has
  /// many threads, prefer spawn.
  fork,
  /// posix_spawn(3) of the same program, which then runs its tasks in freeze_support(). The process
  /// has only the data sent to it. Safe with any number of threads, and the start takes equally
  /// long for a program of any size. The callable and its arguments must be encodable.
  spawn,
};

namespace detail {

/// The process-wide default start method.
class default_start_method {
 public:
  static default_start_method& instance() {
    static auto& only = os::one_per_process<default_start_method>("default start method");
    return only;
  }

  /// Fixes the method, if it was not chosen before.
  [[nodiscard]] start_method get() {
    int chosen = not_chosen;
    chosen_.compare_exchange_strong(chosen, static_cast<int>(start_method::fork),
                                    std::memory_order_relaxed);  // guards no other data
    return chosen == not_chosen ? start_method::fork : static_cast<start_method>(chosen);
  }
  void set(start_method method, bool force) {
    int before = force ? chosen_.load(std::memory_order_relaxed) : not_chosen;  // likewise
    while (!chosen_.compare_exchange_weak(before, static_cast<int>(method),
                                          std::memory_order_relaxed)) {  // likewise
      if (!force && before != not_chosen)
        throw std::logic_error("the start method has been set or used already");
    }
  }

 private:
  // No mutex: one that another thread holds during a fork would stay locked in the child.
  static constexpr int not_chosen = -1;
  std::atomic<int> chosen_{not_chosen};
};

/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline auto& default_start_method_made_early = default_start_method::instance();

}  // namespace detail

/// Sets the default start method of this process and of processes started from it later. Pools and
/// processes use it unless their options name another. Any thread.
/// Python: multiprocessing.set_start_method.
/// @param method the new default
/// @param force  replaces a default that has been set or used before
/// @throws std::logic_error without @p force, if the default has been set or used already (Python:
/// RuntimeError)
inline void set_start_method(start_method method, bool force = false) {
  detail::default_start_method::instance().set(method, force);
}

/// Gets the default start method. The call counts as a use: afterwards only force changes it. Any
/// thread. Python: multiprocessing.get_start_method.
/// @returns the method set by set_start_method(); fork if none was set
[[nodiscard]] inline start_method get_start_method() {
  return detail::default_start_method::instance().get();
}

/// @returns all start methods, fork (the initial default) first
/// Python: multiprocessing.get_all_start_methods.
[[nodiscard]] constexpr std::array<start_method, 2> get_all_start_methods() noexcept {
  return {start_method::fork, start_method::spawn};
}

}  // namespace procpool
