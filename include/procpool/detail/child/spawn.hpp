// SPDX-License-Identifier: MIT
/// @file
/// Starting a program with posix_spawn(3). The new process inherits only the descriptors given to
/// it. Safe in a program with any number of threads.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/child/environment.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// The number of the first descriptor given to a spawned process; the others follow it.
inline constexpr int first_given = STDERR_FILENO + 1;

/// The initial signal mask of a spawned process.
enum class first_mask { of_caller, all_blocked, none_blocked };

/// The descriptors and the signal mask for a process to spawn.
class spawn_plan {
 public:
  /// @param given get the numbers first_given, first_given + 1 ... The standard streams stay, all
  ///              other descriptors are closed (before glibc 2.34: those without FD_CLOEXEC stay).
  spawn_plan(std::span<const int> given, first_mask mask) {
    const int first_free = first_given + static_cast<int>(given.size());
    for (const int each : given) add(each, first_free);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    check_error(posix_spawn_file_actions_addclosefrom_np(actions_.get(), next_));
#endif
#endif
    if (mask != first_mask::of_caller) set_mask(mask);
  }
  spawn_plan(const spawn_plan&) = delete;
  spawn_plan& operator=(const spawn_plan&) = delete;
  ~spawn_plan() = default;

  /// Starts @p program. @param environment changes to this process's environment
  /// @returns the process id. @throws ProcessError when the system refuses
  [[nodiscard]] pid_t run(const char* program, const std::vector<std::string>& arguments,
                          const environment_changes& environment = {}) const {
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
    argv.push_back(nullptr);
    environment_block envp(environment);
    pid_t pid = -1;
    const int error = PROCPOOL_SYSTEM(
        posix_spawn(&pid, program, actions_.get(), attributes_.get(), argv.data(), envp.get()));
    if (error != 0) {
      throw_errno(concat({"cannot start a process (posix_spawn), the program ", program}), error);
    }
    return pid;
  }

 private:
  static void check_error(int error) {
    if (error != 0) throw_errno("cannot start a process (posix_spawn)", error);
  }

  // Copies the descriptor to a number from first_free on, as its own may be the target of another.
  void add(int descriptor, int first_free) {
    fd moved(check(PROCPOOL_SYSTEM(fcntl(descriptor, F_DUPFD_CLOEXEC, first_free)),
                   "cannot pass a descriptor to a process (fcntl F_DUPFD_CLOEXEC)"));
    moved_.push_back(std::move(moved));  // push_back may throw: `moved` owns the descriptor
    check_error(posix_spawn_file_actions_adddup2(actions_.get(), moved_.back().get(), next_));
    ++next_;
  }

  void set_mask(first_mask mask) {
    sigset_t blocked;
    mask == first_mask::all_blocked ? sigfillset(&blocked) : sigemptyset(&blocked);
    check_error(posix_spawnattr_setsigmask(attributes_.get(), &blocked));
    check_error(posix_spawnattr_setflags(attributes_.get(), POSIX_SPAWN_SETSIGMASK));
  }

  // An object of the C library as a member, destroyed even if the plan's constructor throws.
  template <class T, int (*init)(T*), int (*destroy)(T*)>
  class owned {
   public:
    owned() { check_error(init(&value_)); }
    owned(const owned&) = delete;
    owned& operator=(const owned&) = delete;
    ~owned() { destroy(&value_); }
    [[nodiscard]] T* get() { return &value_; }
    [[nodiscard]] const T* get() const { return &value_; }

   private:
    T value_{};
  };

  owned<posix_spawn_file_actions_t, &posix_spawn_file_actions_init,
        &posix_spawn_file_actions_destroy>
      actions_;
  owned<posix_spawnattr_t, &posix_spawnattr_init, &posix_spawnattr_destroy> attributes_;
  std::vector<fd> moved_;
  int next_ = first_given;
};

}  // namespace procpool::detail::os
