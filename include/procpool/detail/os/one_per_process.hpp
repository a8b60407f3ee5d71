// SPDX-License-Identifier: MIT
/// @file
/// Objects that exist once in a process, however many of its modules have the library inside.
///
/// An inline variable does not do that. Each module (the program, a shared library, a plugin) that
/// includes procpool has its own copy of it, and the linker makes them one only when their symbols
/// are visible: not when a module is compiled with -fvisibility=hidden, not between a program and a
/// plugin that it loads by dlopen, and with clang not between two plugins. Then each would have its
/// own list of who takes part in a fork and its own answer to who runs here.
///
/// So the modules meet at something that the C library has once: its table of message catalogues,
/// which keeps a folder for each name. Under the name of this library and version it keeps the
/// address of our own table. It lasts as long as the process, a forked child has it, and a new
/// program does not. Modules compiled with another version of the library, or with another standard
/// library, use another name: they do not share, as if they were different libraries.
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

/// Modules with the same text can use each other's objects.
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
// Not there in a program that is linked statically, which has no modules either.
[[gnu::weakref("dladdr1")]] static int dladdr_if_there(const void*, Dl_info*, void**, int);
[[gnu::weakref("dlopen")]] static void* dlopen_if_there(const char*, int);
}

/// Has the module whose code is at @p address stay in memory when it is closed. Uses the loader's
/// locks, which a fork in another thread copies as they are.
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

/// The objects that are there already, by name.
class process_objects {
 public:
  struct maker {
    std::string_view name;
    std::size_t size;  ///< of the object: modules that do not agree on it do not share it
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

  /// Any thread, no lock: a fork may happen at any moment. @throws what making it throws
  void* find_or_make(const maker& wanted) {
    const entry* known = first_.load(std::memory_order_acquire);  // the entries behind it
    if (void* object = find(known, wanted)) return object;
    // The object may have virtual functions of this module.
    keep_loaded(reinterpret_cast<std::uintptr_t>(wanted.make));
    std::unique_ptr<void, void (*)(void*)> object(wanted.make(), wanted.destroy);
    auto fresh = std::make_unique<entry>(
        entry{std::string(wanted.name), wanted.size, object.get(), nullptr});
    fresh->next = first_.load(std::memory_order_acquire);  // making it may have made others
    do {
      if (void* other = find(fresh->next, wanted)) return other;  // another thread was faster
    } while (!first_.compare_exchange_weak(fresh->next, fresh.get(), std::memory_order_acq_rel,
                                           std::memory_order_acquire));  // as above
    static_cast<void>(fresh.release());  // for as long as the process runs
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
    std::string text = "/";  // the table takes folders
    text += std::to_string(reinterpret_cast<std::uintptr_t>(fresh.get()));
    // Without memory for its entry this module is on its own.
    if (::bindtextdomain(binary_interface, text.c_str()) == nullptr) return fresh.release();
    process_objects* known = registered();
    if (known == fresh.get()) static_cast<void>(fresh.release());
    return known;
  }

  static process_objects* registered() noexcept {
    const char* text = ::bindtextdomain(binary_interface, nullptr);
    std::uintptr_t address = 0;
    // A name that nobody has bound is in a folder of the system's, which is no number.
    if (text == nullptr || text[0] != '/') return nullptr;
    const auto end = std::from_chars(text + 1, text + std::strlen(text), address);
    return end.ec == std::errc() && *end.ptr == '\0' ? reinterpret_cast<process_objects*>(address)
                                                     : nullptr;
  }

  std::atomic<const entry*> first_{nullptr};
};

/// Made while a module is loaded, which only one thread does at a time: later two threads of two
/// modules could both be the first.
inline const process_objects& process_objects_made_early = process_objects::instance();

/// The object of this name and type; if there is none, @p make makes it by `new`. Once in the
/// process, never destroyed. Costs a search: keep the reference in a static object.
template <class T>
[[nodiscard]] T& one_per_process(
    // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): it is the caller's
    const char* name, void* (*make)() = []() -> void* { return new T; }) {
  return *static_cast<T*>(process_objects::instance().find_or_make(
      {name, sizeof(T), make, [](void* object) { delete static_cast<T*>(object); }}));
}

/// A pointer that each thread has for itself, null at first: what thread_local would be, but one
/// for all modules. @p name tells it from others. Never destroyed, constant-initialized.
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

  /// @throws std::bad_alloc, when the thread has had none before and the program many keys
  per_thread_pointer& operator=(T* value) {
    if (::pthread_setspecific(key(), value) != 0) throw std::bad_alloc();
    return *this;
  }
  /// @returns what was there
  T* exchange(T* value) {
    T* const before = get();
    *this = value;
    return before;
  }

  /// Afterwards no use fails for want of a key. For the initializer of a static object.
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
    const std::uint64_t known = known_.load(std::memory_order_relaxed);  // all there is
    if (known != 0) [[likely]]
      return static_cast<pthread_key_t>(known - 1);
    const pthread_key_t number = one_per_process<shared_key>(name_).number;
    known_.store(std::uint64_t{number} + 1, std::memory_order_relaxed);  // the same by any thread
    return number;
  }

  const char* name_;
  mutable std::atomic<std::uint64_t> known_{0};  ///< the key + 1
};

}  // namespace procpool::detail::os
