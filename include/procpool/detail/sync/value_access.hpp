// SPDX-License-Identifier: MIT
/// @file
/// Implements value_state.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/bulk/bulk_access.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/sync/lock_access.hpp>
#include <procpool/detail/sync/value_state.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION object_data find_data(const object_ref& object) {
  auto& state = body_as<value_state>(object->record());
  const std::uint64_t bytes = std::min(state.bytes.load(std::memory_order_relaxed),
                                       heap_places::extent_bytes);  // written before handles
  if (bytes <= data_in_record) return {state.data.data(), bytes, nullptr};
  auto bulk = map_bulk(object, bytes);
  std::byte* const begin = bulk->data();
  return {begin, bytes, std::move(bulk)};
}

PROCPOOL_FUNCTION object_data make_data(const object_ref& object, std::uint64_t bytes,
                                        const char* what) {
  if (bytes > heap_places::extent_bytes) {
    os::throw_errno(concat({what, " of ", bytes, " bytes is larger than 2 TiB"}), EFBIG);
  }
  body_as<value_state>(object->record())
      .bytes.store(bytes, std::memory_order_relaxed);  // before there are handles
  if (bytes > data_in_record) reserve_bulk(*object, bytes, what);
  return find_data(object);
}

}  // namespace procpool::detail
