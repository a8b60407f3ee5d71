// SPDX-License-Identifier: MIT
/// @file
/// worker_local: one object for each worker of a pool, made when a task first uses it.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <atomic>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/task/worker_locals.hpp>
#include <procpool/worker.hpp>

namespace procpool {

namespace detail {

inline std::atomic<std::uint64_t>& last_local_key() {
  static auto& last = os::one_per_process<std::atomic<std::uint64_t>>("worker_local");
  return last;
}
/// Made before main, as the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline const auto& last_local_key_made_early = last_local_key();

/// Tells worker_locals apart: unlike an address, a number is never used again.
inline std::uint64_t next_local_key() {
  return last_local_key().fetch_add(1, std::memory_order_relaxed) +
         1;  // only to be unique; 0: for random()
}

[[noreturn]] inline void no_worker_for_local(const std::string& type) {
  throw std::logic_error("a worker_local<" + type +
                         "> was used outside of a task of a pool: only workers have one, not the "
                         "program itself, nor threads and processes that a task starts");
}

[[noreturn]] inline void local_not_made(const std::string& type) {
  throw std::logic_error("a worker_local<" + type +
                         "> was used in a worker that was started before it was made: define the "
                         "worker_local above the pool, or the pool in main, so that the workers "
                         "have it");
}

}  // namespace detail

/// A value that each worker has for itself and keeps from task to task: a connection, a cache, a
/// scratch buffer.
///
///     inline procpool::worker_local<Database> users{[] { return Database("users.db"); }};
///
///     std::string name_of(int id) { return users->name(id); }   // in a task
///
/// Made on first use, by a task or an initializer; a worker that does not use it has none. If that
/// throws, so does the use, and the next one tries again. It may use other worker_locals.
/// Destroyed when the worker leaves in order (close and join, maxtasksperchild, max_resident),
/// after all its results were sent, the youngest value first; a value outlives those that used it
/// in their construction. Not destroyed when the worker is killed, crashes or calls exit:
/// terminate(), which the pool's destructor calls, kills. So what must be saved, a task saves.
///
/// Define it at namespace scope, or static, above a pool that is defined there, too: workers have
/// what was made before them, and an earlier use is a std::logic_error that says so. The values
/// stay with the worker even if the worker_local is destroyed before. It is not copied into tasks;
/// they refer to it by its name.
///
/// Threads: each worker's value is its own, also when several workers are threads of one process.
template <class T>
class worker_local {
  static_assert(std::is_object_v<T> && !std::is_array_v<T>,
                "procpool: worker_local holds objects: no references, arrays or functions");
  static_assert(!std::is_object_v<T> || std::is_array_v<T> || std::is_nothrow_destructible_v<T>,
                "procpool: worker_local holds objects whose destructor is public and noexcept: "
                "they are destroyed when their worker leaves, and nobody is there to catch what "
                "a destructor throws");

 public:
  /// Values are value-initialized: T().
  worker_local() requires std::default_initializable<T> : make_([] { return T(); }) {}
  /// Values are what @p make() returns, a T or something that a T can be made of. It is called in
  /// the workers.
  template <class Make>
    requires(std::invocable<Make&>&& std::copy_constructible<Make>)
  explicit worker_local(Make make)
      : make_([make = std::move(make)]() mutable { return T(make()); }) {}
  worker_local(const worker_local&) = delete;
  worker_local& operator=(const worker_local&) = delete;

  /// The value of the worker that runs the calling task.
  /// @throws std::logic_error outside of a task; in a worker that is older than it; if its
  /// construction needs itself; for a first use while the worker leaves, by the destructor of
  /// another value. What making it throws.
  T& get() const {
    const WorkerContext* const worker = detail::running_worker;
    if (worker == nullptr) detail::no_worker_for_local(detail::type_name<T>());
    // In static memory that no constructor has seen: zero, which is the key of another object.
    if (key_ == 0) detail::local_not_made(detail::type_name<T>());
    detail::worker_locals& mine = worker->locals();
    if (void* value = mine.find(key_)) return *static_cast<T*>(value);
    return mine.add<T>(key_, make_);
  }
  [[nodiscard]] T& operator*() const { return get(); }
  [[nodiscard]] T* operator->() const { return std::addressof(get()); }

 private:
  std::function<T()> make_;
  std::uint64_t key_ = detail::next_local_key();
};

/// worker_local lines{[] { return std::vector<std::string>(); }};
template <class Make>
worker_local(Make) -> worker_local<std::invoke_result_t<Make&>>;

}  // namespace procpool
