// SPDX-License-Identifier: MIT
/// @file
/// Shared parts of the codecs of containers: elements one by one, and blocks of flat elements.
#pragma once

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/detail/os/huge_pages.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace procpool::detail {

/// Puts the number of elements of `range`, `size`, then each element.
template <class T, class Range>
void put_elements(encoder& e, const Range& range, std::size_t size) {
  e.count(size);
  for (const auto& element : range) {
    const std::size_t before = e.size();
    e.put<T>(element);
    if constexpr (min_wire_size_v<T> == 0) {
      if (e.size() == before) e.pass_empty_element(sizeof(T));
    }
  }
}

/// Calls `get_one` for each of the next `n` elements of type `T` in the message.
template <class T, class GetOne>
void each_element(decoder& d, std::size_t n, GetOne&& get_one) {
  for (; n != 0; --n) {
    const std::size_t before = d.offset();
    get_one();
    if constexpr (min_wire_size_v<T> == 0) {
      if (d.offset() == before) d.pass_empty_element(sizeof(T));
    }
  }
}

/// Decodes the next `n` elements and calls `take` with each.
template <class T, class Take>
void get_elements(decoder& d, std::size_t n, Take&& take) {
  each_element<T>(d, n, [&] { take(d.get<T>()); });
}

/// Objects from this size in bytes on are default-constructed in their final place and decoded
/// there, if their type allows it. Others are decoded on the stack and moved.
inline constexpr std::size_t large_object = 512;
template <class T>
consteval bool is_decoded_in_place() {
  if constexpr (sizeof(T) >= large_object && !std::is_const_v<T>) {
    return std::is_default_constructible_v<T> && std::is_move_assignable_v<T>;
  }
  return false;
}
template <class T>
inline constexpr bool decoded_in_place_v = is_decoded_in_place<T>();

/// A value that its codec fills in. A separate function for the same reason as load().
template <class T>
[[nodiscard]] T decoded(decoder& d) {
  T value;
  codec<T>::decode_into(d, value);
  return value;
}

/// Decodes the next `n` elements and appends them to a container.
template <class Container>
void append_elements(decoder& d, std::size_t n, Container& container) {
  using element = typename Container::value_type;
  if constexpr (decoded_in_place_v<element>) {
    each_element<element>(d, n, [&] { d.get_to(container.emplace_back()); });
  } else {
    get_elements<element>(d, n, [&](element&& next) { container.push_back(std::move(next)); });
  }
}

// A block: the number of elements, zeros up to the alignment of an element, then the elements.

/// The alignment of the elements in a block: that of `T`, but at most that of a message.
template <class T>
inline constexpr std::size_t block_alignment_v = alignof(T) < byte_buffer::alignment
                                                     ? alignof(T)
                                                     : byte_buffer::alignment;

/// Bytes of a block before the elements.
template <class T>
inline constexpr std::size_t block_head_v = block_alignment_v<T> > sizeof(std::uint64_t)
                                                ? block_alignment_v<T>
                                                : sizeof(std::uint64_t);

/// A contiguous container that is encoded as one block and nothing else.
template <class T>
inline constexpr bool is_block_v = requires {
  requires codec<T>::block;
  requires std::is_same_v<typename codec<T>::type, T>;  // not of one that inherits it
};

template <class T>
void put_block(encoder& e, const T* elements, std::size_t n) {
  static_assert(is_flat_v<T>);
  e.count(n);
  e.align(block_alignment_v<T>);
  e.bytes(elements, n * sizeof(T));
}

/// The bytes of the elements of the next block. Their number is the size divided by sizeof(T).
template <class T>
[[nodiscard]] std::span<const std::byte> get_block(decoder& d) {
  static_assert(is_flat_v<T>);
  const std::size_t n = d.count(sizeof(T));
  d.align(block_alignment_v<T>);
  return d.bytes(n * sizeof(T));
}

template <class T>
[[nodiscard]] bool is_aligned(const std::byte* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address) % alignof(T) == 0;
}

/// A contiguous container made from the next block, in one copy.
template <class Container>
[[nodiscard]] Container get_container(decoder& d) {
  using element = typename Container::value_type;
  const auto block = get_block<element>(d);
  const std::size_t n = block.size() / sizeof(element);
  if (is_aligned<element>(block.data())) [[likely]] {
    // From a pair of pointers: resize() would fill the memory with zeros first.
    const auto* first = reinterpret_cast<const element*>(block.data());
    if (block.size() < huge_from) [[likely]]
      return Container(first, first + n);
    Container container;
    container.reserve(n);
    advise_huge_pages(container.data(), block.size());
    container.insert(container.end(), first, first + n);
    return container;
  }
  Container container;
  container.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    container.push_back(load<element>(block.data() + i * sizeof(element)));
  }
  return container;
}

template <class T>
concept viewable = is_flat_v<T> && alignof(T) <= byte_buffer::alignment;

/// A view of the next block, which stays in the message.
template <viewable T>
[[nodiscard]] std::span<const T> get_view(decoder& d) {
  const auto block = get_block<T>(d);
  if (!is_aligned<T>(block.data())) d.fail("message at an address not aligned for a view");
  return {reinterpret_cast<const T*>(block.data()), block.size() / sizeof(T)};
}

/// A bool in one byte: 0 or 1.
[[nodiscard]] inline bool get_flag(decoder& d) {
  const auto flag = d.get<unsigned char>();
  if (flag > 1) d.fail("a byte that is neither true nor false");
  return flag == 1;
}

inline void put_flag(encoder& e, bool flag) {
  e.put(static_cast<unsigned char>(flag ? 1 : 0));
}

/// Puts `n` bits, eight to a byte. `bit(i)` is the bit at index i.
template <class Bit>
void put_bits(encoder& e, std::size_t n, Bit&& bit) {
  for (std::size_t at = 0; at < n; at += 8) {
    unsigned byte = 0;
    for (std::size_t i = 0; i < 8 && at + i < n; ++i) byte |= (bit(at + i) ? 1U : 0U) << i;
    e.put(static_cast<unsigned char>(byte));
  }
}

/// Reads what put_bits put: calls `set` with the index of each bit that is 1.
template <class Set>
void get_bits(decoder& d, std::size_t n, Set&& set) {
  for (std::size_t at = 0; at < n; at += 8) {
    const unsigned byte = d.get<unsigned char>();
    if (n - at < 8 && (byte >> (n - at)) != 0) d.fail("a bit beyond the last");
    for (std::size_t i = 0; i < 8 && at + i < n; ++i) {
      if (((byte >> i) & 1U) != 0) set(at + i);
    }
  }
}

}  // namespace procpool::detail
