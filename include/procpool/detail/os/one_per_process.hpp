// SPDX-License-Identifier: MIT
/// @file
/// Objects that exist once per process, even if several of its modules contain the library.
///
/// An inline variable is not enough. Each module (the program, a shared library, a plugin) that
/// includes procpool has its own copy, and the linker merges the copies only if their symbols are
/// visible: not with -fvisibility=hidden, not between a program and a plugin that it loads by
/// dlopen, and with clang not between two plugins. Then each module would have its own list of fork
/// handlers, and its own record of the pool or task that runs on a thread.
///
/// So the modules share a table that the C library has once: its message catalogues, which map a
/// name to a folder. Under the name of this library and version it stores the address of our own
/// table, as a folder. The entry lasts as long as the process; a forked child has it, a program
/// started by exec does not. Modules with another version of procpool or another standard library
/// use another name: they do not share objects, as if they contained different libraries.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

#include <procpool/config.hpp>

namespace procpool::detail::os {

/// Keeps the module whose code is at @p address in memory even after dlclose(3). Takes the loader's
/// locks: a fork in another thread at this moment copies them locked.
void keep_loaded(std::uintptr_t address) noexcept;

/// The object of this name and of @p size bytes; if there is none, @p make creates it. Any thread.
/// Lock-free, because another thread may fork at any moment. @throws whatever make() throws
[[nodiscard]] void* find_or_make_object(const char* name, std::size_t size, void* (*make)(),
                                        void (*destroy)(void*));

/// The object of this name and type, one per process and never destroyed. @p make creates the first
/// by `new`. Searches a list: keep the reference in a static object.
template <class T>
[[nodiscard]] T& one_per_process(
    // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): it is the caller's
    const char* name, void* (*make)() = []() -> void* { return new T; }) {
  return *static_cast<T*>(find_or_make_object(
      name, sizeof(T), make, [](void* object) { delete static_cast<T*>(object); }));
}

/// The same, found at the first use and remembered, without the guard of a static object: a guard
/// that another thread holds while this process forks would stay locked in the child. For a
/// constinit variable: a program that does not use the object compiles nothing of it.
template <class T>
class lazily_found {
 public:
  constexpr lazily_found(const char* name, void* (*make)()) noexcept : name_(name), make_(make) {}
  lazily_found(const lazily_found&) = delete;

  [[nodiscard]] T& get() {
    T* known = known_.load(std::memory_order_acquire);  // with its contents
    if (known == nullptr) [[unlikely]] {
      known = &one_per_process<T>(name_, make_);
      known_.store(known, std::memory_order_release);  // the same in every thread
    }
    return *known;
  }

 private:
  const char* name_;
  void* (*make_)();
  std::atomic<T*> known_{nullptr};
};

/// A thread-local pointer, null at first, which all modules share (a thread_local is one per
/// module). @p name identifies it. Constant-initialized, never destroyed.
template <class T>
class per_thread_pointer {
 public:
  constexpr explicit per_thread_pointer(const char* name) noexcept : name_(name) {}
  per_thread_pointer(const per_thread_pointer&) = delete;

  [[nodiscard]] T* get() const {
    return static_cast<T*>(const_cast<std::remove_const_t<T>*>(
        static_cast<const std::remove_const_t<T>*>(::pthread_getspecific(key()))));
  }
  // NOLINTNEXTLINE(google-explicit-constructor): as a pointer
  [[nodiscard]] operator T*() const { return get(); }
  [[nodiscard]] T* operator->() const { return get(); }

  /// @throws std::bad_alloc: if the program has many keys, a thread's first value needs memory
  per_thread_pointer& operator=(T* value) {
    if (::pthread_setspecific(key(), value) != 0) throw std::bad_alloc();
    return *this;
  }
  /// @returns the previous pointer
  T* exchange(T* value) {
    T* const before = get();
    *this = value;
    return before;
  }

  /// Creates the key, so that no later use fails because keys ran out. For a static initializer.
  bool prepare() const {
    static_cast<void>(key());
    return true;
  }

 private:
  struct shared_key {
    pthread_key_t number{};
    shared_key() {
      if (const int error = ::pthread_key_create(&number, nullptr); error != 0) {
        throw std::system_error(error, std::generic_category(), "pthread_key_create");
      }
    }
    shared_key(const shared_key&) = delete;
    shared_key& operator=(const shared_key&) = delete;
    ~shared_key() { ::pthread_key_delete(number); }
  };

  [[nodiscard]] pthread_key_t key() const {
    const std::uint64_t known = known_.load(std::memory_order_relaxed);  // guards no other data
    if (known != 0) [[likely]]
      return static_cast<pthread_key_t>(known - 1);
    const pthread_key_t number = one_per_process<shared_key>(name_).number;
    known_.store(std::uint64_t{number} + 1, std::memory_order_relaxed);  // same value in any thread
    return number;
  }

  const char* name_;
  mutable std::atomic<std::uint64_t> known_{0};  ///< the key + 1; 0: not looked up yet
};

}  // namespace procpool::detail::os

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/os/process_objects.hpp>
#endif
