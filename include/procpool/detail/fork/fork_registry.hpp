// SPDX-License-Identifier: MIT
/// @file
/// The list of fork handlers, and fork_process(), which calls them in order.
///
/// There are two kinds of fork. Ours is fork_process(): it stops the library's threads before the
/// fork and restarts them after, so that the fork interrupts none of them half-way. The user's
/// fork() is not announced: pthread_atfork(3) handlers hold the fork handlers' locks across it, so
/// that the data they guard is consistent in the child. In the child of either kind every handler
/// abandons its resources, which belong to the parent.
///
/// Why this cannot deadlock. Our forks take turns. The thread that has the turn calls
/// stop_threads() and restart_threads() without a lock of this file. Two threads could still wait
/// for each other: A has the turn and waits for library thread S to stop, while S runs a user's
/// callback that starts a Process or makes or destroys a Pool, and so waits for A's turn to end.
/// Therefore a library thread that waits in this file counts as stopped: it holds no lock of the
/// library and does nothing. fork_thread marks library threads, and wait_for_threads() skips those
/// that wait here. A callback may also wait for a lock that the forking thread holds, which cannot
/// be seen here. So the wait has a time limit. After it the fork happens while the callback runs,
/// as it does while any thread of the user's runs.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include <procpool/detail/fork/fork_handler.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// Registers a handler as long as it lives. Construct it before the handler's threads and destroy
/// it after them. Both wait until no other thread forks, so that no library thread starts between
/// stop_threads() and the fork.
class fork_registration {
 public:
  /// one_process: the handler belongs to the process that made it. every_process: it is a static
  /// object, and stays registered in each child.
  enum class scope { one_process, every_process };

  explicit fork_registration(fork_handler& handler, scope extent = scope::one_process);
  /// For a handler that is still under construction: a fork_membership registers it later.
  struct later {};
  fork_registration(fork_handler& handler, later) noexcept;
  fork_registration(const fork_registration&) = delete;
  fork_registration& operator=(const fork_registration&) = delete;
  ~fork_registration();

  /// For stop_threads(): waits until each thread of this handler has ended or waits in this file,
  /// at most for @p timeout. @returns true if all have ended and can be joined; otherwise those
  /// that are left continue after the fork
  [[nodiscard]] bool wait_for_threads(std::chrono::milliseconds timeout);

  /// Call it before creating a thread of the handler: from now on the thread is waited for.
  void expect_thread();
  /// Call it if the thread could not be created.
  void unexpect_thread();

  /// For the handler's end: waits until all its threads have ended, except the calling one.
  /// @returns false if some are left after @p timeout
  bool wait_for_end(std::chrono::milliseconds timeout = unlimited);

 private:
  friend class fork_membership;
  friend class fork_registry;
  friend class fork_thread;
  static constexpr std::chrono::hours unlimited{1 << 20};

  fork_handler& handler_;
  const scope scope_;
  // The members below are guarded by the registry's mutex.
  fork_registration* previous_ = nullptr;
  fork_registration* next_ = nullptr;
  bool linked_ = false;
  int threads_ = 0;  // expected or running
  int waiting_ = 0;  // of these: waiting in this file, which counts as stopped
};

/// The list of handlers and the turns of forking threads. Never destroyed: destructors of static
/// objects may still fork.
class fork_registry {
 public:
  static fork_registry& instance() {
    static auto& registry = os::one_per_process<fork_registry>(
        "fork registry", []() -> void* { return new fork_registry; });
    return registry;
  }

  void add(fork_registration& node) {
    std::unique_lock lock(mutex_);
    await_turn(lock);
    link(node);
  }

  void remove(fork_registration& node) {
    std::unique_lock lock(mutex_);
    if (!node.linked_) return;  // registered in the parent; this is a forked child
    await_turn(lock);
    unlink(node);
  }

  void add_thread(fork_registration& node) {
    const std::lock_guard lock(mutex_);
    ++node.threads_;
  }

  void thread_began(fork_registration& node) noexcept { own_registration = &node; }

  void thread_ended(fork_registration& node) {
    own_registration = nullptr;
    remove_thread(node);
  }
  void remove_thread(fork_registration& node) {
    const std::lock_guard lock(mutex_);
    --node.threads_;
    changed_.notify_all();
  }

  bool wait_for_threads(const fork_registration& node, std::chrono::milliseconds timeout) {
    const int self = own_registration.get() == &node ? 1 : 0;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [&] { return node.threads_ - node.waiting_ <= self; });
    return node.threads_ == 0;
  }

  bool wait_for_end(const fork_registration& node, std::chrono::milliseconds timeout) {
    const int self = own_registration.get() == &node ? 1 : 0;
    std::unique_lock lock(mutex_);
    fork_registration* const own = begin_wait();
    const bool ended = changed_.wait_for(lock, timeout, [&] { return node.threads_ <= self; });
    end_wait(own);
    return ended;
  }

  /// True on a thread that belongs to a handler.
  static bool on_library_thread() noexcept { return own_registration.get() != nullptr; }

  /// Waits until no other thread forks, and prevents them from forking until give_turn(). Calls may
  /// be nested.
  void take_turn() noexcept {
    std::unique_lock lock(mutex_);
    await_turn(lock);
    ++turns_;
    forker_ = std::this_thread::get_id();
  }

  void give_turn() noexcept {
    const std::lock_guard lock(mutex_);
    --turns_;
    changed_.notify_all();
  }

  // These two need no lock: only the thread that has the turn changes the list.
  void stop_threads() noexcept {
    for (auto* node = first_; node != nullptr; node = node->next_) {
      node->handler_.stop_threads();
    }
  }

  void restart_threads() noexcept {
    for (auto* node = first_; node != nullptr; node = node->next_) {
      node->handler_.restart_threads();
    }
  }

  /// True for the first caller, which must install the handlers of pthread_atfork(3).
  [[nodiscard]] bool claim_installation() noexcept {
    return !installed_.exchange(true, std::memory_order_relaxed);  // modules load one at a time
  }

  /// Needs no lock either.
  void fork_failed() noexcept {
    for (auto* node = first_; node != nullptr; node = node->next_) node->handler_.fork_failed();
  }

  // The three handlers of pthread_atfork.
  void before_fork() noexcept {
    mutex_.lock();
    for (auto* node = first_; node != nullptr; node = node->next_) node->handler_.lock_for_fork();
  }

  void after_fork_in_parent() noexcept {
    release_locks_of_all();
    mutex_.unlock();
  }

  void after_fork_in_child() noexcept {
    fork_depth().fetch_add(1, std::memory_order_relaxed);
    own_registration = nullptr;  // the forking thread is now the child's main thread
    release_locks_of_all();
    // The threads that waited on changed_ do not exist here, but the object still counts them and
    // would wait for them. It is replaced and not destroyed, because the destructor waits, too.
    std::construct_at(&changed_);
    turns_ = 0;
    auto* node = std::exchange(first_, nullptr);
    mutex_.unlock();
    while (node != nullptr) {
      auto& inherited = *std::exchange(node, node->next_);
      if (inherited.scope_ == fork_registration::scope::every_process) {
        append(inherited);  // keeps the parent's order, which is the order of their locks
      } else {
        inherited.linked_ = false;
      }
      inherited.threads_ = inherited.waiting_ = 0;
      inherited.handler_.abandon();
    }
  }

 private:
  fork_registry() = default;

  /// The registration of the handler that the calling thread belongs to; null: a user's thread.
  static constinit inline os::per_thread_pointer<fork_registration> own_registration{
      "fork registration"};

  /// Waits until no other thread forks. A library thread counts as stopped meanwhile.
  void await_turn(std::unique_lock<std::mutex>& lock) {
    fork_registration* const own = begin_wait();
    changed_.wait(lock, [&] { return turns_ == 0 || forker_ == std::this_thread::get_id(); });
    end_wait(own);
  }

  fork_registration* begin_wait() noexcept {
    fork_registration* const own = own_registration;
    if (own != nullptr) ++own->waiting_;
    changed_.notify_all();
    return own;
  }

  static void end_wait(fork_registration* own) noexcept {
    if (own != nullptr) --own->waiting_;
  }

  void link(fork_registration& node) noexcept {
    node.previous_ = nullptr;
    node.next_ = std::exchange(first_, &node);
    if (node.next_ != nullptr) node.next_->previous_ = &node;
    node.linked_ = true;
  }

  void append(fork_registration& node) noexcept {
    fork_registration* last = nullptr;
    for (auto* each = first_; each != nullptr; each = each->next_) last = each;
    node.previous_ = last;
    node.next_ = nullptr;
    (last != nullptr ? last->next_ : first_) = &node;
    node.linked_ = true;
  }

  void unlink(fork_registration& node) noexcept {
    (node.previous_ != nullptr ? node.previous_->next_ : first_) = node.next_;
    if (node.next_ != nullptr) node.next_->previous_ = node.previous_;
    node.linked_ = false;
  }

  void release_locks_of_all() noexcept {
    for (auto* node = first_; node != nullptr; node = node->next_) {
      node->handler_.release_locks();
    }
  }

  std::atomic<bool> installed_{false};  // the handlers of pthread_atfork
  std::mutex mutex_;
  std::condition_variable changed_;
  fork_registration* first_ = nullptr;
  int turns_ = 0;           // nested turns of forker_; 0: no thread forks
  std::thread::id forker_;  // the thread that has the turn
};

inline fork_registration::fork_registration(fork_handler& handler, scope extent)
    : handler_(handler), scope_(extent) {
  fork_registry::instance().add(*this);
}

inline fork_registration::fork_registration(fork_handler& handler, later /*tag*/) noexcept
    : handler_(handler), scope_(scope::one_process) {}

inline fork_registration::~fork_registration() {
  fork_registry::instance().remove(*this);
}

/// Registers a handler that was constructed with fork_registration::later. Make it the last member
/// of the complete class: the handler is registered only while all other members exist.
class fork_membership {
 public:
  explicit fork_membership(fork_registration& node) : node_(node) {
    fork_registry::instance().add(node_);
  }
  fork_membership(const fork_membership&) = delete;
  fork_membership& operator=(const fork_membership&) = delete;
  ~fork_membership() { fork_registry::instance().remove(node_); }

 private:
  fork_registration& node_;
};

inline bool fork_registration::wait_for_threads(std::chrono::milliseconds timeout) {
  return fork_registry::instance().wait_for_threads(*this, timeout);
}

inline bool fork_registration::wait_for_end(std::chrono::milliseconds timeout) {
  return fork_registry::instance().wait_for_end(*this, timeout);
}

inline void fork_registration::expect_thread() {
  fork_registry::instance().add_thread(*this);
}

inline void fork_registration::unexpect_thread() {
  fork_registry::instance().remove_thread(*this);
}

/// Marks the current thread as a thread of a handler. Construct it first in the thread's function;
/// call expect_thread() before creating the thread.
class fork_thread {
 public:
  explicit fork_thread(fork_registration& owner)
      : owner_(owner), generation_(process_generation()) {
    fork_registry::instance().thread_began(owner_);
  }
  fork_thread(const fork_thread&) = delete;
  fork_thread& operator=(const fork_thread&) = delete;
  ~fork_thread() {
    if (process_generation() == generation_) fork_registry::instance().thread_ended(owner_);
  }

 private:
  fork_registration& owner_;
  std::uint32_t generation_;
};

/// While it lives no other thread runs fork_process(), so neither stop_threads() nor
/// restart_threads() runs. A handler holds one while it starts a thread or joins one that has
/// ended, and takes its own locks after it. Do not hold it while waiting for a thread that may
/// fork.
class fork_pause {
 public:
  fork_pause() noexcept : generation_(process_generation()) {
    fork_registry::instance().take_turn();
  }
  fork_pause(const fork_pause&) = delete;
  fork_pause& operator=(const fork_pause&) = delete;
  ~fork_pause() {
    if (process_generation() == generation_) fork_registry::instance().give_turn();
  }

 private:
  std::uint32_t generation_;
};

inline int install_fork_handlers() {
  if (!fork_registry::instance().claim_installation()) return 0;  // another module has done it
  os::keep_loaded(reinterpret_cast<std::uintptr_t>(&install_fork_handlers));
  return pthread_atfork([] { fork_registry::instance().before_fork(); },
                        [] { fork_registry::instance().after_fork_in_parent(); },
                        [] { fork_registry::instance().after_fork_in_child(); });
}

/// Installed once per process, before main. Children inherit the handlers.
inline const int fork_handlers_installed = install_fork_handlers();

/// Stops the library's threads, flushes the standard streams and forks. May be called on any
/// thread, also on the library's own. The child has the calling thread's signal mask; no signal
/// handler runs in it before the fork handlers have abandoned the parent's resources.
/// @returns the child's process id in the parent, 0 in the child
/// @throws ProcessError (EAGAIN, ENOMEM ...) with nothing changed
inline pid_t fork_process() {
  const fork_pause turn;
  auto& registry = fork_registry::instance();
  registry.stop_threads();
  os::flush_before_fork();
  pid_t pid = -1;
  int error = 0;
  {
    const os::signals_blocked guard;
    pid = PROCPOOL_SYSTEM(fork());
    error = errno;
  }
  if (pid == 0) return 0;
  if (pid < 0) registry.fork_failed();
  registry.restart_threads();
  if (pid < 0) os::throw_errno("cannot start a process (fork)", error);
  return pid;
}

}  // namespace procpool::detail
