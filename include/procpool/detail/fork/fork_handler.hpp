// SPDX-License-Identifier: MIT
/// @file
/// What takes part when this process forks; fork_registry.hpp calls it.
#pragma once

namespace procpool::detail {

/// Something of the library that must take part when its process forks.
struct fork_handler {
  /// Parent, before a fork of ours: asks its threads to end and waits for them with
  /// fork_registration::wait_for_threads(). May be called by any thread at any time while the
  /// registration lives (see fork_pause), also by one of its own, which is then not
  /// waited for: it is the one that forks. Must not throw.
  virtual void stop_threads() {}
  /// Parent, after it, also when the fork failed: undoes stop_threads(). Must not throw.
  virtual void restart_threads() {}
  /// Before every fork, also the user's: takes the locks that abandon() relies on. While holding
  /// one of them nothing in this file may be called, since here the order is the other way round.
  virtual void lock_for_fork() {}
  /// After it, in the parent and in the child, on the same thread: gives them back.
  virtual void release_locks() noexcept {}
  /// Child, after every fork, also the user's: closes descriptors, unmaps, forgets. The only thread
  /// is the calling one. Not called again in children of this child.
  virtual void abandon() noexcept {}

 protected:
  ~fork_handler() = default;
};

}  // namespace procpool::detail
