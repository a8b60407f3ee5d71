// SPDX-License-Identifier: MIT
// What the tests of the codec share: round trips, and random values of any type.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <limits>
#include <procpool/codec.hpp>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace codec_test {

using procpool::decoder;
using procpool::encoder;
using procpool::detail::byte_buffer;
using generator = std::mt19937_64;

template <class T>
byte_buffer encoded(const T& value) {
  byte_buffer buffer;
  encoder(buffer).put(value);
  return buffer;
}

template <class T>
T decoded(std::span<const std::byte> message, procpool::decode_limits limits = {}) {
  decoder d(message, limits);
  T value = d.get<T>();
  d.finish();
  return value;
}

template <class T>
std::size_t counted(const T& value) {
  encoder counting = encoder::counting();
  counting.put(value);
  return counting.size();
}

/// A message of bytes, aligned to 16.
template <class... Numbers>
byte_buffer message_of(const Numbers&... numbers) {
  byte_buffer buffer;
  (buffer.append(&numbers, sizeof numbers), ...);
  return buffer;
}

/// The same bytes at an address that is odd.
class misaligned {
 public:
  explicit misaligned(std::span<const std::byte> bytes) {
    bytes_.append("", 1);
    bytes_.append(bytes.data(), bytes.size());
  }
  [[nodiscard]] std::span<const std::byte> view() const { return bytes_.view().subspan(1); }

 private:
  byte_buffer bytes_;
};

template <class T>
void check_fixed_span(const T& value, const byte_buffer& expected) {
  byte_buffer room;
  room.resize_uninitialized(expected.size() + 1);
  encoder exact(std::span(room.data(), expected.size()));
  exact.put(value);
  REQUIRE(exact.size() == expected.size());
  REQUIRE((expected.empty() || std::memcmp(room.data(), expected.data(), expected.size()) == 0));
  if (expected.empty()) return;
  encoder short_by_one(std::span(room.data(), expected.size() - 1));
  REQUIRE_THROWS_AS(short_by_one.put(value), std::length_error);
}

/// Everything that holds for every value: what comes out is what went in, wherever the message
/// lies; all three targets agree; neither less nor more than the message is accepted.
template <class T>
void check_round_trip(const T& value) {
  const byte_buffer message = encoded(value);
  REQUIRE(decoded<T>(message.view()) == value);
  REQUIRE(decoded<T>(misaligned(message.view()).view()) == value);
  REQUIRE(counted(value) == message.size());
  REQUIRE(message.size() >= procpool::detail::min_wire_size_v<T>);
  check_fixed_span(value, message);
  byte_buffer longer = encoded(value);
  longer.append("x", 1);
  REQUIRE_THROWS_AS(decoded<T>(longer.view()), procpool::DecodeError);
  if (message.empty()) return;
  REQUIRE_THROWS_AS(decoded<T>(message.view().first(message.size() - 1)), procpool::DecodeError);
}

// ---------------------------------------------------------------------------- random values

inline std::size_t random_size(generator& random) {
  return random() % 9;
}

template <class T>
T random_value(generator& random);

template <class T>
T random_number(generator& random) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::uniform_real_distribution<T>(-1000, 1000)(random);
  } else {
    switch (random() % 4) {
      case 0:
        return std::numeric_limits<T>::min();
      case 1:
        return std::numeric_limits<T>::max();
      default:
        return static_cast<T>(random());
    }
  }
}

template <class T>
concept growing = requires(T& container, typename T::value_type element) {
  container.insert(container.end(), std::move(element));
};

template <class T>
concept tuple_like = requires {
  std::tuple_size<T>::value;
};

template <growing T>
T random_container(generator& random) {
  T container;
  for (std::size_t n = random_size(random); n != 0; --n) {
    if constexpr (requires { typename T::mapped_type; }) {
      auto key = random_value<typename T::key_type>(random);
      container.emplace(std::move(key), random_value<typename T::mapped_type>(random));
    } else {
      container.insert(container.end(), random_value<typename T::value_type>(random));
    }
  }
  return container;
}

template <class T>
T random_tuple(generator& random) {
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return T{random_value<std::tuple_element_t<I, T>>(random)...};
  }
  (std::make_index_sequence<std::tuple_size_v<T>>{});
}

/// Of numbers, enums, containers, tuples and arrays, optionals, and types with a static
/// `random(generator&)`.
template <class T>
T random_value(generator& random) {
  if constexpr (std::is_same_v<T, bool>) {
    return random() % 2 == 1;
  } else if constexpr (std::is_enum_v<T>) {
    return static_cast<T>(random());
  } else if constexpr (std::is_arithmetic_v<T>) {
    return random_number<T>(random);
  } else if constexpr (requires { T::random(random); }) {
    return T::random(random);
  } else if constexpr (growing<T>) {
    return random_container<T>(random);
  } else if constexpr (tuple_like<T>) {
    return random_tuple<T>(random);
  } else {
    return random() % 3 == 0 ? T() : T(random_value<typename T::value_type>(random));
  }
}

/// Round trips of the empty value and of some random ones, the same in every run.
template <class T>
void check_round_trips(std::size_t count = 40) {
  CAPTURE(procpool::detail::type_name<T>());
  static_assert(procpool::encodable<T>);
  check_round_trip(T());
  generator random(4711);  // NOLINT(cert-msc51-cpp)
  for (std::size_t i = 0; i < count; ++i) check_round_trip(random_value<T>(random));
}

}  // namespace codec_test
