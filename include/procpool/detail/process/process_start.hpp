// SPDX-License-Identifier: MIT
/// @file
/// How a Process starts: Process::start() in the parent, and the child up to its end.
#pragma once

#include <sys/eventfd.h>
#include <sys/types.h>

#include <cerrno>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/try_catch.hpp>
#include <procpool/detail/child/child.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/machine/stack.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/detail/process/process_handle.hpp>
#include <procpool/detail/process/process_lifetime.hpp>
#include <procpool/detail/process/process_record.hpp>
#include <procpool/detail/process/process_report.hpp>
#include <procpool/detail/process/spawn_request.hpp>
#include <procpool/error.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// Ends the child when pthread_exit unwinds its target, because the frames above are the parent's.
/// Not every standard library lets a handler catch that, but all of them run destructors.
class thread_exit_guard {
 public:
  thread_exit_guard() = default;
  thread_exit_guard(const thread_exit_guard&) = delete;
  thread_exit_guard& operator=(const thread_exit_guard&) = delete;
  ~thread_exit_guard() {
    if (!returned_ && std::uncaught_exceptions() == before_) leave_child(0);
  }
  void returned() noexcept { returned_ = true; }

 private:
  int before_ = std::uncaught_exceptions();
  bool returned_ = false;
};

/// Runs the target of a process. @returns the exit code
inline int run_target(std::unique_ptr<process_target> target) {
  try {
    thread_exit_guard guard;
    target->run();
    target.reset();  // the arguments are this process's own: their destructors must run here
    guard.returned();
    return 0;
  } catch (...) {
    leave_alive(std::current_exception());  // never destroyed: its destructor may throw
    uncaught(process_context::instance().identity().name);
    return 1;
  }
}

/// The child, from the fork to its end.
inline void process_record::run_in_child(bool library_thread) noexcept {
  // Forked on a thread of the library, which blocks all signals: the user has not asked for that.
  if (library_thread) os::unblock_signals();
  if (!gate_.pass()) os::leave_now(1);
  try {
    enter_child({name_, daemon_, position_, std::move(parent_)});
  } catch (...) {  // no memory; exit() would still run the parent's handlers
    uncaught(name_);
    os::leave_now(1);
  }
  leave_child(run_target(std::move(target_)));
}

/// Everything that can fail before there is a child. Called without the lock.
inline void process_record::prepare() {
  auto& table = process_table::instance();
  process_table::list node{shared_from_this()};
  const auto held = acquire();
  require_open();
  if (stage_ != stage::made) {
    throw_misuse("start() was called before; a process runs once, make another");
  }
  if (process_context::instance().identity().daemon) {
    throw_misuse("the current process is daemonic, and a daemonic process cannot have children");
  }
  try {
    gate_ = os::start_gate::make();
    parent_ = link_to_this_process();
  } catch (...) {
    close_descriptors();
    throw;
  }
  table.holders.splice(table.holders.end(), own_node_, self_);
  table.children.splice(table.children.end(), node);
  stage_ = stage::starting;
}

inline void process_record::undo_prepare() noexcept {
  process_table::list node;  // destroyed after the lock is released
  handles_.reset();
  heap_.reset();
  const auto held = acquire();
  close_descriptors();
  auto& children = process_table::instance().children;
  for (auto child = children.begin(); child != children.end(); ++child) {
    if (child->get() != this) continue;
    node.splice(node.end(), children, child);
    break;
  }
  stage_ = stage::made;
}

inline pid_t process_record::fork_child() {
  const bool library_thread = fork_registry::on_library_thread();
  process_being_started = this;
  pid_t pid = -1;
  try {
    pid = fork_process();
  } catch (...) {
    process_being_started = nullptr;
    throw;
  }
  process_being_started = nullptr;
  if (pid != 0) return pid;
  struct child_call {
    process_record* record;
    bool library_thread;
  };
  child_call call{this, library_thread};
  os::run_on_process_stack(
      [](void* argument) {
        const child_call& own = *static_cast<child_call*>(argument);
        own.record->run_in_child(own.library_thread);
      },
      &call);
}

/// The child takes over in freeze_support(), see spawn_main.hpp.
inline pid_t process_record::spawn_child() {
  process_identity identity;
  {
    const auto held = acquire();  // another thread may call set_name()
    identity = {name_, daemon_, position_, parent_};
  }
  spawn_request request =
      request_from_here(spawn_request::purpose_type::process, std::move(identity));
  const shipped_target shipped = target_->ship();
  handles_ = shipped.handles;
  request.entry = shipped.maker;
  request.body.assign(shipped.body.data(), shipped.body.data() + shipped.body.size());
  os::flush_standard_streams();
  // A thread of the library blocks all signals, which the user has not asked for.
  const auto mask =
      fork_registry::on_library_thread() ? os::first_mask::none_blocked : os::first_mask::of_caller;
  return spawn_process(request, gate_.child_end(), mask);
}

/// A descriptor that is always readable, the sentinel of a child that has ended already.
inline os::fd readable_descriptor() {
  return os::off_stdio(
      os::fd(os::check(PROCPOOL_SYSTEM(eventfd(1, EFD_CLOEXEC)),
                       "cannot create an event descriptor for a process (eventfd)")));
}

/// Opens the child's pidfd and lets the child go on. If that throws, run() kills and reaps it.
inline void process_record::adopt(pid_t pid) {
  const auto held = acquire();
  os::fd process = os::find_process(pid);
  // None: it was killed at once, and a waitpid for any child has reaped it.
  if (!process) process = readable_descriptor();
  sentinel_ = std::make_shared<os::fd>(std::move(process));
  pid_ = pid;
  stage_ = stage::started;
  gate_.open();
  parent_.process.reset();
}

inline void process_record::run() {
  const auto self = shared_from_this();
  static_cast<void>(process_table::instance().running());  // reaps ended children never joined
  end_children_at_exit();
  prepare();
  heap_ = use_heap();
  pid_t pid = 0;
  try {
    const start_method method = method_.has_value() ? *method_ : get_start_method();
    pid = method == start_method::spawn ? spawn_child() : fork_child();
    adopt(pid);
  } catch (...) {
    if (pid > 0) os::kill_and_reap(pid);
    undo_prepare();
    throw;
  }
  target_.reset();  // the child has its copy; runs destructors of the user
}

template <class Record>
std::shared_ptr<child_process> make_process(std::string name, std::optional<bool> daemon,
                                            std::optional<start_method> method,
                                            std::unique_ptr<process_target> target) {
  return std::make_shared<Record>(std::move(name), daemon, method, std::move(target));
}

#ifdef PROCPOOL_COMPILED
template std::shared_ptr<child_process> make_process<process_record>(
    std::string name, std::optional<bool> daemon, std::optional<start_method> method,
    std::unique_ptr<process_target> target);
#endif

PROCPOOL_FUNCTION std::vector<std::shared_ptr<child_process>> running_children() {
  std::vector<std::shared_ptr<child_process>> children;
  for (auto& each : process_table::instance().running()) children.push_back(std::move(each));
  return children;
}

}  // namespace procpool::detail
