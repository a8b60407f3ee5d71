// SPDX-License-Identifier: MIT
/// @file
/// Calls of objects in a manager's process: what the client encodes, and the code that the server
/// runs for it. One instance for each type of object, callable and arguments.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/connection/descriptor_carrier.hpp>
#include <procpool/detail/connection/typed_message.hpp>
#include <procpool/detail/manager/managed_code.hpp>
#include <procpool/detail/manager/managed_object.hpp>
#include <procpool/detail/manager/manager_link.hpp>
#include <procpool/detail/task/arguments.hpp>
#include <procpool/detail/task/callable.hpp>

namespace procpool::detail {

// ---- the client --------------------------------------------------------------------------------

/// Sends a request whose content @p put puts, and waits for the result.
template <class R, class Put>
R ask_manager(manager_link& link, const held_object& object, code_ref code, Put put) {
  manager_exchange exchange(link, object, code);
  const handle_scope sent(handle_delivery::repeated);  // kept until the reply has come
  sent_descriptors along;
  received_descriptors back;
  {
    const carrier_scope scope(along);
    encoder out(exchange.request());
    put(out);
  }
  const carrier_scope scope(back);
  decoder in(exchange.reply(along.numbers(), back.all()));
  if constexpr (std::is_void_v<R>) {
    in.finish();
  } else {
    R result = in.get<R>();
    in.finish();
    return result;
  }
}

// ---- calls -------------------------------------------------------------------------------------

/// The types as which the arguments of a call are sent: the parameter types of F after the first,
/// which is the object.
template <class F, class... A>
using managed_types_t =
    typename shipped_types<F, type_list<A...>,
                           typename without_first<typename signature<F>::type>::type>::type;

template <class T, class F, class Sent>
struct managed_result;
template <class T, class F, class... S>
struct managed_result<T, F, type_list<S...>> : std::invoke_result<F&, T&, S&&...> {};

/// The result of a call as the client gets it.
template <class T, class F, class... A>
using managed_result_t =
    std::decay_t<typename managed_result<T, F, managed_types_t<F, A...>>::type>;

template <class F, class... A, class... P>
consteval bool check_managed_parameters(type_list<A...> arguments, type_list<P...>) {
  if constexpr ((check_parameter<P>() && ...)) {
    return check_arguments(managed_types_t<F, A...>{}, arguments);
  }
  return false;
}
template <class F, class... A>
consteval bool check_managed_parameters(type_list<A...> arguments, no_signature) {
  return check_arguments(managed_types_t<F, A...>{}, arguments);
}

template <class T, class F, class... S>
consteval bool check_managed_call(type_list<S...>) {
  constexpr bool callable = std::is_invocable_v<F&, T&, S&&...>;
  static_assert(callable,
                "procpool: call(f, args...) runs f(object, args...) in the manager's process, and "
                "f cannot be called with a T& and these arguments");
  if constexpr (callable) return check_result<std::decay_t<std::invoke_result_t<F&, T&, S&&...>>>();
  return false;
}

/// Explains at compile time what is wrong with a call.
template <class T, class F, class... A>
consteval bool check_managed() {
  using parameters = typename without_first<typename signature<F>::type>::type;
  if constexpr (callable_codec<F>::check()) {
    if constexpr (check_managed_parameters<F>(type_list<A...>{}, parameters{})) {
      return check_managed_call<T, F>(managed_types_t<F, A...>{});
    }
  }
  return false;
}

/// The arguments at the end of a message.
template <class... S>
argument_list<S...> last_arguments(decoder& in) {
  in.align(byte_buffer::alignment);
  decoder rest = next_arguments<S...>(in);
  in.finish();
  return argument_list<S...>::decode(rest);
}

/// What a call sends.
template <class F, class... S>
struct managed_message {
  F callable;
  argument_list<S...> arguments;

  // Braces: the callable is decoded first.
  static managed_message decode(managed_call& call) {
    const carrier_scope scope(call.sent_along());
    decoder& in = call.arguments();
    return {callable_codec<F>::decode(in), last_arguments<S...>(in)};
  }
};

/// One kind of call in the server.
template <class T, class F, class... S>
struct managed_invocation {
  static void run(managed_call& call) {
    const auto object = call.object(type_tag<T>());
    auto message = managed_message<F, S...>::decode(call);
    T& value = static_cast<managed_value<T>&>(*object).value();
    const auto invoke = [&](S&&... each) -> decltype(auto) {
      if constexpr (std::is_member_pointer_v<F>) {
        return invoke_member(message.callable, value, std::move(each)...);
      } else {
        return std::invoke(message.callable, value, std::move(each)...);
      }
    };
    const std::lock_guard lock(object->mutex);
    if constexpr (std::is_void_v<std::invoke_result_t<F&, T&, S&&...>>) {
      message.arguments.pass_to(invoke);
    } else {
      call.put<std::decay_t<std::invoke_result_t<F&, T&, S&&...>>>(
          message.arguments.pass_to(invoke));
    }
  }

  static inline const managed_code code{&run};
};

template <class T, class Sent, class F, class... A>
auto call_managed_as(manager_link& link, const held_object& object, const F& callable,
                     A&&... arguments) {
  using result = std::decay_t<typename managed_result<T, F, Sent>::type>;
  const auto code = []<class... S>(type_list<S...>) {
    return managed_invocation<T, F, S...>::code.reference();
  }(Sent{});
  return ask_manager<result>(link, object, code, [&](encoder& out) {
    callable_codec<F>::encode(out, callable);
    out.align(byte_buffer::alignment);
    put_arguments(out, Sent{}, std::forward<A>(arguments)...);
  });
}

/// Calls @p callable in the server with the object, which is a T, and @p arguments.
template <class T, class F, class... A>
auto call_managed(manager_link& link, const held_object& object, const F& callable,
                  A&&... arguments) {
  if constexpr (check_managed<T, F, A...>()) {
    reject_null(callable);
    return call_managed_as<T, managed_types_t<F, A...>>(link, object, callable,
                                                        std::forward<A>(arguments)...);
  }
}

// ---- new objects -------------------------------------------------------------------------------

/// The server's part of making a T.
template <class T, class... S>
struct managed_construction {
  static void run(managed_call& call) {
    auto arguments = decode(call);
    const auto make = [](S&&... each) {
      return std::make_shared<managed_value<T>>(std::in_place, std::move(each)...);
    };
    call.keep(arguments.pass_to(make));
  }
  static argument_list<S...> decode(managed_call& call) {
    const carrier_scope scope(call.sent_along());
    return last_arguments<S...>(call.arguments());
  }

  static inline const managed_code code{&run};
};

/// The type as which an argument of a constructor is sent.
template <class A>
using constructed_from_t =
    std::conditional_t<std::is_same_v<std::decay_t<A>, const char*>, std::string, std::decay_t<A>>;

template <class T, class... S>
consteval bool check_managed_construction() {
  constexpr bool makes_object = std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T>;
  constexpr bool constructible =
      makes_object && (std::is_constructible_v<T, S&&...> || requires { T{std::declval<S>()...}; });
  static_assert(makes_object, "procpool: a manager keeps objects, not references, const or arrays");
  static_assert(!makes_object || constructible,
                "procpool: make<T>(args...) constructs a T in the manager's process from copies of "
                "the arguments, and T has no such constructor");
  if constexpr (constructible) return (check_encodable<S>() && ...);
  return false;
}

/// A new T in the server. @param object an anchor for it: see manager.hpp
template <class T, class... A>
void make_managed(manager_link& link, const held_object& object, A&&... arguments) {
  if constexpr (check_managed_construction<T, constructed_from_t<A>...>()) {
    ask_manager<void>(
        link, object, managed_construction<T, constructed_from_t<A>...>::code.reference(),
        [&](encoder& out) {
          put_arguments(out, type_list<constructed_from_t<A>...>{}, std::forward<A>(arguments)...);
        });
  }
}

}  // namespace procpool::detail
