// SPDX-License-Identifier: MIT
/// @file
/// From a call in the program to frames in the rings: encodes callables and items, and cuts maps
/// into chunks. User code (encoders, input ranges) runs here, on the submitting thread and without
/// any lock.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

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
#include <procpool/detail/submit/payload_placement.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
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

/// Bytes of an encoded call when its types tell; unknown_size: only encoding can, or it is long.
template <class F, class... S>
constexpr std::size_t known_call_size(type_list<S...>) {
  constexpr std::size_t longest = 512;
  constexpr bool known = (is_function_pointer_v<F> || (std::is_empty_v<F> && !encodable<F>)) &&
                         (true && ... && is_flat_v<S>);
  if constexpr (!known) {
    return unknown_size;
  } else {
    constexpr std::size_t callable = is_function_pointer_v<F> ? frame_alignment : 0;
    constexpr std::size_t size = (callable + ... + sizeof(S));
    return size <= longest ? size : unknown_size;
  }
}

/// Submits one call: @p owner gets its outcome as item 0.
template <class F, class... A>
void submit_call(pool_interface& pool, boost::intrusive_ptr<job> owner, const F& function,
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
    alignas(frame_alignment) std::byte bytes[known + 1];  // nothing is no array
    encoder out(std::span<std::byte>(bytes, known));
    fill(out);
    return submit_small(pool, std::move(owner), head, {bytes, out.size()});
  }
  encoder counting = encoder::counting();
  fill(counting);
  const std::size_t size = counting.size();
  if (size > pool.in_line_limit()) {
    return submit_body(pool, std::move(owner), head, 0, fill_large(pool, size, fill));
  }
  scratch_buffer scratch;
  encoder out(scratch.get());
  fill(out);
  if (scratch.get().size() > pool.in_line_limit()) {  // an encoder that gave more this time
    return submit_body(pool, std::move(owner), head, 0, place_large(pool, scratch.get()));
  }
  submit_small(pool, std::move(owner), head, scratch.get().view());
}

/// A callable as it goes into every frame of a map: small ones into each body, large ones once into
/// the arena, where they stay as long as a frame needs them.
class shipped_callable {
 public:
  /// @param first_number of the items, if they have got their numbers
  template <class F>
  shipped_callable(boost::intrusive_ptr<pool_interface> pool, const F& function,
                   std::uint64_t first_number = unnumbered)
      : pool_(std::move(pool)), first_number_(first_number) {
    reject_null(function);
    encoder out(bytes_);
    pool_->check_code(callable_codec<F>::encode(out, function));
    out.align(frame_alignment);
    if (bytes_.size() > share_from) share();
  }

  /// Begins a body with the callable, unless it is shared.
  void begin(encoder& out) const {
    if (block_ == nullptr) out.bytes(bytes_.data(), bytes_.size());
  }
  /// Bytes that begin() writes.
  [[nodiscard]] std::size_t size() const noexcept { return block_ == nullptr ? bytes_.size() : 0; }
  /// Notes in the frame of the items from @p first_index on what is the same for all frames: the
  /// shared callable, and where the numbers of its items begin.
  void complete(frame_head& head, task_body& body, std::size_t first_index) const {
    if (first_number_ != unnumbered) head.first_number = first_number_ + first_index;
    if (block_ == nullptr) return;
    head.callable_at = block_->offset;
    head.callable_size = bytes_size_;
    body.callable = block_;
  }

 private:
  struct shared_block final : frame_keeper {
    boost::intrusive_ptr<pool_interface> pool;
    std::span<std::byte> memory;
    std::uint64_t offset;

    shared_block(boost::intrusive_ptr<pool_interface> front, std::span<std::byte> block)
        : pool(std::move(front)), memory(block), offset(pool->offset(block)) {}
    ~shared_block() override { pool->release(memory); }
  };

  void share() {
    const auto memory = pool_->allocate(bytes_.size());
    if (memory.empty()) return;  // no room: it travels with every frame
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

  static constexpr std::size_t share_from = 1024;

  boost::intrusive_ptr<pool_interface> pool_;
  std::uint64_t first_number_;
  byte_buffer bytes_;
  std::size_t bytes_size_ = 0;
  boost::intrusive_ptr<const shared_block> block_;
};

/// Hands over what was encoded for one chunk of a map. @param parts see task_body
inline void submit_encoded(pool_interface& pool, const boost::intrusive_ptr<job>& owner,
                           const shipped_callable& callable, frame_head head,
                           std::size_t first_index, byte_buffer& bytes, std::uint32_t parts = 1) {
  task_body body;
  if (bytes.size() > pool.in_line_limit()) {
    body = place_large(pool, bytes);
  } else {
    body.bytes = bytes.view();
  }
  body.parts = parts;
  callable.complete(head, body, first_index);
  submit_body(pool, owner, head, first_index, std::move(body));
}

/// How an item of a map becomes arguments: as the one argument, or spread over the parameters.
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

/// The argument types of the call that a map of F makes for an item.
template <class F, class Item, class How>
using item_arguments = decltype(How::template types<F, Item>());

/// What a call of F with a type_list of arguments returns.
template <class F, class Arguments>
using listed_result_t = std::decay_t<typename listed_result<F, Arguments>::type>;

/// What a map returns: nothing for functions that return nothing.
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

/// Encodes up to @p most items into one chunk and submits it; how many there were.
/// @param next returns the next item through a visitor: next(visit) is false at the end
template <class How, class F, class Types, class Next>
std::size_t submit_chunk(pool_interface& pool, const boost::intrusive_ptr<job>& owner,
                         const shipped_callable& callable, std::size_t first_index,
                         std::size_t most, Next next) {
  scratch_buffer scratch;
  encoder out(scratch.get());
  callable.begin(out);
  std::size_t items = 0;
  while (items < most && next([&](auto&& item) {
           How::template put<Types>(out, std::forward<decltype(item)>(item));
         })) {
    ++items;
  }
  if (items == 0) return 0;
  submit_encoded(pool, owner, callable, frame_for(pool, entry_point<F, Types>(), items),
                 first_index, scratch.get());
  return items;
}

/// Whether the items of a range lie in memory as they travel, one behind the other.
template <class How, class Types, class Range>
inline constexpr bool travels_as_block = false;
template <class T, class Range>
  requires(std::ranges::contiguous_range<Range>)
inline constexpr bool travels_as_block<as_argument, type_list<T>, Range> =
    is_flat_v<T> && std::is_same_v<std::ranges::range_value_t<Range>, T>;

/// The same for items that travel as a block: copied once, to where the workers read them.
template <class F, class T>
void submit_block(pool_interface& pool, const boost::intrusive_ptr<job>& owner,
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
  alignas(frame_alignment) std::array<std::byte, 256> few;
  if (size > few.size()) {
    scratch_buffer many;
    encoder out(many.get());
    fill(out);
    return submit_encoded(pool, owner, callable, head, first_index, many.get());
  }
  encoder out(std::span<std::byte>(few.data(), size));
  fill(out);
  task_body body;
  body.bytes = std::span<const std::byte>(few.data(), size);
  callable.complete(head, body, first_index);
  submit_body(pool, owner, head, first_index, std::move(body));
}

/// Python's rule for the size of a chunk when none is given: a quarter of a fair share.
inline std::size_t default_chunksize(std::size_t items, std::size_t workers) {
  const std::size_t quarter = (items + 4 * workers - 1) / (4 * workers);
  return quarter == 0 ? 1 : quarter;
}

/// Checks a chunk size or buffer size given by the user.
inline std::optional<std::size_t> checked_size(const std::optional<std::ptrdiff_t>& given,
                                               const char* name) {
  if (!given) return std::nullopt;
  if (*given < 1) {
    throw std::invalid_argument(concat({name, " must be at least 1, but is ", *given}));
  }
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  const auto size = static_cast<std::size_t>(*given);
  return size < most ? size : most;
}

template <class How, class Types, class F, class Range>
void submit_one_by_one(pool_interface& pool, const boost::intrusive_ptr<job>& owner,
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
    const std::size_t most = chunksize < size - done ? chunksize : size - done;
    const std::size_t items = submit_chunk<How, F, Types>(pool, owner, callable, done, most, next);
    done += items;
    if (items < most) throw std::logic_error("the input of a map ended before its size()");
  }
}

/// Submits all @p size items of a range in chunks. When the range or an encoder throws, what was
/// submitted is withdrawn and the exception goes to the caller.
template <class How, class Types, class F, class Range>
void submit_items(const boost::intrusive_ptr<pool_interface>& pool,
                  const boost::intrusive_ptr<job>& owner, const F& function, Range& range,
                  std::size_t size, std::size_t chunksize) {
  try {
    const shipped_callable callable(pool, function, pool->take_numbers(size));
    if constexpr (travels_as_block<How, Types, Range>) {
      const std::span<const std::ranges::range_value_t<Range>> items(std::ranges::data(range),
                                                                     size);
      for (std::size_t done = 0; done < size; done += chunksize) {
        const std::size_t most = chunksize < size - done ? chunksize : size - done;
        submit_block<F>(*pool, owner, callable, done, items.subspan(done, most));
      }
    } else {
      submit_one_by_one<How, Types, F>(*pool, owner, callable, range, size, chunksize);
    }
  } catch (...) {
    pool->fail_submission(*owner, std::current_exception());
    throw;
  }
}

}  // namespace procpool::detail
