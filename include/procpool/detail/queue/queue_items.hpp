// SPDX-License-Identifier: MIT
/// @file
/// Values in a queue: encoding them into it and decoding them from it.
///
/// Flat values, strings and vectors of flat elements are copied once, between the value and the
/// shared memory, with the lock of that end held. Codecs of users run without a lock: others are
/// encoded before and decoded after, in private memory. Only get_many(), and queues that keep
/// copies of unfinished items, decode with the lock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/codec/containers.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/codec/scratch_buffer.hpp>
#include <procpool/detail/queue/shared_queue.hpp>
#include <procpool/detail/queue/unfinished.hpp>

namespace procpool::detail {

/// Whether values are copied directly between the queue and the program.
template <class T>
inline constexpr bool copied_once_v = is_flat_v<T> || is_block_v<T>;

/// The length of a value that is copied once.
template <class T>
[[nodiscard]] std::uint64_t length_of(const T& value) {
  if constexpr (is_flat_v<T>) {
    return sizeof(T);
  } else {
    return block_head_v<typename T::value_type> + value.size() * sizeof(typename T::value_type);
  }
}

template <class T>
void write_value(std::byte* at, std::uint64_t length, const T& value) {
  if constexpr (is_flat_v<T>) {
    std::memcpy(at, &reinterpret_cast<const std::byte&>(value), sizeof(T));
  } else {
    encoder e(std::span<std::byte>(at, length));
    e.put(value);
  }
}

/// @returns false: @p until has passed
template <class Write>
[[nodiscard]] bool put_bytes(shared_queue& queue, std::uint64_t length, const os::deadline& until,
                             Write write) {
  wait_slices slices;
  do {
    put_turn turn(queue, until);
    if (!turn.has_lock()) return false;
    if (std::byte* const at = turn.add(length)) {
      write(at);
      turn.publish();
      return true;
    }
  } while (queue.wait_for_room(slices, length, until));
  return false;
}

template <class T>
[[nodiscard]] bool put_item(shared_queue& queue, const T& value, const os::deadline& until) {
  if constexpr (copied_once_v<T>) {
    const std::uint64_t length = length_of(value);
    return put_bytes(queue, length, until, [&](std::byte* at) { write_value(at, length, value); });
  } else {
    scratch_buffer scratch;
    [[maybe_unused]] std::optional<handle_scope> handles;
    if constexpr (may_carry_handles_v<T>) handles.emplace(handle_delivery::once);
    encoder e(scratch.get());
    e.put(value);
    const auto bytes = scratch.get().view();
    return put_bytes(queue, bytes.size(), until, [&](std::byte* at) {
      if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
      if constexpr (may_carry_handles_v<T>) handles->commit();
    });
  }
}

/// Puts several, as many at a time as there is room for.
template <class T, class Range>
void put_items(shared_queue& queue, Range&& values) {
  constexpr std::uint64_t most_items = 1024;  // at a time: others want their turn
  constexpr std::uint64_t most_bytes = 64 << 10;
  if constexpr (copied_once_v<T> && std::ranges::contiguous_range<Range> &&
                std::is_same_v<std::remove_cv_t<std::ranges::range_value_t<Range>>, T>) {
    std::span<const T> left(std::ranges::data(values), std::ranges::size(values));
    wait_slices slices;
    while (!left.empty()) {
      std::size_t count = 0;
      {
        put_turn turn(queue, std::nullopt);
        for (std::uint64_t bytes = 0;
             count < std::min<std::uint64_t>(left.size(), most_items) && bytes < most_bytes;) {
          const std::uint64_t length = length_of(left[count]);
          std::byte* const at = turn.add(length);
          if (at == nullptr) break;
          write_value(at, length, left[count]);
          bytes += length;
          ++count;
        }
        turn.publish();
      }
      left = left.subspan(count);
      if (count != 0) continue;
      static_cast<void>(queue.wait_for_room(slices, length_of(left.front()), std::nullopt));
    }
  } else {
    for (auto&& value : values) {
      static_cast<void>(put_item<T>(queue, value, std::nullopt));
    }
  }
}

/// The value of an item. @throws DecodeError
template <class T>
void decode_item(std::span<const std::byte> bytes, std::optional<T>& value) {
  decoder d(bytes);
  if constexpr (decoded_in_place_v<T>) {
    value.emplace();
    d.get_to(*value);
  } else {
    value.emplace(d.get<T>());
  }
  d.finish();
}

/// What a get came to.
template <class T>
struct got_item {
  std::optional<T> value{};
  bool is_over = false;  ///< the queue is closed and empty
};

inline void take_counted(get_turn& turn, unfinished_items* unfinished) {
  if (unfinished != nullptr) unfinished->add(turn.count());  // before they are taken
  turn.publish();
}

/// Takes the item that @p turn has given as @p bytes.
template <class T>
void take_item(get_turn& turn, std::span<const std::byte> bytes, unfinished_items* unfinished,
               std::optional<T>& value) {
  if (copied_once_v<T> || (unfinished != nullptr && unfinished->keeps())) {
    try {
      decode_item(bytes, value);
    } catch (const DecodeError&) {  // it is nobody's item
      turn.take();
      turn.publish();
      throw;
    }
    if (unfinished != nullptr) unfinished->keep(bytes);
    turn.take();
    take_counted(turn, unfinished);
  } else {
    scratch_buffer scratch;
    scratch.get().append(bytes.data(), bytes.size());
    turn.take();
    take_counted(turn, unfinished);
    try {
      decode_item(scratch.get().view(), value);
    } catch (...) {
      if (unfinished != nullptr) static_cast<void>(unfinished->finish_one());
      throw;
    }
  }
}

/// Calls @p take(turn, bytes) with the next item. @returns false: it was not called
template <class Take>
[[nodiscard]] bool get_bytes(shared_queue& queue, const os::deadline& until, bool& is_over,
                             Take take) {
  wait_slices slices;
  while (true) {
    {
      get_turn turn(queue, until);
      if (!turn.has_lock()) return false;
      if (const auto bytes = turn.next()) {
        take(turn, *bytes);
        return true;
      }
    }
    if (queue.get_more()) continue;
    if (queue.is_closed() && queue.is_empty()) {
      is_over = true;
      return false;
    }
    if (!queue.wait_for_item(slices, until)) return false;
  }
}

template <class T>
[[nodiscard]] got_item<T> get_item(shared_queue& queue, unfinished_items* unfinished,
                                   const os::deadline& until) {
  got_item<T> got;
  static_cast<void>(
      get_bytes(queue, until, got.is_over, [&](get_turn& turn, std::span<const std::byte> bytes) {
        take_item<T>(turn, bytes, unfinished, got.value);
      }));
  return got;
}

/// Up to @p most items, once there is one.
template <class T>
[[nodiscard]] std::vector<T> get_items(shared_queue& queue, unfinished_items* unfinished,
                                       std::size_t most, const os::deadline& until, bool& is_over) {
  std::vector<T> values;
  const auto take = [&](get_turn& turn, std::span<const std::byte> first) {
    values.reserve(std::min<std::uint64_t>(most, queue.size()));
    std::optional<std::span<const std::byte>> bytes = first;
    do {
      std::optional<T> value;
      try {
        decode_item(*bytes, value);
      } catch (const DecodeError&) {
        if (turn.count() != 0) break;  // the next call throws
        turn.take();
        turn.publish();
        throw;
      }
      if (unfinished != nullptr) unfinished->keep(*bytes);
      values.push_back(std::move(*value));
      turn.take();
    } while (turn.count() < most && (bytes = turn.next()));
    take_counted(turn, unfinished);
  };
  static_cast<void>(get_bytes(queue, until, is_over, take));
  return values;
}

}  // namespace procpool::detail
