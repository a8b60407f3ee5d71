// SPDX-License-Identifier: MIT
/// @file
/// Handles of shared objects in messages.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/codec/flat.hpp>
#include <procpool/detail/heap/heap.hpp>

namespace procpool::detail {

/// False for types whose values certainly contain no handle: their messages need no handle_scope.
template <class T>
inline constexpr bool may_carry_handles_v = !is_flat_v<T>;
template <class Char, class Traits, class Allocator>
inline constexpr bool may_carry_handles_v<std::basic_string<Char, Traits, Allocator>> = false;
template <class T, class Allocator>
inline constexpr bool may_carry_handles_v<std::vector<T, Allocator>> = may_carry_handles_v<T>;
template <>
inline constexpr bool may_carry_handles_v<bool> = false;
template <class R, class... A>
inline constexpr bool may_carry_handles_v<R (*)(A...)> = false;
template <class R, class... A>
inline constexpr bool may_carry_handles_v<R (*)(A...) noexcept> = false;

/// @throws ProcessError when the system refuses
inline void put_object(encoder& e, const object_ref& object) {
  e.put(e.is_counting() ? object_wire{} : send_object(object));
}

/// @throws DecodeError: the handle is of another program or type, or its object has ended
[[nodiscard]] inline object_ref get_object(decoder& d, object_kind kind, std::uint64_t type = 0) {
  const auto wire = d.get<object_wire>();
  object_ref object;
  try {
    object = receive_object(wire, kind, type);
  } catch (const std::invalid_argument& error) {
    d.fail(error.what());
  }
  if (object == nullptr) d.fail("a handle of a shared object that has ended");
  return object;
}

}  // namespace procpool::detail
