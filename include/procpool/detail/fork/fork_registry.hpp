// SPDX-License-Identifier: MIT
/// @file
/// Forking in order: who takes part when this process forks, and in what sequence.
///
/// Two kinds of fork happen. Ours, fork_process(): the library's threads are stopped before and
/// started again after, so that none of them is caught half-way by the fork. And the user's own
/// fork(), which nobody announces: for that, pthread_atfork(3) handlers hold the handlers'
/// locks across the fork, so that the child finds what they guard in one piece. In either child
/// every handler then abandons what it has: it belongs to the parent.
///
/// Why this cannot deadlock. Forks of ours take turns, and the one whose turn it is calls
/// stop_threads() and restart_threads() without holding a lock of this file. Two threads can still
/// wait for each other: A has the turn and waits for a library thread S to stop, while S runs a
/// callback of the user that starts a Process, makes a Pool or destroys one, and so waits for A's
/// turn to end. Therefore a library thread that waits here counts as out of the way: it sits still
/// in this file with no lock of the library, as good as stopped. fork_thread tells which threads
/// those are, fork_registration::wait_for_threads() is the wait that knows it. A callback may also
/// wait for a lock that the forking thread holds, which nobody here can see: so the wait has an
/// end, after which the fork takes place beside the callback, as beside any thread of the user's.
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

/// Makes a handler known for as long as it lives. Construct it before the handler's
/// threads, destroy it after them: both wait for a fork that is under way in another thread, so
/// that no thread of the library can come into being between stop_threads() and the fork.
class fork_registration {
 public:
  /// How a handler follows forks: it stays in the process that made it, or is a static part of
  /// every process and starts afresh in each child.
  enum class scope { one_process, every_process };

  explicit fork_registration(fork_handler& handler, scope where = scope::one_process);
  /// Of a handler that is not complete yet: a fork_membership makes it known.
  struct later {};
  fork_registration(fork_handler& handler, later) noexcept;
  fork_registration(const fork_registration&) = delete;
  fork_registration& operator=(const fork_registration&) = delete;
  ~fork_registration();

  /// For stop_threads(): waits until each thread of this handler has ended or is out of the
  /// way, at most for @p patience. True when all have ended, so that they can be joined; if not,
  /// those that are left go on after the fork.
  [[nodiscard]] bool wait_for_threads(std::chrono::milliseconds patience);

  /// Before a thread of the handler is made: from now on it is waited for.
  void expect_thread();
  /// It could not be made.
  void unexpect_thread();

  /// For the handler's end: waits until each of its threads has ended, but the calling one.
  /// @returns false when some are left after all this time
  bool wait_for_end(std::chrono::milliseconds patience = any_time);

 private:
  friend class fork_membership;
  friend class fork_registry;
  friend class fork_thread;
  static constexpr std::chrono::hours any_time{1 << 20};

  fork_handler& handler_;
  const scope scope_;
  // The rest is guarded by the registry's mutex.
  fork_registration* previous_ = nullptr;
  fork_registration* next_ = nullptr;
  bool linked_ = false;
  int threads_ = 0;  // that have a fork_thread
  int aside_ = 0;    // of these: out of the way
};

/// The list of handlers and the turns of those who fork. Never destroyed: forks may happen as
/// late as in the destructors of static objects.
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
    if (!node.linked_) return;  // made by the process that this one was forked from
    await_turn(lock);
    unlink(node);
  }

  void thread_comes(fork_registration& node) {
    const std::lock_guard lock(mutex_);
    ++node.threads_;
  }

  void thread_began(fork_registration& node) noexcept { own_registration = &node; }

  void thread_ended(fork_registration& node) {
    own_registration = nullptr;
    thread_went(node);
  }
  void thread_went(fork_registration& node) {
    const std::lock_guard lock(mutex_);
    --node.threads_;
    changed_.notify_all();
  }

  bool wait_for_threads(const fork_registration& node, std::chrono::milliseconds patience) {
    const int self = own_registration.get() == &node ? 1 : 0;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [&] { return node.threads_ - node.aside_ <= self; });
    return node.threads_ == 0;
  }

  bool wait_for_end(const fork_registration& node, std::chrono::milliseconds patience) {
    const int self = own_registration.get() == &node ? 1 : 0;
    std::unique_lock lock(mutex_);
    fork_registration* const own = step_aside();
    const bool ended = changed_.wait_for(lock, patience, [&] { return node.threads_ <= self; });
    step_back(own);
    return ended;
  }

  /// True on a thread that belongs to a handler.
  static bool on_library_thread() noexcept { return own_registration.get() != nullptr; }

  /// Waits until no other thread forks, and keeps them from forking until give_turn(). May be
  /// nested.
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

  // Neither needs the lock: the list can change only in the thread whose turn it is.
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

  /// True for the first one who asks, who is to install the handlers.
  [[nodiscard]] bool becomes_known() noexcept {
    return !known_.exchange(true, std::memory_order_relaxed);  // while modules are loaded
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
    own_registration = nullptr;  // the library thread that forked is the child's main thread now
    release_locks_of_all();
    // Those who waited here do not exist in this process, but the old object would wait for them
    // to wake up. It is replaced, not destroyed, because destroying waits for them, too.
    std::construct_at(&changed_);
    turns_ = 0;
    auto* node = std::exchange(first_, nullptr);
    mutex_.unlock();
    while (node != nullptr) {
      auto& inherited = *std::exchange(node, node->next_);
      if (inherited.scope_ == fork_registration::scope::every_process) {
        append(inherited);  // in the same order as in the parent: locks are taken in it
      } else {
        inherited.linked_ = false;
      }
      inherited.threads_ = inherited.aside_ = 0;
      inherited.handler_.abandon();
    }
  }

 private:
  fork_registry() = default;

  /// Of the handler that the calling thread belongs to.
  static constinit inline os::per_thread_pointer<fork_registration> own_registration{
      "fork registration"};

  /// Waits until no other thread forks; a thread of the library is out of the way meanwhile.
  void await_turn(std::unique_lock<std::mutex>& lock) {
    fork_registration* const own = step_aside();
    changed_.wait(lock, [&] { return turns_ == 0 || forker_ == std::this_thread::get_id(); });
    step_back(own);
  }

  fork_registration* step_aside() noexcept {
    fork_registration* const own = own_registration;
    if (own != nullptr) ++own->aside_;
    changed_.notify_all();
    return own;
  }

  static void step_back(fork_registration* own) noexcept {
    if (own != nullptr) --own->aside_;
  }

  void link(fork_registration& node) noexcept {
    node.previous_ = nullptr;
    node.next_ = std::exchange(first_, &node);
    if (node.next_ != nullptr) node.next_->previous_ = &node;
    node.linked_ = true;
  }

  void append(fork_registration& node) noexcept {
    fork_registration* before = nullptr;
    for (auto* each = first_; each != nullptr; each = each->next_) before = each;
    node.previous_ = before;
    node.next_ = nullptr;
    (before != nullptr ? before->next_ : first_) = &node;
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

  std::atomic<bool> known_{false};  // to pthread_atfork
  std::mutex mutex_;
  std::condition_variable changed_;
  fork_registration* first_ = nullptr;
  int turns_ = 0;           // that forker_ has taken
  std::thread::id forker_;  // whose turn it is
};

inline fork_registration::fork_registration(fork_handler& handler, scope where)
    : handler_(handler), scope_(where) {
  fork_registry::instance().add(*this);
}

inline fork_registration::fork_registration(fork_handler& handler, later /*how*/) noexcept
    : handler_(handler), scope_(scope::one_process) {}

inline fork_registration::~fork_registration() {
  fork_registry::instance().remove(*this);
}

/// The last member of a class that is made of several, one of them the handler: from here on it
/// is known, and no longer when the parts begin to be destroyed.
class fork_membership {
 public:
  explicit fork_membership(fork_registration& whose) : whose_(whose) {
    fork_registry::instance().add(whose_);
  }
  fork_membership(const fork_membership&) = delete;
  fork_membership& operator=(const fork_membership&) = delete;
  ~fork_membership() { fork_registry::instance().remove(whose_); }

 private:
  fork_registration& whose_;
};

inline bool fork_registration::wait_for_threads(std::chrono::milliseconds patience) {
  return fork_registry::instance().wait_for_threads(*this, patience);
}

inline bool fork_registration::wait_for_end(std::chrono::milliseconds patience) {
  return fork_registry::instance().wait_for_end(*this, patience);
}

inline void fork_registration::expect_thread() {
  fork_registry::instance().thread_comes(*this);
}

inline void fork_registration::unexpect_thread() {
  fork_registry::instance().thread_went(*this);
}

/// The first object in the function of a thread that belongs to a handler, and its last;
/// expect_thread() was called before the thread was made.
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

/// While it lives no other thread forks through fork_process(), so that neither stop_threads() nor
/// restart_threads() is running or begins. A handler makes one when it starts a thread, or
/// joins one that has ended, and takes its own locks after it, not before. Not to be held while
/// waiting for a thread that may fork itself.
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
  if (!fork_registry::instance().becomes_known()) return 0;  // another module has done it
  os::keep_loaded(reinterpret_cast<std::uintptr_t>(&install_fork_handlers));
  return pthread_atfork([] { fork_registry::instance().before_fork(); },
                        [] { fork_registry::instance().after_fork_in_parent(); },
                        [] { fork_registry::instance().after_fork_in_child(); });
}

/// Installed once per process, before main: children inherit the handlers.
inline const int fork_handlers_installed = install_fork_handlers();

/// Forks without any thread of the library in the process, with the standard streams flushed.
/// Returns the child's process id in the parent and 0 in the child, whose handlers have
/// abandoned what they had. Throws ProcessError (EAGAIN, ENOMEM ...) with nothing changed.
///
/// May be called on any thread, also on the library's own. The child has the calling thread's
/// signal mask; no handler runs in it before it has become a process of its own.
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
  registry.restart_threads();
  if (pid < 0) os::throw_errno("cannot start a process (fork)", error);
  return pid;
}

}  // namespace procpool::detail
