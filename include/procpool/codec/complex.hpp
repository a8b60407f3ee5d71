// SPDX-License-Identifier: MIT
/// @file
/// Codec of std::complex. A separate header, because <complex> includes half of the stream library.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>

#include <complex>
#include <cstddef>

namespace procpool {

template <class T>
struct codec<std::complex<T>> : detail::same_level {
  using parts = detail::type_list<T>;
  static constexpr bool flat = detail::is_flat_v<T>;  // two values of T, says the standard
  static constexpr std::size_t min_wire_size = 2 * detail::min_wire_size_v<T>;

  static void encode(encoder& e, const std::complex<T>& value) {
    e.put(value.real());
    e.put(value.imag());
  }
  static std::complex<T> decode(decoder& d) { return std::complex<T>{d.get<T>(), d.get<T>()}; }
};

}  // namespace procpool
