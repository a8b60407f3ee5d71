// SPDX-License-Identifier: MIT
/// @file
/// Codecs of std::chrono durations and time points. A time point of std::chrono::steady_clock means
/// the same in every process of one machine.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>

#include <chrono>
#include <cstddef>

namespace procpool {

template <class Rep, class Period>
struct codec<std::chrono::duration<Rep, Period>> : detail::same_level {
  using type = std::chrono::duration<Rep, Period>;
  using parts = detail::type_list<Rep>;
  static constexpr bool flat = detail::is_flat_v<Rep> && sizeof(type) == sizeof(Rep);
  static constexpr std::size_t min_wire_size = detail::min_wire_size_v<Rep>;

  static void encode(encoder& e, const type& value) { e.put(value.count()); }
  static type decode(decoder& d) { return type(d.get<Rep>()); }
};

template <class Clock, class Duration>
struct codec<std::chrono::time_point<Clock, Duration>> : detail::same_level {
  using type = std::chrono::time_point<Clock, Duration>;
  using parts = detail::type_list<Duration>;
  static constexpr bool flat = detail::is_flat_v<Duration> && sizeof(type) == sizeof(Duration);
  static constexpr std::size_t min_wire_size = detail::min_wire_size_v<Duration>;

  static void encode(encoder& e, const type& value) { e.put(value.time_since_epoch()); }
  static type decode(decoder& d) { return type(d.get<Duration>()); }
};

}  // namespace procpool
