// SPDX-License-Identifier: MIT
/// @file
/// Starting a program afresh (posix_spawn(3)), with some descriptors and nothing else of ours: safe
/// in a program with any number of threads.
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
#include <procpool/detail/os/environment.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// The first number under which a spawned process finds the descriptors given to it.
inline constexpr int first_given = STDERR_FILENO + 1;

/// The signal mask that a spawned process begins with.
enum class first_mask { of_caller, all_blocked, none_blocked };

/// Which descriptors a spawned process has, and with which signals it begins.
class spawn_plan {
 public:
  /// @param given become first_given and following; the standard streams stay, others are closed
  spawn_plan(std::span<const int> given, first_mask mask) {
    const int behind = first_given + static_cast<int>(given.size());
    for (const int each : given) give(each, behind);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    must(posix_spawn_file_actions_addclosefrom_np(actions_.get(), next_));
#endif
#endif
    if (mask != first_mask::of_caller) set_mask(mask);
  }
  spawn_plan(const spawn_plan&) = delete;
  spawn_plan& operator=(const spawn_plan&) = delete;
  ~spawn_plan() = default;

  /// @param environment what changes in it for the process
  /// @throws ProcessError when the system refuses
  [[nodiscard]] pid_t run(const char* program, const std::vector<std::string>& arguments,
                          const environment_changes& environment = {}) const {
    std::vector<char*> words;
    words.reserve(arguments.size() + 1);
    for (const std::string& each : arguments) words.push_back(const_cast<char*>(each.c_str()));
    words.push_back(nullptr);
    environment_block surroundings(environment);
    pid_t pid = -1;
    const int error = PROCPOOL_SYSTEM(posix_spawn(&pid, program, actions_.get(), attributes_.get(),
                                                  words.data(), surroundings.get()));
    if (error != 0) {
      throw_errno(concat({"cannot start a process (posix_spawn), the program ", program}), error);
    }
    return pid;
  }

 private:
  static void must(int error) {
    if (error != 0) throw_errno("cannot start a process (posix_spawn)", error);
  }

  // First out of the way: its number may be one that another one is to have.
  void give(int descriptor, int out_of_the_way) {
    fd moved(check(PROCPOOL_SYSTEM(fcntl(descriptor, F_DUPFD_CLOEXEC, out_of_the_way)),
                   "cannot pass a descriptor to a process (fcntl F_DUPFD_CLOEXEC)"));
    moved_.push_back(std::move(moved));  // an fd by then: there may be no memory for this
    must(posix_spawn_file_actions_adddup2(actions_.get(), moved_.back().get(), next_));
    ++next_;
  }

  void set_mask(first_mask mask) {
    sigset_t blocked;
    mask == first_mask::all_blocked ? sigfillset(&blocked) : sigemptyset(&blocked);
    must(posix_spawnattr_setsigmask(attributes_.get(), &blocked));
    must(posix_spawnattr_setflags(attributes_.get(), POSIX_SPAWN_SETSIGMASK));
  }

  // Members, so that they are destroyed when the constructor throws.
  template <class T, int (*init)(T*), int (*destroy)(T*)>
  class held {
   public:
    held() { must(init(&value_)); }
    held(const held&) = delete;
    held& operator=(const held&) = delete;
    ~held() { destroy(&value_); }
    [[nodiscard]] T* get() { return &value_; }
    [[nodiscard]] const T* get() const { return &value_; }

   private:
    T value_{};
  };

  held<posix_spawn_file_actions_t, &posix_spawn_file_actions_init,
       &posix_spawn_file_actions_destroy>
      actions_;
  held<posix_spawnattr_t, &posix_spawnattr_init, &posix_spawnattr_destroy> attributes_;
  std::vector<fd> moved_;
  int next_ = first_given;
};

}  // namespace procpool::detail::os
