// SPDX-License-Identifier: MIT
/// @file
/// Turns calls into frames: encodes callables and items, and cuts maps into chunks. User code
/// (encoders, input ranges) runs here, on the submitting thread and without any lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/kept_handles.hpp>
#include <procpool/detail/submit/payload_placement.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task.hpp>

namespace procpool::detail {

inline frame_head frame_for(const pool_interface& pool, code_ref entry, std::size_t items) {
  pool.check_code(entry);
  frame_head head{};
  head.entry_offset = entry.offset;
  head.entry_module = entry.module;
  head.item_count = static_cast<std::uint32_t>(items);
  head.first_number = unnumbered;
  return head;
}

inline constexpr std::size_t unknown_size = std::numeric_limits<std::size_t>::max();

/// The size of an encoded call in bytes, if its types determine it; unknown_size if they do not, or
/// if it is large.
template <class F, class... S>
constexpr std::size_t known_call_size(type_list<S...>) {
  constexpr std::size_t max_size = 512;
  constexpr bool known = (is_function_pointer_v<F> || (std::is_empty_v<F> && !encodable<F>)) &&
                         (true && ... && is_flat_v<S>);
  if constexpr (!known) {
    return unknown_size;
  } else {
    constexpr std::size_t callable = is_function_pointer_v<F> ? frame_alignment : 0;
    constexpr std::size_t size = (callable + ... + sizeof(S));
    return size <= max_size ? size : unknown_size;
  }
}

/// Submits a frame of one item with an in-line body, which is copied.
inline void submit_small(pool_interface& pool, intrusive_ptr<job> owner, frame_head& head,
                         std::span<const std::byte> body,
                         intrusive_ptr<const frame_keeper> keeper = {}) {
  head.kind = frame_kind::run;
  head.body_size = body.size();
  task_body payload;
  payload.callable = std::move(keeper);
  payload.bytes = body;
  pool.submit(std::move(owner), head, 0, std::move(payload));
}

/// Submits one call; item 0 of @p owner gets its outcome.
template <class F, class... A>
void submit_call(pool_interface& pool, intrusive_ptr<job> owner, const F& function,
                 const A&... arguments) {
  using types = shipped_types_t<F, A...>;
  reject_null(function);
  const auto fill = [&](encoder& out) {
    pool.check_code(callable_codec<F>::encode(out, function));
    out.align(frame_alignment);
    put_arguments(out, types{}, arguments...);
  };
  frame_head head = frame_for(pool, entry_point<F, types>(), 1);
  constexpr std::size_t known = known_call_size<F>(types{});
  if constexpr (known != unknown_size) {
    alignas(frame_alignment) std::byte bytes[known + 1];  // no array has 0 elements
    encoder out(std::span<std::byte>(bytes, known));
    fill(out);
    return submit_small(pool, std::move(owner), head, {bytes, out.size()});
  }
  kept_handles_of_t<F, types> handles;
  encoder counting = encoder::counting();
  fill(counting);
  const std::size_t size = counting.size();
  if (size > pool.in_line_limit()) {
    task_body body = fill_large(pool, size, fill);
    handles.keep_with(body.callable);
    return submit_body(pool, std::move(owner), head, 0, std::move(body));
  }
  scratch_buffer scratch;
  encoder out(scratch.get());
  fill(out);
  if (scratch.get().size() > pool.in_line_limit()) {  // an encoder wrote more than when counted
    task_body body = place_large(pool, scratch.get());
    handles.keep_with(body.callable);
    return submit_body(pool, std::move(owner), head, 0, std::move(body));
  }
  intrusive_ptr<const frame_keeper> keeper;
  handles.keep_with(keeper);
  submit_small(pool, std::move(owner), head, scratch.get().view(), std::move(keeper));
}

/// A callable of a map. A small one is part of each body. A large one is put into the arena once,
/// where it stays until no frame needs it.
class shipped_callable {
 public:
  /// @param first_number the number of the first item, if reserved
  template <class F>
  shipped_callable(intrusive_ptr<pool_interface> pool, const F& function,
                   std::uint64_t first_number = unnumbered)
      : pool_(std::move(pool)), first_number_(first_number) {
    reject_null(function);
    kept_handles<F> handles;
    encoder out(bytes_);
    pool_->check_code(callable_codec<F>::encode(out, function));
    out.align(frame_alignment);
    if (bytes_.size() > min_shared_bytes) share();
    keeper_ = block_;
    handles.keep_with(keeper_);
  }

  /// Starts a body with the callable, unless it is shared.
  void begin(encoder& out) const {
    if (block_ == nullptr) out.bytes(bytes_.data(), bytes_.size());
  }
  /// Bytes that begin() writes.
  [[nodiscard]] std::size_t size() const noexcept { return block_ == nullptr ? bytes_.size() : 0; }
  /// Sets what all frames of the map share: the shared callable, and the numbers of the items from
  /// @p first_index on.
  void complete(frame_head& head, task_body& body, std::size_t first_index) const {
    if (first_number_ != unnumbered) head.first_number = first_number_ + first_index;
    if (keeper_ != nullptr) body.callable = keeper_;
    if (block_ == nullptr) return;
    head.callable_at = block_->offset;
    head.callable_size = bytes_size_;
  }

 private:
  struct shared_block final : frame_keeper {
    intrusive_ptr<pool_interface> pool;
    std::span<std::byte> memory;
    std::uint64_t offset;

    shared_block(intrusive_ptr<pool_interface> front, std::span<std::byte> block)
        : pool(std::move(front)), memory(block), offset(pool->offset(block)) {}
    ~shared_block() override { pool->release(memory); }
  };

  void share() {
    const auto memory = pool_->allocate(bytes_.size());
    if (memory.empty()) return;  // no room: part of each body
    try {
      block_ = new shared_block(pool_, memory);
    } catch (...) {
      pool_->release(memory);
      throw;
    }
    std::memcpy(memory.data(), bytes_.data(), bytes_.size());
    bytes_size_ = bytes_.size();
    bytes_ = byte_buffer();
  }

  static constexpr std::size_t min_shared_bytes = 1024;

  intrusive_ptr<pool_interface> pool_;
  std::uint64_t first_number_;
  byte_buffer bytes_;
  std::size_t bytes_size_ = 0;
  intrusive_ptr<const shared_block> block_;
  intrusive_ptr<const frame_keeper> keeper_;  ///< of the block and of shared objects
};

/// Submits one encoded chunk of a map. @param parts see task_body
inline void submit_encoded(pool_interface& pool, const intrusive_ptr<job>& owner,
                           const shipped_callable& callable, frame_head head,
                           std::size_t first_index, byte_buffer& bytes,
                           std::shared_ptr<void> handles = {}, std::uint32_t parts = 1) {
  task_body body;
  if (bytes.size() > pool.in_line_limit()) {
    body = place_large(pool, bytes);
  } else {
    body.bytes = bytes.view();
  }
  body.parts = parts;
  callable.complete(head, body, first_index);
  keep_with(body.callable, std::move(handles));
  submit_body(pool, owner, head, first_index, std::move(body));
}

/// How an item of a map becomes arguments: a single argument, or one for each element.
struct as_argument {
  template <class F, class Item>
  static type_list<Item> types();
  template <class Types, class Item>
  static void put(encoder& out, Item&& item) {
    put_arguments(out, Types{}, std::forward<Item>(item));
  }
};
struct spread {
  template <class Item>
  static consteval std::size_t length() {
    using item = std::remove_cvref_t<Item>;
    constexpr bool spreadable = requires {
      std::tuple_size<item>::value;
    };
    static_assert(
        spreadable,
        "procpool: starmap takes items that are the arguments of a call: tuples, pairs or "
        "arrays; for single arguments use map");
    if constexpr (spreadable) return std::tuple_size_v<item>;
    return 0;
  }

  template <class Item, std::size_t... I>
  static type_list<decltype(std::get<I>(std::declval<Item>()))...> elements(
      std::index_sequence<I...>);
  template <class F, class Item>
  static auto types() -> decltype(elements<Item>(std::make_index_sequence<length<Item>()>{}));
  template <class Types, class Item>
  static void put(encoder& out, Item&& item) {
    std::apply(
        [&](auto&&... each) { put_arguments(out, Types{}, std::forward<decltype(each)>(each)...); },
        std::forward<Item>(item));
  }
};

/// The argument types of the call of F for an item.
template <class F, class Item, class Passing>
using item_arguments = decltype(Passing::template types<F, Item>());

/// The result type of F for a type_list of arguments.
template <class F, class Arguments>
using listed_result_t = std::decay_t<typename listed_result<F, Arguments>::type>;

/// The result of a map: void if the function returns void.
template <class R>
using gathered_t = std::conditional_t<std::is_void_v<R>, void, std::vector<stored_t<R>>>;

template <class F, class... A>
consteval bool check_listed_call(type_list<A...>) {
  if constexpr (check_call<F, A...>()) return check_result<task_result_t<F, A...>>();
  return false;
}

template <class F, class... A>
shipped_types_t<F, A...> listed_shipped(type_list<A...>);
template <class F, class Arguments>
using listed_shipped_t = decltype(listed_shipped<F>(Arguments{}));

/// Encodes up to @p max_items items as one chunk and submits it. @returns the number of items
/// @param next passes the next item to a visitor: next(visit) is false at the end
template <class Passing, class F, class Types, class Next>
std::size_t submit_chunk(pool_interface& pool, const intrusive_ptr<job>& owner,
                         const shipped_callable& callable, std::size_t first_index,
                         std::size_t max_items, Next next) {
  scratch_buffer scratch;
  kept_handles_of_t<void, Types> handles;
  encoder out(scratch.get());
  callable.begin(out);
  std::size_t items = 0;
  while (items < max_items && next([&](auto&& item) {
           Passing::template put<Types>(out, std::forward<decltype(item)>(item));
         })) {
    ++items;
  }
  if (items == 0) return 0;
  submit_encoded(pool, owner, callable, frame_for(pool, entry_point<F, Types>(), items),
                 first_index, scratch.get(), handles.take());
  return items;
}

/// Whether the items of a range are contiguous in memory in their encoded form.
template <class Passing, class Types, class Range>
inline constexpr bool travels_as_block = false;
template <class T, class Range>
  requires(std::ranges::contiguous_range<Range>)
inline constexpr bool travels_as_block<as_argument, type_list<T>, Range> =
    is_flat_v<T> && std::is_same_v<std::ranges::range_value_t<Range>, T>;

/// submit_chunk() for such items: copied once, to where the workers read them.
template <class F, class T>
void submit_block(pool_interface& pool, const intrusive_ptr<job>& owner,
                  const shipped_callable& callable, std::size_t first_index,
                  std::span<const T> items) {
  frame_head head = frame_for(pool, entry_point<F, type_list<T>>(), items.size());
  const std::size_t size = callable.size() + items.size_bytes();
  const auto fill = [&](encoder& out) {
    callable.begin(out);
    out.bytes(items.data(), items.size_bytes());
  };
  if (size > pool.in_line_limit()) {
    task_body body = fill_large(pool, size, fill);
    callable.complete(head, body, first_index);
    return submit_body(pool, owner, head, first_index, std::move(body));
  }
  alignas(frame_alignment) std::array<std::byte, 256> small;
  if (size > small.size()) {
    scratch_buffer large;
    encoder out(large.get());
    fill(out);
    return submit_encoded(pool, owner, callable, head, first_index, large.get());
  }
  encoder out(std::span<std::byte>(small.data(), size));
  fill(out);
  task_body body;
  body.bytes = std::span<const std::byte>(small.data(), size);
  callable.complete(head, body, first_index);
  submit_body(pool, owner, head, first_index, std::move(body));
}

/// Python's default chunk size: a quarter of an equal share.
inline std::size_t default_chunksize(std::size_t items, std::size_t workers) {
  const std::size_t quarter = (items + 4 * workers - 1) / (4 * workers);
  return quarter == 0 ? 1 : quarter;
}

/// Checks a chunk size or buffer size of the user.
inline std::optional<std::size_t> checked_size(const std::optional<std::ptrdiff_t>& given,
                                               const char* name) {
  if (!given) return std::nullopt;
  if (*given < 1) {
    throw std::invalid_argument(concat({name, " must be at least 1, but is ", *given}));
  }
  constexpr std::size_t max_size = std::numeric_limits<std::uint32_t>::max();
  const auto size = static_cast<std::size_t>(*given);
  return size < max_size ? size : max_size;
}

template <class Passing, class Types, class F, class Range>
void submit_one_by_one(pool_interface& pool, const intrusive_ptr<job>& owner,
                       const shipped_callable& callable, Range& range, std::size_t size,
                       std::size_t chunksize) {
  auto at = std::ranges::begin(range);
  const auto end = std::ranges::end(range);
  const auto next = [&](auto visit) {
    if (at == end) return false;
    visit(*at);
    ++at;
    return true;
  };
  std::size_t done = 0;
  while (done < size) {
    const std::size_t max_items = chunksize < size - done ? chunksize : size - done;
    const std::size_t items =
        submit_chunk<Passing, F, Types>(pool, owner, callable, done, max_items, next);
    done += items;
    if (items < max_items) throw std::logic_error("the input of a map ended before its size()");
  }
}

/// Submits all @p size items of a range in chunks. If the range or an encoder throws, submitted
/// chunks are withdrawn and the exception is rethrown.
template <class Passing, class Types, class F, class Range>
void submit_items(const intrusive_ptr<pool_interface>& pool, const intrusive_ptr<job>& owner,
                  const F& function, Range& range, std::size_t size, std::size_t chunksize) {
  try {
    const shipped_callable callable(pool, function, pool->take_numbers(size));
    if constexpr (travels_as_block<Passing, Types, Range>) {
      const std::span<const std::ranges::range_value_t<Range>> items(std::ranges::data(range),
                                                                     size);
      for (std::size_t done = 0; done < size; done += chunksize) {
        const std::size_t max_items = chunksize < size - done ? chunksize : size - done;
        submit_block<F>(*pool, owner, callable, done, items.subspan(done, max_items));
      }
    } else {
      submit_one_by_one<Passing, Types, F>(*pool, owner, callable, range, size, chunksize);
    }
  } catch (...) {
    pool->fail_submission(*owner, std::current_exception());
    throw;
  }
}

}  // namespace procpool::detail
