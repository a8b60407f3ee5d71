// SPDX-License-Identifier: MIT
/// @file
/// Which exceptions keep their type on the way from a worker to its parent, and how each is encoded
/// and rebuilt. exception_transport.hpp sends them.
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

/// Encodes and rebuilds an exception of type E. Specialized for types that hold more than a text.
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

/// Whether an exception has no members that matter.
template <class E>
inline constexpr bool has_no_content = sizeof(E) == sizeof(std::exception);

/// Types without content.
template <class E>
  requires(std::is_default_constructible_v<E> && !made_from_text<E> && !encodable<E> &&
           has_no_content<E>)
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

/// The exception that @p rethrow(error) throws while @p trace is being handled. Shared by all
/// types.
/// @throws any exception with nothing nested in it: copying @p error threw
[[nodiscard]] inline std::exception_ptr capture_nested(const RemoteTraceback& trace, void* error,
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
  return capture_nested(trace, &error, [](void* object) {
    E& rebuilt = *static_cast<E*>(object);
    if constexpr (std::derived_from<E, std::nested_exception>) {
      // std::throw_with_nested does not wrap this type. What was nested in it was not sent.
      static_cast<std::nested_exception&>(rebuilt) = std::nested_exception();
    }
    std::throw_with_nested(std::move(rebuilt));
  });
}

/// How one type of exception is encoded and rebuilt.
struct exception_entry {
  const std::type_info* type;
  void (*encode)(encoder&, const std::exception&);
  std::exception_ptr (*rebuild)(decoder&, const RemoteTraceback&);
  const std::type_info* nested = nullptr;  ///< the wrapper by std::throw_with_nested, if known
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
  // exception_key() does not find a template's instance: the wrapper's name abbreviates its name.
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

/// A type that the user has registered, in a list with the newest first.
struct registered_exception {
  exception_entry entry;
  const registered_exception* next;
};

/// Without a lock: a lock that another thread holds while this process forks would stay locked in
/// the child.
inline std::atomic<const registered_exception*>& registered_exceptions() {
  static auto& first =
      os::one_per_process<std::atomic<const registered_exception*>>("registered exceptions");
  return first;
}

/// Made before main: the guard of a static object that another thread initializes while this
/// process forks would stay locked in the child.
inline const auto& registered_exceptions_made_early = registered_exceptions();

template <class E>
void add_exception() {
  // The node is never freed, because readers take no lock, so its module must stay loaded, too.
  // Called without a lock of procpool: it waits for the loader's lock, which a thread holds while
  // it runs the constructors of a library. A fork resets the loader's lock in the child.
  os::keep_loaded(reinterpret_cast<std::uintptr_t>(exception_entry_of<E>().rebuild));
  auto* node = new registered_exception{
      exception_entry_of<E>(),
      registered_exceptions().load(std::memory_order_relaxed)};  // the exchange checks it
  while (!registered_exceptions().compare_exchange_weak(
      node->next, node, std::memory_order_release,  // after the node's content
      std::memory_order_relaxed)) {                 // the next try publishes
  }
}

}  // namespace procpool::detail
