// SPDX-License-Identifier: MIT
/// @file
/// How other processes notice the end of this process where there is no pidfd_open(2): a pipe whose
/// only writing end is here. The kernel closes it when the process ends.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// The pipe, one per process, made on first use. Any thread.
class life_line final : public fork_handler {
 public:
  static life_line& instance() {
    static life_line& only = *new life_line;  // never destroyed: exit handlers may use it
    return only;
  }

  /// A descriptor that becomes readable (end of file) when this process ends. @throws ProcessError
  [[nodiscard]] os::fd end_of_this_process() {
    const std::lock_guard lock(mutex_);
    if (!writing_) open();
    return os::off_stdio(
        os::fd(os::check(PROCPOOL_SYSTEM(fcntl(reading_.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1)),
                         "cannot copy a descriptor (fcntl F_DUPFD_CLOEXEC)")));
  }

  void lock_for_fork() override { mutex_.lock(); }
  void release_locks() noexcept override { mutex_.unlock(); }
  /// A child that kept the writing end would hide the end of its parent.
  void abandon() noexcept override {
    writing_.reset();
    reading_.reset();
  }

 private:
  life_line() = default;

  void open() {
    std::array<int, 2> ends{};
    os::check(PROCPOOL_SYSTEM(pipe2(ends.data(), O_CLOEXEC)),
              "cannot create a pipe for a process (pipe2)");
    os::fd reading(ends[0]);
    os::fd writing(ends[1]);
    reading_ = os::off_stdio(std::move(reading));
    writing_ = os::off_stdio(std::move(writing));
  }

  std::mutex mutex_;
  os::fd reading_;
  os::fd writing_;
  fork_registration registration_{*this, fork_registration::scope::every_process};
};

/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline auto& life_line_made_early = life_line::instance();

/// A descriptor that becomes readable when this process, @p pid, ends. @throws ProcessError
inline os::fd end_of_this_process(pid_t pid) {
  os::fd process = os::find_process_if_possible(pid);
  return process ? std::move(process) : life_line::instance().end_of_this_process();
}

}  // namespace procpool::detail
