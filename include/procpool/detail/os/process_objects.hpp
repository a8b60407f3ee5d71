// SPDX-License-Identifier: MIT
/// @file
/// The table behind one_per_process.hpp, which says how modules find it.
#pragma once

#include <dlfcn.h>
#include <libintl.h>
#include <link.h>

#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include <procpool/config.hpp>
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

PROCPOOL_FUNCTION void keep_loaded(std::uintptr_t address) noexcept {
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

PROCPOOL_FUNCTION void* find_or_make_object(const char* name, std::size_t size, void* (*make)(),
                                            void (*destroy)(void*)) {
  return process_objects::instance().find_or_make({name, size, make, destroy});
}

}  // namespace procpool::detail::os
