// SPDX-License-Identifier: MIT
// Level 5: processes.
/// @file
/// What a process runs: a callable with its arguments, of any copyable or movable types. Fork
/// carries them into the child as they are; nothing is encoded.
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

namespace procpool::detail {

struct process_target {
  process_target() = default;
  process_target(const process_target&) = delete;
  process_target& operator=(const process_target&) = delete;
  virtual ~process_target() = default;
  virtual void run() = 0;
};

/// Like std::thread: called once, as an rvalue, with its arguments as rvalues.
template <class F, class... A>
class bound_target final : public process_target {
 public:
  explicit bound_target(F target, A... args) : parts_(std::move(target), std::move(args)...) {}

  void run() override {
    std::apply(
        [](F& target, A&... args) {
          static_cast<void>(std::invoke(std::move(target), std::move(args)...));
        },
        parts_);
  }

 private:
  std::tuple<F, A...> parts_;
};

template <class F>
concept compares_to_null = requires(const F& f) {
  { f == nullptr } -> std::convertible_to<bool>;
};

template <class F>
concept holds_a_callable = std::constructible_from<F, std::nullptr_t> && compares_to_null<F>;

/// Types whose values may hold no callable at all: pointers, std::function and their like. A
/// closure that converts to a function pointer is none of them.
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

template <class F, class... A>
std::unique_ptr<process_target> make_target(F target, A... args) {
  constexpr bool callable = std::is_invocable_v<F, A...>;
  static_assert(callable,
                "procpool::Process: the target cannot be called with these arguments as rvalues, "
                "as std::thread would (for a parameter T& pass std::ref)");
  if constexpr (callable) {  // one message is enough
    require_target(target);
    return std::make_unique<bound_target<F, A...>>(std::move(target), std::move(args)...);
  } else {
    return nullptr;
  }
}

}  // namespace procpool::detail
