// SPDX-License-Identifier: MIT
/// @file
/// worker_local: one object for each worker of a pool, made when a task first uses it.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <atomic>
#include <concepts>
#include <cstdint>
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
/// Made before main: the guard of a static object that another thread initializes while this
/// process forks would stay locked in the child.
inline const auto& last_local_key_made_early = last_local_key();

/// Identifies a worker_local: unlike an address, a number is never reused.
inline std::uint64_t next_local_key() {
  return last_local_key().fetch_add(1, std::memory_order_relaxed) +
         1;  // relaxed: it is only unique; 0 belongs to random()
}

[[noreturn]] inline void throw_outside_of_task(const std::string& type) {
  throw std::logic_error("a worker_local<" + type +
                         "> was used outside of a task of a pool: only workers have one, not the "
                         "program itself, nor threads and processes that a task starts");
}

[[noreturn]] inline void throw_older_worker(const std::string& type) {
  throw std::logic_error("a worker_local<" + type +
                         "> was used in a worker that was started before it was made: define the "
                         "worker_local above the pool, or the pool in main, so that the workers "
                         "have it");
}

}  // namespace detail

/// A value that each worker has for itself and keeps across tasks: a connection, a cache, a scratch
/// buffer.
///
///     inline procpool::worker_local<Database> users{[] { return Database("users.db"); }};
///
///     std::string name_of(int id) { return users->name(id); }   // in a task
///
/// Made when a task or an initializer first uses it in a worker. If its construction throws, the
/// use throws the same, and the next use tries again. The construction may use other worker_locals.
/// Destroyed when the worker exits in order (close and join, maxtasksperchild, max_resident), after
/// all its results were sent, the youngest value first: a value outlives those that used it in
/// their construction. Not destroyed when the worker is killed, crashes or calls exit. terminate(),
/// which the pool's destructor calls, kills. So a task must save what has to be saved.
///
/// Define it at namespace scope, or static, and above a pool that is defined there: workers have
/// only what was made before them, and a use in an older worker is a std::logic_error. The values
/// stay with the worker even if the worker_local is destroyed earlier. It is not copied into tasks;
/// they refer to it by its name.
///
/// Threads: each worker has its own value, also when several workers are threads of one process.
/// Python: a global variable that the pool's initializer sets.
template <class T>
class worker_local {
  static_assert(std::is_object_v<T> && !std::is_array_v<T>,
                "procpool: worker_local holds objects: no references, arrays or functions");
  static_assert(!std::is_object_v<T> || std::is_array_v<T> || std::is_nothrow_destructible_v<T>,
                "procpool: worker_local holds objects whose destructor is public and noexcept: "
                "they are destroyed when their worker exits, where nothing catches what a "
                "destructor throws");

 public:
  /// Each value is value-initialized: T().
  worker_local() requires std::default_initializable<T> : worker_local([] { return T(); }) {}
  /// Each value is constructed from the result of @p make().
  /// @param make called, on a copy, in each worker that uses the value
  template <class Make>
    requires(std::invocable<Make&>&& std::copy_constructible<Make>)
  explicit worker_local(Make make) : maker_(std::make_unique<maker_of<Make>>(std::move(make))) {}
  worker_local(const worker_local&) = delete;
  worker_local& operator=(const worker_local&) = delete;

  /// The value of the worker that runs the calling task, made now if this is the first use.
  /// @throws std::logic_error outside of a task; in a worker that is older than the worker_local;
  /// if the construction needs the same value; for a first use while the worker exits, by the
  /// destructor of another value. Whatever the construction throws.
  T& get() const {
    const WorkerContext* const worker = detail::running_worker;
    if (worker == nullptr) detail::throw_outside_of_task(detail::type_name<T>());
    // Static memory before the constructor has run is zero, which is the key of another object.
    if (key_ == 0) detail::throw_older_worker(detail::type_name<T>());
    detail::worker_locals& mine = worker->locals();
    if (void* value = mine.find(key_)) return *static_cast<T*>(value);
    return mine.add<T>(key_, [this] { return maker_->make(); });
  }
  [[nodiscard]] T& operator*() const { return get(); }
  [[nodiscard]] T* operator->() const { return std::addressof(get()); }

 private:
  struct maker {
    maker() = default;
    maker(const maker&) = delete;
    maker& operator=(const maker&) = delete;
    virtual ~maker() = default;
    [[nodiscard]] virtual T make() const = 0;
  };
  template <class Make>
  struct maker_of final : maker {
    Make original;

    explicit maker_of(Make&& make) : original(std::move(make)) {}
    [[nodiscard]] T make() const override {
      Make copy = original;
      return T(copy());
    }
  };

  std::unique_ptr<const maker> maker_;
  std::uint64_t key_ = detail::next_local_key();
};

/// worker_local lines{[] { return std::vector<std::string>(); }};
template <class Make>
worker_local(Make) -> worker_local<std::invoke_result_t<Make&>>;

}  // namespace procpool
