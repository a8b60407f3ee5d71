// SPDX-License-Identifier: MIT
/// @file
/// The callable of a task: its parameters, its encoding, checks at compile time, its name.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/module/code_ref.hpp>

namespace procpool::detail {

// ---- parameters ------------------------------------------------------------------------------

struct no_signature {};

/// The parameter types of a callable that has one signature; no_signature for a generic one.
template <class F>
struct signature {
  using type = no_signature;
};
template <class R, class... P>
struct signature<R (*)(P...)> {
  using type = type_list<P...>;
};
template <class R, class... P>
struct signature<R (*)(P...) noexcept> : signature<R (*)(P...)> {};
/// A pointer to a member: the object comes first.
template <class R, class C>
  requires(!std::is_function_v<R>)
struct signature<R C::*> {
  using type = type_list<C>;
};
template <class R, class C, class... P>
struct signature<R (C::*)(P...)> : signature<R (*)(C, P...)> {};
template <class R, class C, class... P>
struct signature<R (C::*)(P...) const> : signature<R (*)(C, P...)> {};
template <class R, class C, class... P>
struct signature<R (C::*)(P...) noexcept> : signature<R (*)(C, P...)> {};
template <class R, class C, class... P>
struct signature<R (C::*)(P...) const noexcept> : signature<R (*)(C, P...)> {};

template <class Types>
struct without_first {
  using type = no_signature;
};
template <class First, class... Rest>
struct without_first<type_list<First, Rest...>> {
  using type = type_list<Rest...>;
};
template <class F>
  requires std::is_class_v<F> && requires {
    &F::operator();
  }
struct signature<F> : without_first<typename signature<decltype(&F::operator())>::type> {};

template <class F>
inline constexpr bool is_function_pointer_v =
    std::is_pointer_v<F>&& std::is_function_v<std::remove_pointer_t<F>>;

/// The types as which the arguments of a call are sent: the callee's parameter types without const
/// and reference; for a generic callable the types of the arguments.
template <class F, class Arguments, class Signature = typename signature<F>::type>
struct shipped_types;
template <class F, class... A>
struct shipped_types<F, type_list<A...>, no_signature> {
  using type = type_list<std::decay_t<A>...>;
};
template <class F, class... A, class... P>
struct shipped_types<F, type_list<A...>, type_list<P...>> {
  using type = type_list<std::remove_cvref_t<P>...>;
};
/// The same for a pack of argument types.
template <class F, class... A>
using shipped_types_t = typename shipped_types<F, type_list<A...>>::type;

template <class F, class Shipped>
struct call_result;
template <class F, class... S>
struct call_result<F, type_list<S...>> : std::invoke_result<F&, S&&...> {};

/// The same for arguments given as a type_list.
template <class F, class Arguments>
struct listed_result;
template <class F, class... A>
struct listed_result<F, type_list<A...>> : call_result<F, shipped_types_t<F, A...>> {};

/// The result of calling F with these arguments; a substitution failure if it cannot be called.
template <class F, class... A>
using task_result_t = std::decay_t<typename call_result<F, shipped_types_t<F, A...>>::type>;

// ---- the callable itself -----------------------------------------------------------------------

/// Throws std::invalid_argument when the bytes of a closure hold an address in this thread's stack:
/// it almost certainly captured a local variable by reference, which no other process can follow.
void reject_captured_references(const void* closure, std::size_t size);

/// A pointer to a member function as it lies in memory: an address, or for a virtual function an
/// offset in the table of its class, and the adjustment of `this` (Itanium C++ ABI, 2.3).
struct member_code {
  std::uintptr_t function = 0;
  std::uintptr_t adjustment = 0;

  [[nodiscard]] bool is_address() const noexcept {
#if defined(__aarch64__) || defined(__arm__)
    return (adjustment & 1) == 0;
#else
    return (function & 1) == 0;
#endif
  }
};

/// Encodes and decodes callables of type F. A function pointer is sent as a code_ref, a closure or
/// other trivially copyable object as its bytes, everything else by its codec. The latter is a part
/// of the message with its own length, so that a codec that reads another length than it wrote does
/// not shift what follows.
template <class F>
struct callable_codec {
  static constexpr bool by_codec = std::is_aggregate_v<F> && encodable<F>;
  static constexpr bool by_bytes =
      !by_codec &&
      (std::is_class_v<F> || std::is_member_object_pointer_v<F>)&&std::is_trivially_copyable_v<F>;
  static constexpr bool is_code = is_function_pointer_v<F> || std::is_member_function_pointer_v<F>;
  static constexpr bool is_part = !is_flat_v<F> && !(std::is_empty_v<F> && by_codec);

  static consteval bool check() {
    constexpr bool callable = is_code || std::is_class_v<F> || std::is_member_object_pointer_v<F>;
    constexpr bool sendable = is_code || by_codec || by_bytes || encodable<F>;
    static_assert(callable,
                  "procpool: the target of the task cannot be called: pass a function, a lambda, a "
                  "function object or a pointer to a member, and its arguments: apply(f, 3)");
    static_assert(
        !callable || sendable,
        "procpool: this callable holds something that cannot be sent as bytes: for a lambda that "
        "captures a string, a vector ... write a struct with those members and operator(), without "
        "constructors; for any other class specialize procpool::codec; instead of std::function or "
        "std::bind pass the function or a lambda");
    return callable && sendable;
  }

  /// @returns the code that it points to, if it is a function pointer
  static code_ref encode(encoder& out, const F& callable) {
    if constexpr (is_function_pointer_v<F>) {
      const auto [offset, module] = find_code(reinterpret_cast<std::uintptr_t>(callable));
      out.put(offset);
      out.put(module);
      return {offset, module};
    } else if constexpr (std::is_member_function_pointer_v<F>) {
      const auto raw = std::bit_cast<member_code>(callable);
      out.put(raw.is_address());
      const code_ref code = raw.is_address() ? find_code(raw.function) : code_ref{raw.function, 0};
      out.put(code.offset);
      out.put(code.module);
      out.put(std::uint64_t{raw.adjustment});
      return raw.is_address() ? code : code_ref{};
    } else if constexpr (std::is_empty_v<F> && by_bytes) {
      // An empty class has no bytes to send.
    } else if constexpr (by_bytes) {
      reject_captured_references(&callable, sizeof callable);
      out.align(alignof(F) < 16 ? alignof(F) : 16);
      out.bytes(&callable, sizeof callable);
    } else if constexpr (!is_part) {
      out.put(callable);
    } else {
      const std::size_t begin = out.begin_part();
      out.put(callable);
      out.end_part(begin);
    }
    return {};
  }

  static F decode(decoder& in) {
    if constexpr (is_function_pointer_v<F>) {
      code_ref code;
      code.offset = in.template get<std::uint64_t>();
      code.module = in.template get<std::uint32_t>();
      return reinterpret_cast<F>(code_address(code));
    } else if constexpr (std::is_member_function_pointer_v<F>) {
      const bool is_address = in.template get<bool>();
      code_ref code;
      code.offset = in.template get<std::uint64_t>();
      code.module = in.template get<std::uint32_t>();
      const std::uintptr_t function = is_address ? code_address(code) : code.offset;
      return std::bit_cast<F>(member_code{function, in.template get<std::uint64_t>()});
    } else if constexpr (by_bytes) {
      bytes_of raw{};
      if constexpr (!std::is_empty_v<F>) {
        in.align(alignof(F) < 16 ? alignof(F) : 16);
        std::memcpy(raw.bytes, in.bytes(sizeof(F)).data(), sizeof(F));
      }
      return std::bit_cast<F>(raw);
    } else if constexpr (!is_part) {
      return in.template get<F>();
    } else {
      decoder part = in.part();
      if constexpr (std::is_move_constructible_v<F>) {
        F callable = part.template get<F>();
        part.finish();
        return callable;
      } else {  // returned at once, as it cannot be moved: the rest is not checked
        return part.template get<F>();
      }
    }
  }

 private:
  struct alignas(F) bytes_of {
    std::byte bytes[sizeof(F)];
  };
};

// ---- checks ------------------------------------------------------------------------------------

// A failing check is a compile error with one sentence. Each check returns whether all is well, so
// that nothing more is instantiated after an error.

template <class P>
consteval bool check_parameter() {
  constexpr bool bound = is_process_bound<std::remove_cvref_t<P>>();
  if constexpr (bound) explain<std::remove_cvref_t<P>>();
  constexpr bool changes_argument =
      !bound && std::is_lvalue_reference_v<P> && !std::is_const_v<std::remove_reference_t<P>>;
  static_assert(!changes_argument,
                "procpool: a task parameter is a non-const reference, but the worker would change "
                "its own copy; take it by value or const reference and return the new value");
  return !bound && !changes_argument;
}

template <class T>
consteval bool check_encodable() {
  assert_encodable<T>();
  return encodable<T>;
}

/// Whether an argument is the options of a call, judged by the name of its type.
template <class A>
consteval bool is_options() {
  if constexpr (std::is_aggregate_v<std::remove_cvref_t<A>>) {
    constexpr std::string_view name = spelled_name<std::remove_cvref_t<A>>();
    return name.starts_with("procpool::") && name.find("_options") != std::string_view::npos;
  }
  return false;
}

/// Whether an argument is a tuple, pair or array of @p size elements.
template <class A>
consteval bool spreads_over(std::size_t size) {
  if constexpr (requires { std::tuple_size<std::remove_cvref_t<A>>::value; }) {
    return std::tuple_size<std::remove_cvref_t<A>>::value == size;
  }
  return false;
}

template <class... S, class... A>
consteval bool check_arguments(type_list<S...>, type_list<A...>) {
  constexpr bool count = sizeof...(A) == sizeof...(S);
  constexpr bool options = !count && (is_options<A>() || ...);
  constexpr bool spreads = !count && sizeof...(A) == 1 && (spreads_over<A>(sizeof...(S)) && ...);
  static_assert(!options, "procpool: options come first: apply({.timeout = 2s}, f, 3)");
  static_assert(!spreads,
                "procpool: the task takes several arguments, and the item is one, a tuple: use "
                "starmap, which spreads it, or let the task take the tuple");
  static_assert(count || options || spreads,
                "procpool: the task cannot be called with this number of arguments");
  if constexpr (count) {
    constexpr bool converts = (std::is_convertible_v<A, S> && ...);
    static_assert(converts,
                  "procpool: the task cannot be called with these arguments: one of them does not "
                  "convert to the parameter's type");
    if constexpr (converts) return (check_encodable<S>() && ...);
  }
  return false;
}

template <class F, class... A, class... P>
consteval bool check_signature(type_list<A...> arguments, type_list<P...>) {
  if constexpr ((check_parameter<P>() && ...)) {
    return check_arguments(shipped_types_t<F, A...>{}, arguments);
  }
  return false;
}

template <class F, class... A>
consteval bool check_signature(type_list<A...> arguments, no_signature) {
  constexpr bool callable = std::is_invocable_v<F&, std::decay_t<A>&&...>;
  static_assert(callable, "procpool: the target of the task cannot be called with these arguments");
  if constexpr (callable) return check_arguments(shipped_types_t<F, A...>{}, arguments);
  return false;
}

/// Explains at compile time what is wrong with calling F in a worker with arguments of types A.
template <class F, class... A>
consteval bool check_call() {
  if constexpr (callable_codec<F>::check()) {
    return check_signature<F>(type_list<A...>{}, typename signature<F>::type{});
  }
  return false;
}

/// Explains at compile time why R cannot be the result of a task.
template <class R>
consteval bool check_result() {
  if constexpr (std::is_void_v<R>) {
    return true;
  } else {
    static_assert(!contains_view_v<R>,
                  "procpool: the task returns a view, but what it refers to ends with the call; "
                  "return std::string or std::vector instead");
    if constexpr (!contains_view_v<R>) return check_encodable<R>();
    return false;
  }
}

// ---- messages ----------------------------------------------------------------------------------

/// Throws std::invalid_argument for a null function pointer.
template <class F>
void reject_null(const F& callable) {
  if constexpr (is_function_pointer_v<F> || std::is_member_pointer_v<F>) {
    if (callable == nullptr) {
      throw std::invalid_argument("the function to run is a null pointer");
    }
  }
}

/// A readable name of a callable for messages.
template <class F>
std::string callable_name(const F& callable) {
  if constexpr (is_function_pointer_v<F>) {
    std::string name = symbol_name(reinterpret_cast<std::uintptr_t>(callable));
    return name.empty() ? type_name<std::remove_pointer_t<F>>() : name;
  } else {
    return type_name<F>();
  }
}

/// Which code is run, for messages. The text is made on demand.
struct callable_label {
  std::string (*name)(std::uintptr_t function) = nullptr;
  std::uintptr_t function = 0;  ///< its address; 0 if it is no function

  [[nodiscard]] std::string text() const { return name != nullptr ? name(function) : ""; }
};

/// The label of any callable of type F, by its type.
template <class F>
callable_label label_of_type() {
  return {[](std::uintptr_t) { return type_name<F>(); }, 0};
}

template <class F>
callable_label label_of(const F& callable) {
  if constexpr (is_function_pointer_v<F>) {
    return {[](std::uintptr_t at) { return callable_name(reinterpret_cast<F>(at)); },
            reinterpret_cast<std::uintptr_t>(callable)};
  } else {
    return label_of_type<F>();
  }
}

}  // namespace procpool::detail

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/task/closure_check.hpp>
#endif
