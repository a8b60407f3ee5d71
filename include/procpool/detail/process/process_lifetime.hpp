// SPDX-License-Identifier: MIT
/// @file
/// The duties of a process of ours at its beginning and at its end.
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

/// How long a daemonic child may take to heed SIGTERM when its parent ends, before it is killed.
/// (Python waits without end.)
inline constexpr std::chrono::seconds daemon_patience{3};

/// Does @p work for one child. Whatever may go wrong with it (no memory, closed by another thread
/// this moment), the others must have their turn.
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
  const auto until = os::deadline_after(daemon_patience);
  for (const auto& child : children) {
    for_child(*child, [&](auto& c) {
      if (c.daemon() && !c.join(until)) c.send_signal(SIGKILL, "kill()");
    });
  }
}

/// What a process does about its children before it ends: daemonic ones are terminated, then all
/// are waited for.
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

/// Has end_children() called when this process ends by returning from main or by exit(). Handlers
/// are inherited across fork: one registration serves a whole family of processes.
inline void end_children_at_exit() {
  static constinit bool registered = false;
  at_exit_once(registered, end_children);
}

/// The last that exit() does in a child.
[[noreturn]] inline void finish_child(int code) {
  end_children();
  os::flush_at_end();
  os::leave_now(code);
}

/// Makes the calling process, a forked child that has just begun and has one thread, the process
/// @p identity: what current_process() and parent_process() tell, the null device as stdin, and
/// an exit() that stops short of the parent's handlers and static objects.
///
/// For Process and for children that the pool forks by other means. Signals are not touched.
inline void enter_child(process_identity identity) {
  running_worker = nullptr;  // a thread that ran a task may have forked it
  process_context::instance().become(std::move(identity));
  os::adopt_stdio_in_child();
  os::end_exit_with(finish_child);
}

/// The same for a process that was spawned: all that is in it is its own, so it ends as a program
/// does, with every handler and static object it has.
inline void enter_spawned(process_identity identity) {
  process_context::instance().become(std::move(identity));
  os::adopt_stdio_in_child();
  end_children_at_exit();
}

/// Ends a process that began with enter_child(): its children are waited for (daemonic ones
/// terminated before), its own atexit handlers and the static objects it made are dealt with, the
/// standard streams flushed, and it leaves by _exit with @p code.
///
/// Threads are not waited for: a std::thread that the target left joinable has called
/// std::terminate already, and a detached one ends with its process, as after main().
[[noreturn]] inline void leave_child(int code) {
  end_children();
  std::exit(code);
}

}  // namespace procpool::detail
