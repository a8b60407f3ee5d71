// SPDX-License-Identifier: MIT
/// @file
/// How a forked child begins (start_gate) and ends (exit without the parent's handlers).
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// A pipe on which a new child waits until its parent is ready: no user code runs in a child whose
/// start may still fail.
class start_gate {
 public:
  start_gate() noexcept = default;

  [[nodiscard]] static start_gate make() {
    std::array<int, 2> ends{};
    check(PROCPOOL_SYSTEM(pipe2(ends.data(), O_CLOEXEC)),
          "cannot create a pipe for a process (pipe2)");
    fd child_end(ends[0]);
    fd parent_end(ends[1]);
    start_gate gate;
    gate.child_end_ = off_stdio(std::move(child_end));
    gate.parent_end_ = off_stdio(std::move(parent_end));
    return gate;
  }

  /// In the parent. No SIGPIPE if the child is dead already, because we hold its end, too.
  void open() noexcept {
    const char go = 1;
    retry([&] { return PROCPOOL_SYSTEM(write(parent_end_.get(), &go, 1)); });
    close();
  }

  /// In the child: waits. True when the gate has opened, false when the parent died before.
  [[nodiscard]] bool pass() noexcept {
    parent_end_.reset();
    char go = 0;
    const auto got = retry([&] { return PROCPOOL_SYSTEM(read(child_end_.get(), &go, 1)); });
    child_end_.reset();
    return got == 1;
  }

  /// For a spawned child, which does not have this object; see process_start.hpp.
  [[nodiscard]] int child_end() const noexcept { return child_end_.get(); }

  void close() noexcept {
    child_end_.reset();
    parent_end_.reset();
  }

 private:
  fd child_end_;
  fd parent_end_;
};

/// Kills an unreaped child and waits for it, where there is no pidfd.
inline void kill_and_reap(pid_t pid) noexcept {
  PROCPOOL_SYSTEM(kill(pid, SIGKILL));
  retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, nullptr, 0)); });
}

/// Ends this process at once: runs no exit handler or destructor and flushes no buffer.
[[noreturn]] inline void leave_now(int code) noexcept {
  for (;;) PROCPOOL_SYSTEM(_exit(code));
}

/// The same with exit code 1, after printing @p problem and the text of errno to stderr.
[[noreturn]] inline void leave_saying(const char* problem) noexcept {
  std::fprintf(stderr, "procpool: %s: %s\n", problem, std::strerror(errno));
  std::fflush(stderr);
  leave_now(1);
}

/// From now on exit() in this process ends in @p last(code). It skips the exit handlers and static
/// objects that exist already, which are the parent's. Those added from now on belong to this
/// process, and exit() runs them before @p last, which must not return. If on_exit(3) fails, ends
/// the process at once. Not atexit(3), which does not pass the exit code; on_exit is glibc's.
inline void end_exit_with(void (*last)(int)) noexcept {
  const auto forward = [](int code, void* target) {
    reinterpret_cast<void (*)(int)>(target)(code);
  };
  if (PROCPOOL_SYSTEM(on_exit(forward, reinterpret_cast<void*>(last))) != 0) {
    leave_saying("a process cannot register its exit handler (on_exit)");
  }
}

}  // namespace procpool::detail::os
