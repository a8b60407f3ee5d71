// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// The task as code: for every kind of call one function that a worker runs. It decodes the
/// callable and the items of a frame, calls, and writes the outcomes. The same in every backend.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <new>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>

#include <procpool/codec.hpp>
#include <procpool/detail/block_assembly.hpp>
#include <procpool/detail/byte_buffer.hpp>
#include <procpool/detail/callable.hpp>
#include <procpool/detail/exception_registry.hpp>
#include <procpool/detail/worker_channel.hpp>
#include <procpool/detail/worker_limits.hpp>
#include <procpool/error.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// Small plain results are packed without a head for each.
template <class R>
inline constexpr bool is_plain_result_v = is_flat_v<R>&& std::is_default_constructible_v<R> &&
                                          sizeof(R) <= 256;

/// What a worker has besides its channel.
struct worker_equipment {
  WorkerContext context;
  limit_guard limits;
  byte_buffer scratch = {};
};

/// A frame being run: what the task's code sees of its worker.
class frame_context {
 public:
  frame_context(worker_channel& channel, const frame_head& head, worker_equipment& worker)
      : channel_(&channel), head_(head), worker_(&worker) {}

  [[nodiscard]] std::uint32_t first_item() const noexcept { return head_.first_item; }
  [[nodiscard]] std::uint32_t item_count() const noexcept { return head_.item_count; }
  /// How many items ended with an exception.
  [[nodiscard]] std::uint32_t errors() const noexcept { return errors_; }
  [[nodiscard]] frame_bytes bytes() const { return channel_->bytes(head_); }

  void begin_item(std::uint32_t item) {
    worker_->context.begin_item(item == head_.first_item ? head_.attempt : 1);
    // First the time: what the item before left of its own must not run out in this one.
    if (head_.initializer == 0) worker_->limits.begin_item();
    channel_->results().begin_item(item);
  }

  template <class R>
  void put_value(std::uint32_t item, const R& value) {
    if constexpr (is_plain_result_v<R>) {
      channel_->results().put_plain(item, &value, sizeof value);
    } else if (is_large_block(value)) {
      put_block_of(item, value);
    } else {
      scratch().clear();
      encoder out(scratch());
      out.put(value);
      put_scratch(record_kind::value, item);
    }
  }

  /// To be held while errors are put.
  [[nodiscard]] limit_guard::more_memory more_memory() {
    return limit_guard::more_memory(worker_->limits);
  }

  /// The outcome of @p item is the exception being handled.
  void put_error(std::uint32_t item, const std::string& callable) {
    ++errors_;
    scratch().clear();
    encoder out(scratch());
    const pid_t pid = PROCPOOL_SYSTEM(getpid());
    const std::string where = "in " + worker_->context.name() + " (process " + std::to_string(pid) +
                              "), running " + callable + ":\n";
    try {
      throw;
    } catch (const std::bad_alloc&) {
      encode_shortage(out, where);
    } catch (...) {
      encode_current_exception(out, where);
    }
    put_scratch(record_kind::error, item);
  }

  /// The same for all items from @p item on, when they cannot even be looked at.
  void put_errors_from(std::uint32_t item, const std::string& callable) {
    for (; item < head_.item_count; ++item) {
      begin_item(item);
      put_error(item, callable);
    }
  }

 private:
  [[nodiscard]] byte_buffer& scratch() noexcept { return worker_->scratch; }

  template <class R>
  static bool is_large_block(const R& value) noexcept {
    if constexpr (is_block_v<R>) {
      return value.size() >= assembled_from / sizeof(typename R::value_type);
    }
    return false;
  }

  // Straight from the result into the ring.
  template <class R>
  void put_block_of(std::uint32_t item, const R& value) {
    if constexpr (is_block_v<R>) {
      using element = typename R::value_type;
      scratch().clear();
      encoder out(scratch());
      out.count(value.size());
      out.align(block_alignment_v<element>);
      channel_->results().put(record_kind::value, item, scratch().view(),
                              std::as_bytes(std::span(value.data(), value.size())));
    }
  }

  // A std::bad_alloc in a worker that may not have all the memory there is says why.
  void encode_shortage(encoder& out, const std::string& where) {
    const std::uint64_t limit = worker_->limits.limits().memory_bytes;
    if (limit == 0) return encode_current_exception(out, where);
    worker_->limits.note_shortage();
    try {
      throw MemoryLimitError("the task needed more memory than its worker may take (" +
                             std::to_string(limit) + " bytes)");
    } catch (...) {
      encode_current_exception(out, where);
    }
  }

  void put_scratch(record_kind kind, std::uint32_t item) {
    channel_->results().put(kind, item, {scratch().data(), scratch().size()});
    if (scratch().capacity() > keep_bytes) scratch() = byte_buffer();
  }

  static constexpr std::size_t keep_bytes = std::size_t{64} << 20;

  worker_channel* channel_;
  frame_head head_;
  worker_equipment* worker_;
  std::uint32_t errors_ = 0;
};

/// The code of a task, as a frame names it.
using task_entry = void (*)(frame_context&);

/// Calls and writes the value; throws what the call or the encoding of its result throws.
template <class F, class... P>
void run_item(frame_context& frame, std::uint32_t item, F& callable, std::tuple<P...>&& arguments) {
  using result = std::invoke_result_t<F&, P&&...>;
  if constexpr (std::is_void_v<result>) {
    std::apply([&](P&... each) { std::invoke(callable, std::move(each)...); }, arguments);
    frame.put_value(item, std::byte{});
  } else {
    frame.put_value<std::decay_t<result>>(
        item, std::apply([&](P&... each) { return std::invoke(callable, std::move(each)...); },
                         arguments));
  }
}

template <class F, class... P>
void run_items(frame_context& frame, F& callable, decoder& in) {
  std::uint32_t item = 0;
  try {
    for (; item < frame.item_count(); ++item) {
      if (item >= frame.first_item()) frame.begin_item(item);
      std::tuple<P...> arguments{in.template get<P>()...};  // in order, as braces demand
      if (item < frame.first_item()) continue;  // has its outcome from an earlier attempt
      try {
        run_item<F, P...>(frame, item, callable, std::move(arguments));
      } catch (...) {
        const auto room = frame.more_memory();
        frame.put_error(item, callable_name(callable));
      }
    }
  } catch (...) {  // the arguments cannot be decoded: nor can those behind them
    const auto room = frame.more_memory();
    frame.put_errors_from(std::max(item, frame.first_item()), callable_name(callable));
  }
}

/// Runs a frame of calls of an F with parameters that travel as P.
template <class F, class... P>
void run_frame(frame_context& frame) {
  try {
    const frame_bytes bytes = frame.bytes();
    decoder body(bytes.body);
    decoder shared(bytes.callable);
    F callable = callable_codec<F>::decode(bytes.callable.empty() ? body : shared);
    if (bytes.callable.empty()) body.align(frame_alignment);
    run_items<F, P...>(frame, callable, body);
  } catch (...) {  // not even the callable can be had
    const auto room = frame.more_memory();
    frame.put_errors_from(frame.first_item(), type_name<F>());
  }
}

/// Runs one frame; how many of its items ended with an exception.
inline std::uint32_t run_claimed(worker_channel& channel, const frame_head& head,
                                 worker_equipment& worker) {
  frame_context frame(channel, head, worker);
  const code_ref code{head.entry_offset, head.entry_module};
  reinterpret_cast<task_entry>(module_table::instance().address(code))(frame);
  worker.limits.end_frame();
  channel.done(head);
  return frame.errors();
}

/// The worker's life: runs frames until it is told to leave, or has grown too large: frames that it
/// has not claimed are done by others. @returns its exit code.
inline int run_worker(worker_channel& channel, worker_equipment& worker) {
  running_worker = &worker.context;
  while (true) {
    const frame_head head = channel.next();
    if (head.kind == frame_kind::retire) return 0;
    const std::uint32_t errors = run_claimed(channel, head, worker);
    const bool unfit = head.initializer != 0 && errors != 0;
    if (!unfit && !worker.limits.too_large()) continue;
    channel.flush();
    return unfit ? 1 : 0;
  }
}

template <class F, class Types>
struct entry_of;
template <class F, class... P>
struct entry_of<F, type_list<P...>> {
  static constexpr task_entry value = &run_frame<F, P...>;
};

/// The name of the code that runs calls of an F with arguments that travel as Types.
template <class F, class Types>
code_ref entry_point() {
  static const code_ref code =
      module_table::instance().find(reinterpret_cast<std::uintptr_t>(entry_of<F, Types>::value));
  return code;
}

/// Calls an F and drops what it returns.
template <class F>
struct discarding {
  F callable;

  template <class... P>
  void operator()(P&&... arguments) {
    static_cast<void>(std::invoke(callable, std::forward<P>(arguments)...));
  }
};
template <class F>
struct callable_codec<discarding<F>> {
  static discarding<F> decode(decoder& in) { return {callable_codec<F>::decode(in)}; }
};
template <class F>
std::string callable_name(const discarding<F>& callable) {
  return callable_name(callable.callable);
}

/// Encodes one argument as the type S in which it travels.
template <class S, class A>
void put_as(encoder& out, A&& argument) {
  if constexpr (std::is_same_v<std::remove_cvref_t<A>, S>) {
    out.put<S>(argument);
  } else {
    const S converted = std::forward<A>(argument);
    out.put<S>(converted);
  }
}

/// Encodes the arguments of one call.
template <class... S, class... A>
void put_arguments(encoder& out, type_list<S...>, A&&... arguments) {
  (put_as<S>(out, std::forward<A>(arguments)), ...);
}

}  // namespace procpool::detail
