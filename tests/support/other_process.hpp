// SPDX-License-Identifier: MIT
/// @file
/// Another process that shares objects with the test: a fork, reaped as the library reaps.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>
#include <thread>

#include <procpool/detail/heap/owner_lock.hpp>

namespace support {

/// Runs a function in a forked child, whose exit status is what it returns. Killed at the end of
/// the scope if it still runs.
class other_process {
 public:
  static constexpr int threw = 99;

  explicit other_process(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    int result = threw;
    try {
      result = body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "the other process threw: %s\n", error.what());
    } catch (...) {
    }
    ::_exit(result);
  }
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;
  ~other_process() {
    kill();
    static_cast<void>(join());
  }

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void kill() const noexcept {
    if (!result_) ::kill(pid_, SIGKILL);
  }
  /// Waits for its end. @returns its exit status; minus the number of the signal that ended it
  int join() {
    if (result_) return *result_;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    procpool::detail::process_was_reaped(pid_);
    procpool::detail::collect_dead_processes();
    result_ = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    return *result_;
  }
  /// The death is not told: others have to find out.
  void kill_untold() {
    kill();
    int status = 0;
    ::waitpid(pid_, &status, 0);
    result_ = -SIGKILL;
  }

 private:
  pid_t pid_;
  std::optional<int> result_;
};

/// The exit status of @p body in another process.
inline int in_other_process(const std::function<int()>& body) {
  return other_process(body).join();
}

}  // namespace support
