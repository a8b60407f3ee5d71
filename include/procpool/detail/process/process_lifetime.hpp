// SPDX-License-Identifier: MIT
/// @file
/// What a process started by procpool does at its beginning and at its end.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include <procpool/detail/child/child.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/detail/process/process_record.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// When its parent ends a daemonic child gets SIGTERM, and SIGKILL if it still runs after this
/// time. (Python waits without limit.)
inline constexpr std::chrono::seconds daemon_timeout{3};

/// Does @p work for one child. Errors (no memory, closed by another thread at the same time) are
/// ignored: the other children must have their turn.
template <class Work>
void for_child(process_record& child, Work work) noexcept {
  try {
    work(child);
  } catch (...) {
  }
}

inline void terminate_daemons(const std::vector<std::shared_ptr<process_record>>& children) {
  for (const auto& child : children) {
    for_child(*child, [](auto& c) {
      if (c.daemon()) c.send_signal(SIGTERM, "terminate()");
    });
  }
  const auto until = os::deadline_after(daemon_timeout);
  for (const auto& child : children) {
    for_child(*child, [&](auto& c) {
      if (c.daemon() && !c.join(until)) c.send_signal(SIGKILL, "kill()");
    });
  }
}

/// Called before a process ends: terminates its daemonic children, then waits for all children.
inline void end_children() noexcept {
  try {
    const auto children = process_table::instance().running();
    terminate_daemons(children);
    for (const auto& child : children) {
      for_child(*child, [](auto& c) { static_cast<void>(c.join(std::nullopt)); });
    }
  } catch (...) {  // no memory for the list
  }
}

/// Registers end_children() to run when this process returns from main or calls exit(). Forked
/// children inherit the registration.
inline void end_children_at_exit() {
  static constinit bool registered = false;
  at_exit_once(registered, end_children);
}

/// The last step of exit() in a child.
[[noreturn]] inline void finish_child(int code) {
  end_children();
  os::flush_at_end();
  os::leave_now(code);
}

/// Sets up the calling process, a forked child that has just begun and has one thread, as
/// @p identity: current_process() and parent_process() return it, stdin is the null device, and
/// exit() does not reach the parent's handlers and static objects.
///
/// For children of Process and for workers. Signals are not touched.
inline void enter_child(process_identity identity) {
  running_worker = nullptr;  // a thread that ran a task may have forked it
  process_context::instance().become(std::move(identity));
  os::adopt_stdio_in_child();
  os::end_exit_with(finish_child);
}

/// The same for a spawned process: all its handlers and static objects are its own, so exit() runs
/// all of them.
inline void enter_spawned(process_identity identity) {
  process_context::instance().become(std::move(identity));
  os::adopt_stdio_in_child();
  end_children_at_exit();
}

/// Ends a process that began with enter_child(): terminates its daemonic children, waits for all
/// children, runs its own atexit handlers, destroys the static objects that it made, flushes the
/// standard streams, and calls _exit with @p code.
///
/// Threads are not waited for: a std::thread that the target left joinable has called
/// std::terminate already, and a detached one ends with its process, as after main().
[[noreturn]] inline void leave_child(int code) {
  end_children();
  std::exit(code);
}

}  // namespace procpool::detail
