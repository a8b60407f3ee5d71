// SPDX-License-Identifier: MIT
/// @file
/// What a forked child needs to begin and to end in order.
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

/// Holds a new child back until its parent is ready for it: nothing of the user's runs in a child
/// whose start may still fail.
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

  /// In the parent. A child that is dead already does no harm: we hold its end as well.
  void open() noexcept {
    const char go = 1;
    retry([&] { return PROCPOOL_SYSTEM(write(parent_end_.get(), &go, 1)); });
    close();
  }

  /// In the child: true when the gate opened, false when the parent died before that.
  [[nodiscard]] bool pass() noexcept {
    parent_end_.reset();
    char go = 0;
    const auto got = retry([&] { return PROCPOOL_SYSTEM(read(child_end_.get(), &go, 1)); });
    child_end_.reset();
    return got == 1;
  }

  /// For a child that does not have this object; see process_start.hpp.
  [[nodiscard]] int child_end() const noexcept { return child_end_.get(); }

  void close() noexcept {
    child_end_.reset();
    parent_end_.reset();
  }

 private:
  fd child_end_;
  fd parent_end_;
};

/// Kills a child that is known by number only and waits for it.
inline void kill_and_reap(pid_t pid) noexcept {
  PROCPOOL_SYSTEM(kill(pid, SIGKILL));
  retry([&] { return PROCPOOL_SYSTEM(waitpid(pid, nullptr, 0)); });
}

/// Leaves this process at once: no handler, no destructor, no buffer.
[[noreturn]] inline void leave_now(int code) noexcept {
  for (;;) PROCPOOL_SYSTEM(_exit(code));
}

/// The same for a child that cannot go on because of errno; says on stderr what it cannot do.
[[noreturn]] inline void leave_saying(const char* what) noexcept {
  std::fprintf(stderr, "procpool: %s: %s\n", what, std::strerror(errno));
  std::fflush(stderr);
  leave_now(1);
}

/// From now on exit() in this process ends in @p last(code) instead of going on to the handlers and
/// static objects that were there already: those are the parent's. What is registered or made from
/// now on is this process's own, and exit() deals with it first. @p last must not return. Leaves at
/// once if that cannot be arranged.
///
/// on_exit(3) is glibc's; atexit would not tell the code.
inline void end_exit_with(void (*last)(int)) noexcept {
  const auto forward = [](int code, void* target) {
    reinterpret_cast<void (*)(int)>(target)(code);
  };
  if (PROCPOOL_SYSTEM(on_exit(forward, reinterpret_cast<void*>(last))) != 0) {
    leave_saying("a process cannot arrange for its end (on_exit)");
  }
}

}  // namespace procpool::detail::os
