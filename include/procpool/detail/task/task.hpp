// SPDX-License-Identifier: MIT
/// @file
/// The code of tasks: one function for each kind of call, which a worker runs. It decodes the
/// callable and the items of a frame, calls, and writes the outcomes. The same in every backend.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/forced_unwind.hpp>
#include <procpool/detail/base/try_catch.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/codec/incremental_decode.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/result_window.hpp>
#include <procpool/detail/task/arguments.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/invoke.hpp>

namespace procpool::detail {

/// Small plain results are packed without a head for each.
template <class R>
inline constexpr bool is_plain_result_v = is_flat_v<R>&& std::is_default_constructible_v<R> &&
                                          sizeof(R) <= 256;

/// The bytes of one frame, where the worker reads them: the callable, and the items' arguments.
struct frame_bytes {
  std::span<const std::byte> callable;  ///< empty when the callable begins the body
  std::span<const std::byte> body;
};

/// A frame that is running, as the task's code sees it: its bytes, and the destination of its
/// outcomes. It runs in a worker (worker_loop.hpp) or in the caller (inline_frame.hpp).
class frame_context {
 public:
  frame_context(const frame_context&) = delete;
  frame_context& operator=(const frame_context&) = delete;

  [[nodiscard]] std::uint32_t first_item() const noexcept { return head_.first_item; }
  [[nodiscard]] std::uint32_t item_count() const noexcept { return head_.item_count; }
  /// How many items ended with an exception.
  [[nodiscard]] std::uint32_t errors() const noexcept { return errors_; }

  [[nodiscard]] virtual frame_bytes bytes() = 0;
  /// Item @p item starts now. Optional for the first item, which starts with its frame.
  virtual void begin_item(std::uint32_t item) = 0;
  /// The same for a part of the one item of a reduction.
  virtual void begin_part(std::uint32_t part) = 0;
  /// Room for results of @p size bytes from @p item on; none if each item needs begin_item().
  [[nodiscard]] virtual result_window open_window(std::uint32_t item, std::size_t size) = 0;
  /// @p items results were written to the window.
  virtual void close_window(std::uint32_t items, std::size_t size) = 0;

  template <class R>
  void put_value(std::uint32_t item, const R& value) {
    if constexpr (is_plain_result_v<R>) {
      put_plain(item, &value, sizeof value);
    } else if (is_large_block(value)) {
      put_block_of(item, value);
    } else {
      put_encoded(item, value);
    }
  }

  /// Writes the exception being handled as the outcome of @p item.
  void put_error(std::uint32_t item, const callable_label& callable) {
    pass_on_thread_exit();
    ++errors_;
    put_exception(item, callable);
  }
  /// The same for all items from @p item on, if the frame cannot be decoded.
  void put_errors_from(std::uint32_t item, const callable_label& callable) {
    pass_on_thread_exit();
    for (; item < head_.item_count; ++item) {
      begin_item(item);
      put_error(item, callable);
    }
  }

 protected:
  frame_context(const frame_head& head, byte_buffer& scratch) : head_(head), scratch_(&scratch) {}
  ~frame_context() = default;

  [[nodiscard]] byte_buffer& empty_scratch() noexcept {
    scratch_->clear();
    return *scratch_;
  }

  virtual void put_plain(std::uint32_t item, const void* value, std::size_t size) = 0;
  /// Writes the scratch buffer, then @p rest.
  virtual void put_scratch(record_kind kind, std::uint32_t item,
                           std::span<const std::byte> rest) = 0;
  /// Writes the exception being handled, thrown while @p callable ran.
  virtual void put_exception(std::uint32_t item, const callable_label& callable) = 0;

  const frame_head head_;

 private:
  template <class R>
  static bool is_large_block(const R& value) noexcept {
    if constexpr (is_block_v<R>) {
      return value.size() >= assembled_from / sizeof(typename R::value_type);
    }
    return false;
  }

  // Handles among the results are in transit until the parent has decoded them.
  template <class R>
  void put_encoded(std::uint32_t item, const R& value) {
    encoder out(empty_scratch());
    if constexpr (may_carry_handles_v<R>) {
      handle_scope sent(handle_delivery::once);
      out.put(value);
      sent.commit();
    } else {
      out.put(value);
    }
    put_scratch(record_kind::value, item, {});
  }

  // Copies the elements once, from the result to the destination.
  template <class R>
  void put_block_of(std::uint32_t item, const R& value) {
    if constexpr (is_block_v<R>) {
      using element = typename R::value_type;
      encoder out(empty_scratch());
      out.count(value.size());
      out.align(block_alignment_v<element>);
      put_scratch(record_kind::value, item, std::as_bytes(std::span(value.data(), value.size())));
    }
  }

  byte_buffer* scratch_;
  std::uint32_t errors_ = 0;
};

/// The code of a task, as a frame names it.
using task_entry = void (*)(frame_context&);

/// Whether arguments and result of a call have fixed sizes, and nothing throws after it returned.
template <class F, class... P>
constexpr bool plain_calls() {
  using result = std::decay_t<std::invoke_result_t<F&, P&&...>>;
  if constexpr (!all_flat_v<P...> || sizeof...(P) == 0 || !std::is_nothrow_destructible_v<F>) {
    return false;
  } else if constexpr (std::is_void_v<result>) {
    return true;
  } else {
    return is_plain_result_v<result>;
  }
}

/// Bytes of the result of such a call.
template <class F, class... P>
constexpr std::size_t plain_result_size() {
  using result = std::decay_t<std::invoke_result_t<F&, P&&...>>;
  if constexpr (std::is_void_v<result>) return sizeof(std::byte);
  if constexpr (!std::is_void_v<result>) return sizeof(result);
}

/// Runs one item with the arguments at @p from.
template <class... P, class Callable>
void run_packed_item(frame_context& frame, std::uint32_t item, Callable& callable,
                     const std::byte* from) {
  bool has_outcome = false;
  try {
    try {
      auto&& called = callable.template get<P...>();
      packed_arguments<P...>::call(called, from, [&](const auto& value) {
        frame.put_value(item, value);
        has_outcome = true;
      });
    } catch (...) {
      if (!has_outcome) frame.put_error(item, callable.label());
      has_outcome = true;
    }
  } catch (...) {
    end_handler(has_outcome);
  }
}

/// Runs the items of the window up to the first that throws; @p done counts those with a result.
template <class... P, class Callable>
void run_window(const result_window& window, Callable& callable, const std::byte* from,
                std::uint32_t& done) {
  for (; done < window.items; ++done) {
    window.begin(done);
    auto&& called = callable.template get<P...>();
    packed_arguments<P...>::call(
        called, from + done * packed_arguments<P...>::size, [&](const auto& value) {
          std::memcpy(window.at + done * sizeof value, &value, sizeof value);
          window.complete(done + 1, sizeof value);
        });
  }
}

/// Runs the items from @p item on whose results fit into windows.
template <std::size_t result_size, class... P, class Callable>
void run_plain_items(frame_context& frame, Callable& callable, const std::byte* from,
                     std::uint32_t& item) {
  while (item < frame.item_count()) {
    const std::byte* at = from + item * packed_arguments<P...>::size;
    result_window window = frame.open_window(item, result_size);
    if (window.items == 0) {
      frame.begin_item(item);
      run_packed_item<P...>(frame, item, callable, at);
      ++item;
      continue;
    }
    std::uint32_t done = 0;
    bool has_outcome = false;
    try {
      try {
        run_window<P...>(window, callable, at, done);
        frame.close_window(done, result_size);
        item += done;
      } catch (...) {
        frame.close_window(done, result_size);
        item += done;
        frame.put_error(item, callable.label());
        ++item;
        has_outcome = true;
      }
    } catch (...) {
      end_handler(has_outcome);
    }
  }
}

/// Runs the items from @p item on whose arguments lie one after the other.
template <class F, class... P, class Callable>
[[gnu::always_inline]] inline void run_packed_items(frame_context& frame, Callable& callable,
                                                    decoder& in, std::uint32_t& item) {
  const std::byte* from = in.bytes(frame.item_count() * packed_arguments<P...>::size).data();
  if constexpr (plain_calls<F, P...>()) {
    run_plain_items<plain_result_size<F, P...>(), P...>(frame, callable, from, item);
  } else {
    for (; item < frame.item_count(); ++item) {
      if (item > frame.first_item()) frame.begin_item(item);
      run_packed_item<P...>(frame, item, callable, from + item * packed_arguments<P...>::size);
    }
  }
}

/// Runs one item, whose arguments are all of @p in. Exceptions of destructors that run after the
/// outcome is written are dropped.
template <class... P, class Callable>
void run_decoded_item(frame_context& frame, std::uint32_t item, Callable& callable, decoder& in) {
  bool has_outcome = false;
  const auto run = [&] {
    auto arguments = argument_list<P...>::decode(in);
    in.finish();
    auto&& called = callable.template get<P...>();
    using result = std::invoke_result_t<decltype(called), P&&...>;
    if constexpr (std::is_void_v<result>) {
      arguments.pass_to(called);
      frame.put_value(item, std::byte{});
      has_outcome = true;
    } else {  // a reference is encoded without a copy; put before the result is destroyed
      const auto put = [&](const std::decay_t<result>& value) {
        frame.put_value(item, value);
        has_outcome = true;
      };
      put(arguments.pass_to(called));
    }
  };
  try_catch(run, [&] {
    if (!has_outcome) frame.put_error(item, callable.label());
  });
}

/// The same for all items of a frame that have no outcome from an earlier attempt.
template <class... P, class Callable>
void run_decoded_items(frame_context& frame, Callable& callable, decoder& in, std::uint32_t& item) {
  for (std::uint32_t passed = 0; passed < item; ++passed) static_cast<void>(in.part());
  for (; item < frame.item_count(); ++item) {
    if (item > frame.first_item()) frame.begin_item(item);
    decoder arguments = in.part();
    run_decoded_item<P...>(frame, item, callable, arguments);
  }
}

/// Runs the items from @p item on of a frame that calls an F with arguments sent as P.
template <class F, class... P>
[[gnu::always_inline]] inline void run_items(frame_context& frame, std::uint32_t& item) {
  const frame_bytes bytes = frame.bytes();
  decoder body(bytes.body);
  decoder shared(bytes.callable);
  const bool is_shared = !bytes.callable.empty();
  frame_callable<F, is_shareable_v<F, P...>> callable(is_shared ? shared : body);
  if (!is_shared) body.align(frame_alignment);
  if constexpr (all_flat_v<P...>) {
    run_packed_items<F, P...>(frame, callable, body, item);
  } else {
    run_decoded_items<P...>(frame, callable, body, item);
  }
}

/// The task_entry of such a frame.
template <class F, class... P>
void run_frame(frame_context& frame) {
  std::uint32_t item = frame.first_item();
  bool handled = false;
  try {
    try {
      run_items<F, P...>(frame, item);
    } catch (...) {  // the callable cannot be decoded, or an exception cannot be written
      frame.put_errors_from(item, label_of_type<F>());
      handled = true;
    }
  } catch (...) {
    end_handler(handled);
  }
}

template <class F, class Types>
struct entry_of;
template <class F, class... P>
struct entry_of<F, type_list<P...>> {
  static constexpr task_entry value = &run_frame<F, P...>;
};

/// The name of the code at @p address, looked up once and kept in @p known, which is 0 before that.
/// Not a static object with a guard: a guard that another thread holds while this process forks
/// would stay locked in the child.
inline code_ref find_code_once(std::atomic<std::uint64_t>& known, std::uintptr_t address) {
  // Module and offset in one word. 0 means unknown, as no code is at module 0, offset 0.
  constexpr int offset_bits = 48;                              // in an address
  std::uint64_t word = known.load(std::memory_order_relaxed);  // no other data
  if (word == 0) [[unlikely]] {
    const code_ref code = find_code(address);
    if (code.module >> (64 - offset_bits) != 0) return code;
    word = std::uint64_t{code.module} << offset_bits | code.offset;
    known.store(word, std::memory_order_relaxed);  // every thread stores the same
  }
  constexpr std::uint64_t offsets = (std::uint64_t{1} << offset_bits) - 1;
  return {word & offsets, static_cast<std::uint32_t>(word >> offset_bits)};
}

/// The name of the code that runs calls of an F with arguments sent as Types.
template <class F, class Types>
code_ref entry_point() {
  static constinit std::atomic<std::uint64_t> known{0};
  return find_code_once(known, reinterpret_cast<std::uintptr_t>(entry_of<F, Types>::value));
}

/// Calls an F and discards its result.
template <class F>
struct discarding {
  F callable;

  template <class... P>
    requires(!std::is_invocable_v<const F&, P...>)
  void operator()(P&&... arguments) {
    static_cast<void>(detail::invoke(callable, std::forward<P>(arguments)...));
  }
  template <class... P>
    requires(std::is_invocable_v<const F&, P...>)
  void operator()(P&&... arguments) const {
    static_cast<void>(detail::invoke(callable, std::forward<P>(arguments)...));
  }
};
template <class F>
struct callable_codec<discarding<F>> {
  static discarding<F> decode(decoder& in) { return {callable_codec<F>::decode(in)}; }
};
template <class F>
callable_label label_of(const discarding<F>& callable) {
  return label_of(callable.callable);
}

}  // namespace procpool::detail
