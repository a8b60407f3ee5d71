// SPDX-License-Identifier: MIT
/// @file
/// Fills a large container of flat elements while its encoding arrives. Each byte is copied once,
/// from the ring to the container that the user gets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <procpool/codec.hpp>
#include <procpool/detail/codec/containers.hpp>
#include <procpool/detail/os/huge_pages.hpp>

namespace procpool::detail {

/// How the bytes of a record are delivered: all at once, or in pieces as they arrive.
struct delivery {
  std::uint32_t head = 0;     ///< bytes of the first piece
  std::uint32_t granule = 0;  ///< bytes of later pieces are multiples of this; 0: all at once
};

template <class Container>
constexpr delivery delivery_of() {
  constexpr std::size_t largest_element = 64;
  if constexpr (is_block_v<Container>) {
    using element = typename Container::value_type;
    if constexpr (sizeof(element) <= largest_element) {
      return {block_head_v<element>, sizeof(element)};
    }
  }
  return {};
}

/// Bytes of the smallest container for which incremental decoding pays.
inline constexpr std::uint64_t assembled_from = std::uint64_t{64} << 10;

/// Reads the first piece of an encoding of @p total bytes. Reserves memory for all elements without
/// touching it. @throws DecodeError; std::bad_alloc, std::length_error
template <class Container>
void begin_block(Container& into, std::span<const std::byte> head, std::uint64_t total) {
  using element = typename Container::value_type;
  decoder in(head);
  const auto count = in.template get<std::uint64_t>();
  const std::uint64_t bytes = total - head.size();
  if (count != bytes / sizeof(element)) in.fail("a block of another length than its message");
  into.clear();
  into.reserve(count);
  advise_huge_pages(into.data(), bytes);
}

/// Appends a later piece, which holds whole elements.
template <class Container>
void append_block(Container& into, std::span<const std::byte> bytes) {
  using element = typename Container::value_type;
  if (is_aligned<element>(bytes.data())) [[likely]] {
    const auto* first = reinterpret_cast<const element*>(bytes.data());
    into.insert(into.end(), first, first + bytes.size() / sizeof(element));
    return;
  }
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(element)) {
    into.push_back(load<element>(bytes.data() + at));
  }
}

/// Reads the next piece of an encoding of @p total bytes, which starts at @p offset.
template <class Container>
void assemble(Container& into, std::uint64_t offset, std::uint64_t total,
              std::span<const std::byte> bytes) {
  if (offset == 0) return begin_block(into, bytes, total);
  append_block(into, bytes);
}

}  // namespace procpool::detail
