// SPDX-License-Identifier: MIT
/// @file
/// How processes are started: by fork or by spawn (Python: multiprocessing's "Contexts and start
/// methods").
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>

#include <procpool/detail/os/one_per_process.hpp>

namespace procpool {

/// How the processes of a Pool, or a Process, come into being.
enum class start_method : std::uint8_t {
  /// fork(2): the new process has the memory of the program as it is at that moment. The default.
  /// Threads of the program do not exist in it, but the locks that they held do: in a program with
  /// many threads prefer spawn.
  fork,
  /// posix_spawn(3) of the same program, which takes over in freeze_support(): a process with
  /// nothing but what it is sent, safe in a program with any number of threads, and quick to start
  /// however large the program has grown. What it is to run, and with what, has to be encodable.
  spawn,
};

namespace detail {

/// The method that is used when none is named.
class default_start_method {
 public:
  static default_start_method& instance() {
    static auto& only = os::one_per_process<default_start_method>("default start method");
    return only;
  }

  /// From now on it is what it was this time.
  [[nodiscard]] start_method get() {
    int chosen = nothing;
    chosen_.compare_exchange_strong(chosen, static_cast<int>(start_method::fork),
                                    std::memory_order_relaxed);  // one number
    return chosen == nothing ? start_method::fork : static_cast<start_method>(chosen);
  }
  void set(start_method method, bool force) {
    int before = force ? chosen_.load(std::memory_order_relaxed) : nothing;  // one number
    while (!chosen_.compare_exchange_weak(before, static_cast<int>(method),
                                          std::memory_order_relaxed)) {  // likewise
      if (!force && before != nothing)
        throw std::logic_error("the start method has been set or used already");
    }
  }

 private:
  // No lock: one that another thread holds while this process forks would stay locked in the child.
  static constexpr int nothing = -1;
  std::atomic<int> chosen_{nothing};
};

/// Made before main: the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline auto& default_start_method_made_early = default_start_method::instance();

}  // namespace detail

/// Chooses what pools and processes that name no start method use, in this process and in those
/// started from it. Any thread. Python: multiprocessing.set_start_method.
/// @param force also when it has been chosen before
/// @throws std::logic_error when it has been chosen before, or the default has been used already
/// (Python: RuntimeError)
inline void set_start_method(start_method method, bool force = false) {
  detail::default_start_method::instance().set(method, force);
}

/// What is used when no start method is named: fork, unless set before; asking settles it, as using
/// it does. Any thread. Python: multiprocessing.get_start_method.
[[nodiscard]] inline start_method get_start_method() {
  return detail::default_start_method::instance().get();
}

/// Those there are, the default first. Python: get_all_start_methods.
[[nodiscard]] constexpr std::array<start_method, 2> get_all_start_methods() noexcept {
  return {start_method::fork, start_method::spawn};
}

}  // namespace procpool
