// SPDX-License-Identifier: MIT
/// @file
/// A process and all that comes of it, however deep: is any of them left? Found out by a pipe whose
/// write end every one of them inherits: when the last is gone it has ended.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "support/watchdog.hpp"

namespace fault {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// How long a family may live on without its head, by the issue.
inline constexpr seconds one_second{1};

/// The two ends of a pipe, closed at the end of the scope and on exec.
class pipe_pair {
 public:
  pipe_pair() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
      throw std::system_error(errno, std::generic_category(), "pipe2");
    }
    read_ = ends[0];
    write_ = ends[1];
  }
  pipe_pair(const pipe_pair&) = delete;
  pipe_pair& operator=(const pipe_pair&) = delete;
  ~pipe_pair() {
    close_read();
    close_write();
  }
  [[nodiscard]] int reader() const noexcept { return read_; }
  [[nodiscard]] int writer() const noexcept { return write_; }
  void close_read() noexcept { shut(read_); }
  void close_write() noexcept { shut(write_); }

  /// True when nobody holds the write end any more, or there is something to read; waits for it. In
  /// slices, because a virtual machine that is paused for a second leaves nobody the time to end.
  [[nodiscard]] bool ended_within(milliseconds limit) const {
    constexpr int slice = 50;
    pollfd end{read_, POLLIN, 0};
    for (auto left = limit.count(); left > 0; left -= slice) {
      if (poll(&end, 1, slice) == 1) return true;
    }
    return false;
  }

 private:
  static void shut(int& descriptor) noexcept {
    if (descriptor >= 0) close(descriptor);
    descriptor = -1;
  }

  int read_ = -1;
  int write_ = -1;
};

/// Forks the head of a family, which runs @p body as support::start_child does.
class family {
 public:
  explicit family(const std::function<int()>& body) {
    head_ = support::start_child([&] {
      pipe_.close_read();
      return body();
    });
    pipe_.close_write();
  }
  family(const family&) = delete;
  family& operator=(const family&) = delete;
  ~family() {
    if (head_ != 0) kill_head();
  }

  [[nodiscard]] pid_t head() const noexcept { return head_; }

  /// SIGKILL to the head alone.
  void kill_head() {
    kill(head_, SIGKILL);
    (void)support::wait_child(head_);
    head_ = 0;
  }

  /// Waits for the head; its exit code, or nothing if it has not ended by then.
  [[nodiscard]] std::optional<int> wait(milliseconds limit = seconds(10)) {
    int status = 0;
    if (!support::eventually([&] { return waitpid(head_, &status, WNOHANG) == head_; }, limit)) {
      return std::nullopt;
    }
    head_ = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }

  /// Whether nobody is left in time; says who, if so.
  [[nodiscard]] bool gone(milliseconds limit = one_second) const {
    if (pipe_.ended_within(limit)) return true;
    for (const auto& process : support::descendants_of(support::watchdog_pid())) {
      std::printf("  still there: %s\n", support::describe(process).c_str());
    }
    return false;
  }

 private:
  pipe_pair pipe_;
  pid_t head_ = 0;
};

/// Whether the complete run is wanted, not the one that fits into everybody's patience.
inline bool full_run() {
  return std::getenv("PROCPOOL_FULL") != nullptr;
}

/// The seed of a test, from the environment (PROCPOOL_SEED) or a fixed one; printed.
inline unsigned seed_of(const char* test) {
  const char* text = std::getenv("PROCPOOL_SEED");
  const unsigned seed = text != nullptr ? static_cast<unsigned>(std::atol(text)) : 20241;
  std::printf("%s: seed %u\n", test, seed);
  return seed;
}

}  // namespace fault
