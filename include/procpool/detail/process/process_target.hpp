// SPDX-License-Identifier: MIT
/// @file
/// The target of a process: a callable with its arguments, of any copyable or movable types. A
/// forked child has them as they are; for spawn they have to be encodable.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/invoke.hpp>
#include <procpool/detail/task/task.hpp>

namespace procpool::detail {

/// An encoded target for a spawned process.
struct shipped_target {
  code_ref maker;  ///< refers to a target_maker
  byte_buffer body;
  std::shared_ptr<void> handles = {};  ///< shared objects, kept until the process has ended
};

struct process_target {
  process_target() = default;
  process_target(const process_target&) = delete;
  process_target& operator=(const process_target&) = delete;
  virtual ~process_target() = default;
  virtual void run() = 0;
  /// @throws std::invalid_argument when it cannot be encoded; any exception of its codecs
  [[nodiscard]] virtual shipped_target ship() const = 0;
};

/// Decodes a target that ship() encoded.
using target_maker = std::unique_ptr<process_target> (*)(std::span<const std::byte> body);

template <class F, class... S, class... A>
consteval bool all_convert(type_list<S...>, type_list<A...>) {
  if constexpr (sizeof...(S) == sizeof...(A)) {
    return std::is_invocable_v<F, S...> &&
           ((encodable<S> && !contains_view_v<S> &&
             (std::is_same_v<A, S> || std::is_convertible_v<const A&, S>)) &&
            ...);
  }
  return false;
}

/// Whether a target and its arguments can be encoded for a spawned process.
template <class F, class... A>
consteval bool can_be_shipped() {
  if constexpr (callable_codec<F>::is_code || callable_codec<F>::by_codec ||
                callable_codec<F>::by_bytes || encodable<F>) {
    return all_convert<F>(shipped_types_t<F, A...>{}, type_list<A...>{});
  }
  return false;
}

template <class F, class... S>
std::unique_ptr<process_target> make_shipped_target(std::span<const std::byte> body);

/// As with std::thread, the callable is called once, as an rvalue, with its arguments as rvalues.
template <class F, class... A>
class bound_target final : public process_target {
 public:
  explicit bound_target(F&& target, A&&... args)
      : target_(std::move(target)), arguments_(std::move(args)...) {}

  void run() override {
    std::apply(
        [this](A&... args) {
          static_cast<void>(detail::invoke(std::move(target_), std::move(args)...));
        },
        arguments_);
  }

  [[nodiscard]] shipped_target ship() const override {
    if constexpr (can_be_shipped<F, A...>()) {
      using types = shipped_types_t<F, A...>;
      shipped_target shipped{find_code(reinterpret_cast<std::uintptr_t>(maker_of(types{}))), {}};
      handle_scope sent(handle_delivery::repeated);
      encoder out(shipped.body);
      std::apply(
          [&](const A&... args) {
            static_cast<void>(callable_codec<F>::encode(out, target_));
            out.align(frame_alignment);
            put_arguments(out, types{}, args...);
          },
          arguments_);
      shipped.handles = sent.take();
      return shipped;
    } else {
      throw std::invalid_argument(
          "procpool::Process: start_method::spawn sends the target and its arguments to another "
          "program, but one of these types cannot be encoded: " +
          type_name<bound_target>());
    }
  }

 private:
  template <class... S>
  static target_maker maker_of(type_list<S...>) {
    return &make_shipped_target<F, S...>;
  }

  // Not in one tuple: g++ 12 regards a closure as not trivially copyable once a tuple has checked
  // whether the closure can be assigned.
  F target_;
  std::tuple<A...> arguments_;
};

template <class F, class... S>
std::unique_ptr<process_target> make_shipped_target(std::span<const std::byte> body) {
  decoder in(body);
  F target = callable_codec<F>::decode(in);
  in.align(frame_alignment);
  decoder rest = next_arguments<S...>(in);
  auto arguments = argument_list<S...>::decode(rest);
  rest.finish();
  const auto bind = [&](S&&... each) -> std::unique_ptr<process_target> {
    return std::make_unique<bound_target<F, S...>>(std::move(target), std::move(each)...);
  };
  return arguments.pass_to(bind);
}

template <class F>
concept compares_to_null = requires(const F& f) {
  { f == nullptr } -> std::convertible_to<bool>;
};

template <class F>
concept holds_a_callable = std::constructible_from<F, std::nullptr_t> && compares_to_null<F>;

/// Types whose values may be null: pointers, std::function and the like. A closure that converts
/// to a function pointer is not one of them.
template <class F>
concept nullable_target =
    std::is_pointer_v<F> || std::is_member_pointer_v<F> || holds_a_callable<F>;

/// Throws std::invalid_argument for a null function pointer or an empty function object.
template <class F>
void require_target([[maybe_unused]] const F& target) {
  if constexpr (nullable_target<F>) {
    if (target == nullptr) {
      throw std::invalid_argument("procpool::Process: the target is null, there is nothing to run");
    }
  }
}

// The caller names F and A, which are not references: everything is moved.
template <class F, class... A>
std::unique_ptr<process_target> make_target(F&& target, A&&... args) {
  constexpr bool callable = std::is_invocable_v<F, A...>;
  static_assert(callable,
                "procpool::Process: the target cannot be called with these arguments as rvalues, "
                "as std::thread would (for a parameter T& pass std::ref)");
  if constexpr (callable) {  // one message is enough
    require_target(target);
    return std::make_unique<bound_target<F, A...>>(std::forward<F>(target),
                                                   std::forward<A>(args)...);
  } else {
    return nullptr;
  }
}

}  // namespace procpool::detail
