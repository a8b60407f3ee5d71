// SPDX-License-Identifier: MIT
/// @file
/// The shared objects whose handles are in a task's frame: kept until the task has ended, however
/// often it was tried. Submitting threads use it.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task_body.hpp>

namespace procpool::detail {

/// What a frame keeps: shared objects, and what it keeps besides.
struct handle_keeper final : frame_keeper {
  std::shared_ptr<void> handles;
  intrusive_ptr<const frame_keeper> other;

  handle_keeper(std::shared_ptr<void> kept, intrusive_ptr<const frame_keeper> also) noexcept
      : handles(std::move(kept)), other(std::move(also)) {}
};

/// Adds shared objects to what a frame keeps.
inline void keep_with(intrusive_ptr<const frame_keeper>& keeper, std::shared_ptr<void> handles) {
  if (handles == nullptr) return;
  keeper =
      intrusive_ptr<const frame_keeper>(new handle_keeper(std::move(handles), std::move(keeper)));
}

/// Only callables that are sent by their codec contain handles. No other question is asked about a
/// closure: g++ 12 regards it as not trivially copyable once it was checked in other ways.
template <class F>
consteval bool callable_may_carry_handles() {
  if constexpr (requires { callable_codec<F>::by_codec; }) {
    return !callable_codec<F>::by_bytes && !callable_codec<F>::is_code;
  } else {
    return true;
  }
}

/// The same, for a type that may be void: no callable. Not a member of kept_handles, whose
/// functions are not defined yet where clang 14 needs this.
template <class F>
inline constexpr bool callable_may_carry_handles_v = callable_may_carry_handles<F>();
template <>
inline constexpr bool callable_may_carry_handles_v<void> = false;

/// Collects the handles that are encoded on this thread while it exists. Costs nothing if neither
/// the callable nor the arguments may contain one. @tparam F void: no callable
template <class F, class... T>
class kept_handles {
 public:
  void keep_with(intrusive_ptr<const frame_keeper>& keeper) {
    if constexpr (possible) detail::keep_with(keeper, scope_.take());
  }
  [[nodiscard]] std::shared_ptr<void> take() noexcept {
    if constexpr (possible) return scope_.take();
    return nullptr;
  }

 private:
  static constexpr bool possible =
      (callable_may_carry_handles_v<F> || ... || may_carry_handles_v<T>);
  struct nothing {};
  struct repeated_scope : handle_scope {
    repeated_scope() : handle_scope(handle_delivery::repeated) {}
  };
  [[no_unique_address]] std::conditional_t<possible, repeated_scope, nothing> scope_;
};

template <class F, class Types>
struct kept_handles_of;
template <class F, class... T>
struct kept_handles_of<F, type_list<T...>> {
  using type = kept_handles<F, T...>;
};
/// For the callable F and arguments sent as Types.
template <class F, class Types>
using kept_handles_of_t = typename kept_handles_of<F, Types>::type;

}  // namespace procpool::detail
