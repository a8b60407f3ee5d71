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

#include <dlfcn.h>
#include <libintl.h>
#include <link.h>
#include <pthread.h>

#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <procpool/version.hpp>

namespace procpool::detail::os {

#define PROCPOOL_TEXT_OF(number) #number
#define PROCPOOL_TEXT(number) PROCPOOL_TEXT_OF(number)

/// Modules with the same binary_interface text can share objects.
#if defined(_LIBCPP_VERSION)
#define PROCPOOL_STANDARD_LIBRARY "libc++ " PROCPOOL_TEXT(_LIBCPP_ABI_VERSION)
#elif defined(_GLIBCXX_DEBUG)
#define PROCPOOL_STANDARD_LIBRARY "libstdc++ debug " PROCPOOL_TEXT(_GLIBCXX_USE_CXX11_ABI)
#else
#define PROCPOOL_STANDARD_LIBRARY "libstdc++ " PROCPOOL_TEXT(_GLIBCXX_USE_CXX11_ABI)
#endif
inline constexpr const char* binary_interface =
    "procpool " PROCPOOL_TEXT(PROCPOOL_VERSION_MAJOR) "." PROCPOOL_TEXT(
        PROCPOOL_VERSION_MINOR) "." PROCPOOL_TEXT(PROCPOOL_VERSION_PATCH) " "
    PROCPOOL_STANDARD_LIBRARY;
#undef PROCPOOL_STANDARD_LIBRARY
#undef PROCPOOL_TEXT
#undef PROCPOOL_TEXT_OF

extern "C" {
// Null in a statically linked program, which has no other modules.
[[gnu::weakref("dladdr1")]] static int dladdr_if_there(const void*, Dl_info*, void**, int);
[[gnu::weakref("dlopen")]] static void* dlopen_if_there(const char*, int);
}

/// Keeps the module whose code is at @p address in memory even after dlclose(3). Takes the loader's
/// locks: a fork in another thread at this moment copies them locked.
inline void keep_loaded(std::uintptr_t address) noexcept {
  if (dladdr_if_there == nullptr || dlopen_if_there == nullptr) return;
  Dl_info info{};
  void* found = nullptr;
  const auto* code = reinterpret_cast<const void*>(address);
  if (dladdr_if_there(code, &info, &found, RTLD_DL_LINKMAP) == 0) return;
  const auto& module = *static_cast<const link_map*>(found);
  if (module.l_name[0] == '\0') return;  // the program
  dlopen_if_there(module.l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

/// The shared objects that exist in this process, by name.
class process_objects {
 public:
  struct maker {
    std::string_view name;
    std::size_t size;  ///< of the object in bytes; modules that differ in it do not share it
    void* (*make)();
    void (*destroy)(void*);
  };

  process_objects() = default;
  process_objects(const process_objects&) = delete;
  process_objects& operator=(const process_objects&) = delete;

  static process_objects& instance() {
    static process_objects& only = *find_or_register();
    return only;
  }

  /// Any thread. Lock-free, because another thread may fork at any moment.
  /// @throws whatever make() throws
  void* find_or_make(const maker& wanted) {
    const entry* known = first_.load(std::memory_order_acquire);  // to read the entries
    if (void* object = find(known, wanted)) return object;
    // The object may have virtual functions, whose code is in this module.
    keep_loaded(reinterpret_cast<std::uintptr_t>(wanted.make));
    std::unique_ptr<void, void (*)(void*)> object(wanted.make(), wanted.destroy);
    auto fresh = std::make_unique<entry>(
        entry{std::string(wanted.name), wanted.size, object.get(), nullptr});
    fresh->next = first_.load(std::memory_order_acquire);  // again: make() may have added entries
    do {
      if (void* other = find(fresh->next, wanted)) return other;  // another thread was faster
    } while (!first_.compare_exchange_weak(fresh->next, fresh.get(), std::memory_order_acq_rel,
                                           std::memory_order_acquire));  // publish; read
    static_cast<void>(fresh.release());                                  // never freed
    return object.release();
  }

 private:
  struct entry {
    std::string name;
    std::size_t size;
    void* object;
    const entry* next;
  };

  static void* find(const entry* first, const maker& wanted) noexcept {
    for (; first != nullptr; first = first->next) {
      if (first->name == wanted.name && first->size == wanted.size) return first->object;
    }
    return nullptr;
  }

  static process_objects* find_or_register() {
    if (process_objects* known = registered()) return known;
    auto fresh = std::make_unique<process_objects>();
    std::string text = "/";  // glibc expects an absolute path
    text += std::to_string(reinterpret_cast<std::uintptr_t>(fresh.get()));
    // Out of memory: this module has a table of its own.
    if (::bindtextdomain(binary_interface, text.c_str()) == nullptr) return fresh.release();
    process_objects* known = registered();
    if (known == fresh.get()) static_cast<void>(fresh.release());
    return known;
  }

  static process_objects* registered() noexcept {
    const char* text = ::bindtextdomain(binary_interface, nullptr);
    std::uintptr_t address = 0;
    // For an unbound name glibc returns its default folder, which is not a number.
    if (text == nullptr || text[0] != '/') return nullptr;
    const auto end = std::from_chars(text + 1, text + std::strlen(text), address);
    return end.ec == std::errc() && *end.ptr == '\0' ? reinterpret_cast<process_objects*>(address)
                                                     : nullptr;
  }

  std::atomic<const entry*> first_{nullptr};
};

/// Made while the module is loaded, which the loader does in one thread at a time. Later, two
/// threads of two modules could each register a table.
inline const process_objects& process_objects_made_early = process_objects::instance();

/// The object of this name and type, one per process and never destroyed. @p make creates the first
/// by `new`. Searches a list: keep the reference in a static object.
template <class T>
[[nodiscard]] T& one_per_process(
    // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): it is the caller's
    const char* name, void* (*make)() = []() -> void* { return new T; }) {
  return *static_cast<T*>(process_objects::instance().find_or_make(
      {name, sizeof(T), make, [](void* object) { delete static_cast<T*>(object); }}));
}

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
