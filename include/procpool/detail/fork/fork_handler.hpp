// SPDX-License-Identifier: MIT
/// @file
/// The interface of parts of the library that act when this process forks; fork_registry.hpp calls
/// it.
#pragma once

namespace procpool::detail {

/// An object (a pool, a table) that must act when its process forks. "Our" fork is fork_process();
/// the user's is any other.
struct fork_handler {
  /// Parent, before our fork: asks the handler's threads to end and waits for them with
  /// fork_registration::wait_for_threads(). Any thread may call it at any time while the
  /// registration lives (see fork_pause). If one of the handler's own threads calls it, because
  /// it forks, that thread is not waited for. Must not throw.
  virtual void stop_threads() {}
  /// Parent, after our fork, even if it failed: undoes stop_threads(). Must not throw.
  virtual void restart_threads() {}
  /// Before every fork, also the user's: takes the locks that abandon() relies on. The registry's
  /// mutex is taken first. So never call fork_registry.hpp while holding one of these locks.
  virtual void lock_for_fork() {}
  /// After every fork, in parent and child, on the same thread: releases those locks.
  virtual void release_locks() noexcept {}
  /// Parent, after one of our forks that the system refused. Must not throw.
  virtual void fork_failed() noexcept {}
  /// Child, after every fork, also the user's: closes descriptors, unmaps memory, drops state of
  /// the parent. The process has one thread. Not called again in children of this child.
  virtual void abandon() noexcept {}

 protected:
  ~fork_handler() = default;
};

}  // namespace procpool::detail
