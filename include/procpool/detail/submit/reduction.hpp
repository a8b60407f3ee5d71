// SPDX-License-Identifier: MIT
/// @file
/// The implementation of map_reduce. The items of a chunk have one common outcome: their results,
/// reduced in the worker. For the pool a chunk is one item with several parts (task_body::parts);
/// the worker reports which part it runs, as it does for items.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/value_slot.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/calls.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/submit/submission.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/invoke.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/options.hpp>

namespace procpool::detail {

// ---- in the worker -----------------------------------------------------------------------------

/// The two callables of a map_reduce, encoded together.
template <class F, class Reduce>
struct map_and_reduce {
  F map;
  Reduce reduce;
};
template <class F, class Reduce>
struct callable_codec<map_and_reduce<F, Reduce>> {
  /// @returns the code that workers are less likely to have
  static code_ref encode(encoder& out, const map_and_reduce<F, Reduce>& callables) {
    const code_ref map = callable_codec<F>::encode(out, callables.map);
    const code_ref reduce = callable_codec<Reduce>::encode(out, callables.reduce);
    return map.module > reduce.module ? map : reduce;
  }
  static map_and_reduce<F, Reduce> decode(decoder& in) {
    F map = callable_codec<F>::decode(in);
    return {std::move(map), callable_codec<Reduce>::decode(in)};
  }
};

/// Whether the items of a chunk can share both callables, see frame_callable.
template <class F, class Reduce, class Value, class... P>
inline constexpr bool reduces_shareably_v =
    is_shareable_v<F, P...>&& is_shareable_v<Reduce, Value, Value>;

/// Values reduced from the left. Allocate it on the heap: values may be large.
template <class Value>
class running_sum {
 public:
  explicit operator bool() const noexcept { return static_cast<bool>(sums_[current_]); }
  [[nodiscard]] Value& operator*() noexcept { return *sums_[current_]; }

  /// Sets the first value to that of @p source().
  template <class Source>
  void begin(Source source) {
    sums_[current_].make(source);
  }
  /// Adds the value of @p source().
  template <class Reduce, class Source>
  void take(Reduce& reduce, Source source) {
    if (!*this) return begin(source);
    Value& value = next_.make(source);
    called_t<Reduce, Value, Value>& called = reduce;
    sums_[1 - current_].make([&]() -> Value {
      return detail::invoke(called, std::move(*sums_[current_]), std::move(value));
    });
    sums_[current_].reset();
    current_ = 1 - current_;
  }

 private:
  value_slot<Value> sums_[2];
  value_slot<Value> next_;
  std::size_t current_ = 0;
};

/// The value of map for the arguments in @p in.
template <class Value, class... P, class F>
Value map_item(F& map, decoder in) {
  auto arguments = argument_list<P...>::decode(in);
  in.finish();
  called_t<F, P...>& called = map;
  return arguments.pass_to(called);
}

/// Calls map for all items in @p in, which starts with their number, and reduces the results.
template <class Value, class... P, class Callable>
void reduce_items(frame_context& frame, Callable& callable, decoder& in, running_sum<Value>& sum) {
  const auto items = in.template get<std::uint32_t>();
  for (std::uint32_t item = 0; item < items; ++item) {
    frame.begin_part(item);
    auto&& callables = callable.template get<P...>();
    sum.take(callables.reduce,
             [&] { return map_item<Value, P...>(callables.map, next_arguments<P...>(in)); });
  }
}

/// Runs a frame that is a chunk of a map_reduce.
template <class F, class Reduce, class... P>
void run_reduction(frame_context& frame) {
  using value = std::decay_t<std::invoke_result_t<F&, P&&...>>;
  bool delivered = false;
  const auto run = [&] {
    const frame_bytes bytes = frame.bytes();
    decoder body(bytes.body);
    decoder shared(bytes.callable);
    const bool shared_callable = !bytes.callable.empty();
    frame_callable<map_and_reduce<F, Reduce>, reduces_shareably_v<F, Reduce, value, P...>> callable(
        shared_callable ? shared : body);
    if (!shared_callable) body.align(frame_alignment);
    const auto sum = std::make_unique<running_sum<value>>();
    reduce_items<value, P...>(frame, callable, body, *sum);
    frame.put_value<value>(0, **sum);
    delivered = true;
  };
  // The first failure ends the chunk, because nothing is left to reduce. Exceptions of destructors
  // after the outcome are dropped.
  try_catch(run, [&] {
    if (!delivered) frame.put_error(0, label_of_type<F>());
  });
}

template <class F, class Reduce, class Types>
struct reduction_entry;
template <class F, class Reduce, class... P>
struct reduction_entry<F, Reduce, type_list<P...>> {
  static code_ref code() {
    static constinit std::atomic<std::uint64_t> known{0};
    return find_code_once(known, reinterpret_cast<std::uintptr_t>(&run_reduction<F, Reduce, P...>));
  }
};

// ---- in the program ----------------------------------------------------------------------------

/// The results of the chunks. The pool indexes a chunk by its first item, so that failures name
/// items.
template <class Value>
class reduction_job final : public typed_job<std::vector<value_slot<Value>>> {
 public:
  using base = typed_job<std::vector<value_slot<Value>>>;

  reduction_job(intrusive_ptr<driver> pool, std::size_t items, std::size_t chunksize)
      : reduction_job(std::move(pool), (items + chunksize - 1) / chunksize, chunksize, nullptr) {}

  void value(std::size_t index, std::span<const std::byte> encoded) override {
    decoder in(encoded);
    at(index).make([&] { return in.template get<Value>(); });
    in.finish();
  }
  void plain(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) override {
    if constexpr (is_plain_result_v<Value>) {
      if (!at(index)) at(index).emplace();
      std::memcpy(reinterpret_cast<std::byte*>(&*at(index)) + offset, bytes.data(), bytes.size());
    }
  }
  void piece(std::size_t index, std::uint64_t offset, std::uint64_t total,
             std::span<const std::byte> bytes) override {
    assemble_result(at(index), offset, total, bytes);
  }
  [[nodiscard]] bool cancellable_while_running() const noexcept override { return true; }
  [[nodiscard]] std::vector<value_slot<Value>>& result() override { return sums_; }

 private:
  reduction_job(intrusive_ptr<driver> pool, std::size_t chunks, std::size_t chunksize,
                std::nullptr_t)
      : base(std::move(pool), chunks,
             {.plain_size = plain_size_of<Value>, .pieces = delivery_of<Value>()}, nullptr),
        chunksize_(chunksize),
        sums_(chunks) {}

  [[nodiscard]] value_slot<Value>& at(std::size_t index) { return sums_[index / chunksize_]; }

  std::size_t chunksize_;
  std::vector<value_slot<Value>> sums_;
};

/// Encodes and submits the next @p items items as one chunk.
template <class F, class Reduce, class Types, class Iterator, class End>
void submit_reduction(pool_interface& pool, const intrusive_ptr<job>& owner,
                      const shipped_callable& callable, std::size_t first_index, std::size_t items,
                      Iterator& at, const End& end) {
  scratch_buffer scratch;
  kept_handles_of_t<void, Types> handles;
  encoder out(scratch.get());
  callable.begin(out);
  out.put(static_cast<std::uint32_t>(items));
  for (std::size_t i = 0; i < items; ++i, ++at) {
    if (at == end) throw std::logic_error("the input of a map ended before its size()");
    put_arguments(out, Types{}, *at);
  }
  submit_encoded(pool, owner, callable,
                 frame_for(pool, reduction_entry<F, Reduce, Types>::code(), 1), first_index,
                 scratch.get(), handles.take(), static_cast<std::uint32_t>(items));
}

/// The results of all chunks of a range of @p size items, in order.
template <class Value, class Types, class F, class Reduce, class Range>
std::vector<value_slot<Value>> reduce_chunks(const intrusive_ptr<pool_interface>& pool,
                                             const map_and_reduce<F, Reduce>& callables,
                                             Range& range, std::size_t size, std::size_t chunksize,
                                             const job_rules& rules, const stop_token& stop) {
  intrusive_ptr<reduction_job<Value>> job(new reduction_job<Value>(pool, size, chunksize), false);
  job->set_rules(rules);
  try {
    const shipped_callable callable(pool, callables, pool->take_numbers(size));
    auto at = std::ranges::begin(range);
    for (std::size_t done = 0; done < size; done += chunksize) {
      submit_reduction<F, Reduce, Types>(*pool, job, callable, done,
                                         chunksize < size - done ? chunksize : size - done, at,
                                         std::ranges::end(range));
    }
  } catch (...) {
    pool->fail_submission(*job, std::current_exception());
    throw;
  }
  return finish(*job, stop);
}

/// Maps and reduces a range whose size is known.
template <class Value, class Types, class F, class Reduce, class Range>
Value reduce_range(const intrusive_ptr<pool_interface>& pool,
                   const map_and_reduce<F, Reduce>& callables, Range& range, std::size_t size,
                   running_sum<Value>& sum, const map_options& options) {
  const auto chunksize = checked_size(options.chunksize, "chunksize");
  const auto rules = rules_of(options.timeout, options.retries, callables.map);
  pool->check_timeout(rules.timeout);
  reject_null(callables.map);
  reject_null(callables.reduce);
  pool->check_open();
  if (size == 0 && !sum) {
    throw std::invalid_argument("map_reduce of no items without an initial value");
  }
  if (size != 0) {
    auto chunks = reduce_chunks<Value, Types>(
        pool, callables, range, size, chunksize.value_or(default_chunksize(size, pool->workers())),
        rules, options.stop);
    for (auto& each : chunks) {
      Reduce reduce = callables.reduce;  // a fresh copy, as in the workers
      sum.take(reduce, [&]() -> Value&& { return std::move(*each); });
    }
  }
  return std::move(*sum);
}

/// The initial sum; empty without an initial value.
template <class Value, class Initial>
std::unique_ptr<running_sum<Value>> begin_sum(Initial&& initial) {
  auto sum = std::make_unique<running_sum<Value>>();
  if constexpr (!std::is_same_v<std::decay_t<Initial>, std::nullopt_t>) {
    std::optional<Value> first(std::forward<Initial>(initial));
    if (first) sum->begin([&]() -> Value&& { return std::move(*first); });
  }
  return sum;
}

/// Checks that Reduce reduces values of this type; explains at compile time if not.
template <class Value, class Reduce>
consteval bool check_reduce() {
  static_assert(!std::is_void_v<Value>,
                "procpool: the function of a map_reduce returns nothing, so there is nothing to "
                "reduce");
  if constexpr (!std::is_void_v<Value> && callable_codec<Reduce>::check()) {
    constexpr bool reduces = std::is_invocable_r_v<Value, Reduce&, Value&&, Value&&>;
    static_assert(reduces,
                  "procpool: map_reduce reduces values of the type that its function returns: "
                  "reduce(a, b) must take two of them and return one; let the function return "
                  "what is accumulated, for a single item");
    return reduces;
  }
  return false;
}

/// @param initial std::nullopt, or the initial value
template <class F, class Range, class Reduce, class Initial>
auto map_reduce(const intrusive_ptr<pool_interface>& pool, const F& function, Range& items,
                const Reduce& reduce, Initial&& initial, const map_options& options) {
  using arguments = item_arguments<F, std::ranges::range_reference_t<Range&>, as_argument>;
  using types = listed_shipped_t<F, arguments>;
  using value = listed_result_t<F, arguments>;
  if constexpr (check_reduce<value, Reduce>()) {
    constexpr bool begins = std::is_constructible_v<std::optional<value>, Initial>;
    static_assert(begins,
                  "procpool: the initial value of a map_reduce does not convert to the type that "
                  "its function returns");
    const map_and_reduce<F, Reduce> callables{function, reduce};
    const auto sum = begin_sum<value>(std::forward<Initial>(initial));
    if constexpr (std::ranges::sized_range<Range&> || std::ranges::forward_range<Range&>) {
      const std::size_t size = *known_size(items);
      return reduce_range<value, types>(pool, callables, items, size, *sum, options);
    } else {
      std::vector<std::ranges::range_value_t<Range&>> read;
      for (auto&& item : items) read.emplace_back(std::forward<decltype(item)>(item));
      auto moving =
          std::ranges::subrange(std::move_iterator(read.begin()), std::move_sentinel(read.end()));
      return reduce_range<value, types>(pool, callables, moving, read.size(), *sum, options);
    }
  }
}

}  // namespace procpool::detail
