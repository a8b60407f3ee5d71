// SPDX-License-Identifier: MIT
/// @file
/// Manager: a process that keeps objects for others. Python: multiprocessing.Manager.
///
///     procpool::Manager manager;
///     auto scores = manager.dict<std::string, long>();
///     scores.set("a", 1);
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/manager/managed_invocation.hpp>
#include <procpool/detail/manager/manager_process.hpp>
#include <procpool/managed.hpp>
#include <procpool/proxy.hpp>
#include <procpool/queue.hpp>
#include <procpool/start_method.hpp>
#include <procpool/synchronize.hpp>
#include <procpool/value.hpp>

namespace procpool {

/// The options of a Manager.
struct manager_options {
  std::string name{};  ///< of its process; default: as of a Process
  std::optional<procpool::start_method> start_method{};  ///< default: get_start_method()
};

/// A process that keeps objects, for any processes of the program: a dictionary, a list, a
/// namespace, or a type of yours. It hands out proxies, which can be sent anywhere.
///
/// Lock, Queue, Value and the like need no Manager here: they can be sent themselves, and cost no
/// process and no message. A Manager is for what has no fixed size or place.
///
/// The objects live in the process of the manager and end with it: with shutdown(), with the last
/// copy of the Manager in the process that made it, and when that process ends, also if it is
/// killed. Then all calls throw EOFError. Its process ignores Ctrl-C. There is no address, no
/// network and no authentication: only processes of this program can reach it, through proxies.
/// Whoever has a proxy can run code of the program in the manager's process.
///
/// Copies of a Manager stand for the same one. Any thread. A forked child may use a Manager that
/// its parent has made, except shutdown().
class Manager {
 public:
  /// Starts the process. @param options name and start method
  /// @throws ProcessError when the system refuses a process or memory; std::logic_error in a
  /// daemonic process, and as Process::start()
  explicit Manager(manager_options options = {})
      : process_(std::make_shared<detail::manager_process>(std::move(options.name),
                                                           options.start_method)) {}

  /// Makes a T in the manager's process: `manager.make<Account>(100)`. T need not be encodable nor
  /// copyable. Python: BaseManager.register(), then the name.
  /// @param arguments for a constructor of T, copied; encodable
  /// @throws what the constructor throws; EOFError when the manager has ended
  template <class T, class... A>
  [[nodiscard]] Proxy<T> make(A&&... arguments) const {
    auto anchor = detail::make_object(detail::object_kind::managed, detail::type_tag<T>());
    detail::make_managed<T>(*process().link(), *anchor, std::forward<A>(arguments)...);
    return Proxy<T>({std::move(anchor), process().link()});
  }

  /// A dictionary. @param items the first ones. Python: SyncManager.dict.
  template <class K, class V>
  [[nodiscard]] DictProxy<K, V> dict(const std::vector<std::pair<K, V>>& items = {}) const {
    return DictProxy<K, V>(make<Dict<K, V>>(items));
  }
  /// A list. @param elements the first ones. Python: SyncManager.list.
  template <class T>
  [[nodiscard]] ListProxy<T> list(const std::vector<T>& elements = {}) const {
    return ListProxy<T>(make<std::vector<T>>(elements));
  }
  /// Values of any types, by name. Python: SyncManager.Namespace.
  template <class Stored = procpool::Namespace>
  [[nodiscard]] BasicNamespaceProxy<Stored> Namespace() const {
    return BasicNamespaceProxy<Stored>(make<Stored>());
  }

  // Python's managers have these, too. Here they are the objects themselves, which live in memory
  // that all processes share: no call goes through the manager, and they outlive it.

  /// @throws ProcessError when the system refuses memory
  template <class T>
  [[nodiscard]] static procpool::Queue<T> Queue(queue_options options = {}) {
    return procpool::Queue<T>(options);
  }
  template <class T>
  [[nodiscard]] static procpool::JoinableQueue<T> JoinableQueue(queue_options options = {}) {
    return procpool::JoinableQueue<T>(options);
  }
  [[nodiscard]] static procpool::Lock Lock() { return procpool::Lock(); }
  [[nodiscard]] static procpool::RLock RLock() { return procpool::RLock(); }
  [[nodiscard]] static procpool::Event Event() { return procpool::Event(); }
  [[nodiscard]] static procpool::Condition Condition() { return procpool::Condition(); }
  [[nodiscard]] static procpool::Semaphore Semaphore(std::uint64_t value = 1) {
    return procpool::Semaphore(value);
  }
  [[nodiscard]] static procpool::BoundedSemaphore BoundedSemaphore(std::uint64_t value = 1) {
    return procpool::BoundedSemaphore(value);
  }
  [[nodiscard]] static procpool::Barrier Barrier(std::uint32_t parties) {
    return procpool::Barrier(parties);
  }
  template <class T>
  [[nodiscard]] static procpool::Value<T> Value(T initial = {}) {
    return procpool::Value<T>(initial);
  }
  /// @param values the first ones: `manager.Array<int>({1, 2, 3})`
  template <class T>
  [[nodiscard]] static procpool::Array<T> Array(const std::vector<T>& values) {
    return procpool::Array<T>(values);
  }

  /// Ends the manager's process and all its objects. Gives calls that go on a second, then kills
  /// it. A second call does nothing. Python: BaseManager.shutdown.
  /// @throws std::logic_error in a process that has not made the Manager
  void shutdown() { process().shutdown(); }

  /// The id of the manager's process.
  [[nodiscard]] pid_t pid() const { return process().process().pid().value_or(0); }
  /// The name of the manager's process.
  [[nodiscard]] std::string name() const { return process().process().name(); }
  /// Whether the process runs. Only in the process that made the Manager.
  [[nodiscard]] bool is_alive() const { return process().process().is_alive(); }

 private:
  [[nodiscard]] detail::manager_process& process() const {
    if (process_ == nullptr) throw std::logic_error("the Manager was moved from");
    return *process_;
  }

  std::shared_ptr<detail::manager_process> process_;
};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/manager/manager_life.hpp>
#endif
