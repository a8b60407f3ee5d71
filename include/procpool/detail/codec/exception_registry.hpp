// SPDX-License-Identifier: MIT
/// @file
/// Which exceptions keep their type on the way from a worker to its parent, and how each is taken
/// apart. The way itself is in exception_transport.hpp.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <variant>

#include <procpool/codec.hpp>
#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Whether an exception has members that its base does not have.
template <class E, class Base>
inline constexpr bool adds_to = std::is_base_of_v<Base, E> && (sizeof(E) > sizeof(Base));

template <class E>
inline constexpr bool made_from_text =
    std::is_constructible_v<E, std::string> || std::is_constructible_v<E, const char*>;

/// Takes an exception of type E apart and puts it together again. Specialized for types that are
/// more than their text.
template <class E>
struct exception_parts {
  static void encode(encoder& out, const std::exception& error) { out.put(what_of(error)); }
  static E decode(decoder& in) {
    static_assert(!adds_to<E, std::runtime_error> && !adds_to<E, std::logic_error>,
                  "procpool: this exception has members besides its text, which would not arrive: "
                  "specialize procpool::codec for it");
    static_assert(made_from_text<E>,
                  "procpool: this exception cannot be made from its text: give it a constructor "
                  "from std::string or const char*, or specialize procpool::codec for it");
    const std::string text = in.get<std::string>();
    if constexpr (std::is_constructible_v<E, std::string>) {
      return E(text);
    } else {
      return E(text.c_str());
    }
  }
};

/// Types that are nothing but a type. (std::bad_variant_access has a member, one of a few texts.)
template <class E>
  requires(std::is_default_constructible_v<E> && !made_from_text<E> && !encodable<E> &&
           (sizeof(E) == sizeof(std::exception) || std::is_same_v<E, std::bad_variant_access>))
struct exception_parts<E> {
  static void encode(encoder&, const std::exception&) {}
  static E decode(decoder&) { return E(); }
};

template <class E>
  requires encodable<E>
struct exception_parts<E> {
  static void encode(encoder& out, const E& error) { out.put(error); }
  static E decode(decoder& in) { return in.get<E>(); }
};

/// What @p rethrow(error) throws while @p trace is being handled: the code that all types share.
/// @throws what has nothing nested in it: the exception could not be copied
[[nodiscard]] inline std::exception_ptr thrown_under(const RemoteTraceback& trace, void* error,
                                                     void (*rethrow)(void* error)) {
  try {
    try {
      throw trace;
    } catch (...) {
      rethrow(error);
    }
  } catch (const std::nested_exception&) {
    return std::current_exception();
  }
  return nullptr;
}

/// An exception with its trace nested inside, as std::throw_with_nested makes it.
template <class E>
[[nodiscard]] std::exception_ptr with_trace(E error, const RemoteTraceback& trace) {
  return thrown_under(trace, &error, [](void* object) {
    E& rebuilt = *static_cast<E*>(object);
    if constexpr (std::derived_from<E, std::nested_exception>) {
      // Not wrapped by std::throw_with_nested. What was nested in it has not come with it.
      static_cast<std::nested_exception&>(rebuilt) = std::nested_exception();
    }
    std::throw_with_nested(std::move(rebuilt));
  });
}

/// How one type of exception crosses.
struct exception_entry {
  const std::type_info* type;
  void (*encode)(encoder&, const std::exception&);
  std::exception_ptr (*rebuild)(decoder&, const RemoteTraceback&);
  const std::type_info* nested = nullptr;  ///< as std::throw_with_nested wraps it, if known
};

template <class E>
[[nodiscard]] constexpr exception_entry exception_entry_of() noexcept {
  static_assert(std::derived_from<E, std::exception>,
                "procpool: only types derived from std::exception can be registered");
  static_assert(!std::is_final_v<E>,
                "procpool: a final exception type cannot carry its RemoteTraceback inside");
  exception_entry entry{&typeid(E), nullptr, [](decoder& in, const RemoteTraceback& trace) {
                          return with_trace(exception_parts<E>::decode(in), trace);
                        }};
#if defined(__GLIBCXX__)
  // The name of a template's instance is another one inside the wrapper's: it refers back.
  if constexpr (!std::derived_from<E, std::nested_exception>) {
    entry.nested = &typeid(std::_Nested_exception<E>);
  }
#endif
  if constexpr (std::invocable<decltype(exception_parts<E>::encode), encoder&,
                               const std::exception&>) {
    entry.encode = exception_parts<E>::encode;
  } else {
    entry.encode = [](encoder& out, const std::exception& error) {
      exception_parts<E>::encode(out, dynamic_cast<const E&>(error));
    };
  }
  return entry;
}

/// A type that the user has registered; the newest comes first.
struct registered_exception {
  exception_entry entry;
  const registered_exception* next;
};

/// Without a lock, because one that another thread holds while this process forks would stay locked
/// in the child.
inline std::atomic<const registered_exception*>& registered_exceptions() {
  static auto& first =
      os::one_per_process<std::atomic<const registered_exception*>>("registered exceptions");
  return first;
}

/// Made before main: the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline const auto& registered_exceptions_made_early = registered_exceptions();

template <class E>
void add_exception() {
  // Stays for ever, as readers have no lock; and so must the module that it points into.
  // No lock of ours around it: it waits for one of the loader's, which a thread has that runs
  // constructors of a library. Forks reset that one in their children.
  os::keep_loaded(reinterpret_cast<std::uintptr_t>(exception_entry_of<E>().rebuild));
  auto* node = new registered_exception{
      exception_entry_of<E>(),
      registered_exceptions().load(std::memory_order_relaxed)};  // the exchange makes sure
  while (!registered_exceptions().compare_exchange_weak(
      node->next, node, std::memory_order_release,  // the node behind it
      std::memory_order_relaxed)) {                 // the next try publishes
  }
}

}  // namespace procpool::detail
