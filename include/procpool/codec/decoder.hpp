// SPDX-License-Identifier: MIT
/// @file
/// decoder: turns arbitrary bytes into values, or into a DecodeError.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <procpool/codec/limits.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/codec/encodable.hpp>
#include <procpool/detail/codec/type_diagnostics.hpp>
#include <procpool/error.hpp>

namespace procpool {

namespace detail {

/// Hides from the compiler where `value` was copied from. The message may lie in memory that
/// another process is writing. Without this, the compiler may load a value again after its check.
template <class T>
inline void settle(T& value) noexcept {
  if constexpr (std::is_integral_v<T> && sizeof(T) <= sizeof(void*)) {
    asm volatile("" : "+r"(value));
  } else {
    asm volatile("" : "+m"(value));
  }
}

/// The flat value whose bytes are at `from`, aligned or not. A separate function: g++ before 14
/// constructs a returned variable in the caller's place only if it is not in an inner block.
template <class T>
[[nodiscard]] T load(const std::byte* from) noexcept {
  T value;
  std::memcpy(&reinterpret_cast<std::byte&>(value), from, sizeof(T));
  settle(value);
  return value;
}
template <class T>
  requires(!std::is_default_constructible_v<T>)
[[nodiscard]] T load(const std::byte* from) noexcept {
  alignas(T) std::array<std::byte, sizeof(T)> raw;
  std::memcpy(raw.data(), from, sizeof(T));
  settle(raw);
  return std::bit_cast<T>(raw);
}

}  // namespace detail

/// Reads values from one message, in the order in which an encoder put them. Decoding is total: for
/// any bytes the result is a value or a DecodeError, in time and memory proportional to the length
/// of the message. Each byte is read at most once, so a process that changes the message meanwhile
/// can change values but not break the decoder. Only views (std::span, std::string_view) keep
/// referring to the message. One thread at a time. Python: pickle.loads(), but safe for any bytes.
class decoder {
 public:
  /// Reads `message`, which must outlive the decoder and every view decoded from it.
  explicit decoder(std::span<const std::byte> message, decode_limits limits = {}) noexcept
      : begin_(message.data()),
        next_(message.data()),
        end_(message.data() + message.size()),
        levels_left_(limits.max_depth),
        empty_elements_left_(limits.max_elements) {}

  decoder(const decoder&) = delete;
  decoder& operator=(const decoder&) = delete;

  /// The next value. @throws DecodeError, or what constructing a `T` throws
  template <class T>
  [[nodiscard]] T get() {
    using type = std::remove_cv_t<T>;
    if constexpr (detail::is_flat_v<type>) {
      return detail::load<type>(bytes(sizeof(type)).data());
    } else if constexpr (!detail::has_codec<type>) {
      detail::explain<type>();
    } else if constexpr (detail::adds_level_v<type>) {
      if (levels_left_ == 0) fail("nested too deeply");
      const detail::level_guard level(levels_left_);
      return codec<type>::decode(*this);
    } else {
      return codec<type>::decode(*this);
    }
  }

  /// The same into an existing object. A large object, or one that contains large ones, then takes
  /// no room on the stack if its codec has decode_into. After an exception `value` is valid but
  /// unspecified.
  template <class T>
  void get_to(T& value) {
    if constexpr (detail::is_flat_v<T>) {
      std::memcpy(&reinterpret_cast<std::byte&>(value), bytes(sizeof(T)).data(), sizeof(T));
      detail::settle(value);
    } else if constexpr (detail::decodes_into<T> && detail::adds_level_v<T>) {
      if (levels_left_ == 0) fail("nested too deeply");
      const detail::level_guard level(levels_left_);
      codec<T>::decode_into(*this, value);
    } else if constexpr (detail::decodes_into<T>) {
      codec<T>::decode_into(*this, value);
    } else {
      value = get<T>();
    }
  }

  /// The next `n` bytes, in the message itself. @throws DecodeError if there are fewer
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t n) {
    if (n > remaining()) [[unlikely]] {
      ends_early(n);
    }
    const std::byte* first = next_;
    next_ += n;
    return {first, n};
  }

  /// Skips the next part (see encoder::begin_part()) and returns a decoder of that part. Whatever
  /// that decoder does, this one continues after the part. @throws DecodeError
  [[nodiscard]] decoder part() { return part(get<std::uint64_t>()); }
  /// The same for a part of known length in bytes.
  [[nodiscard]] decoder part(std::size_t length) { return decoder(*this, bytes(length)); }

  /// Skips bytes until offset() is a multiple of `alignment`, a power of two up to 16.
  void align(std::size_t alignment) { static_cast<void>(bytes((0 - offset()) & (alignment - 1))); }

  /// The next number of elements, for which the rest of the message has room if each takes at least
  /// `min_wire_size` bytes. Checked before anything is allocated for them. Elements that may take
  /// no bytes must be reported to pass_empty_element(). @throws DecodeError
  [[nodiscard]] std::size_t count(std::size_t min_wire_size) {
    const auto n = get<std::uint64_t>();
    const std::size_t room =
        min_wire_size == 0 ? remaining() + empty_elements_left_ : remaining() / min_wire_size;
    if (n > room) [[unlikely]] {
      too_many(n);
    }
    return n;
  }

  /// How many of `n` elements of type `T` to reserve memory for: never more bytes than the message
  /// has left, whatever `n` is.
  template <class T>
  [[nodiscard]] std::size_t reserve_hint(std::size_t n) const noexcept {
    const std::size_t affordable = remaining() / sizeof(T);
    return n < affordable ? n : affordable;
  }

  /// To be called by codecs of containers for each element that took no bytes in the message.
  /// @param size of the element in memory, in bytes. @throws DecodeError
  void pass_empty_element(std::size_t size) {
    if (empty_elements_left_ < size) fail("too many empty elements");
    empty_elements_left_ -= size;
  }

  /// Bytes read so far.
  [[nodiscard]] std::size_t offset() const noexcept {
    return static_cast<std::size_t>(next_ - begin_);
  }
  /// Bytes not yet read.
  [[nodiscard]] std::size_t remaining() const noexcept {
    return static_cast<std::size_t>(end_ - next_);
  }

  /// @throws DecodeError if any bytes are left.
  void finish() {
    if (next_ != end_) too_long();
  }

  /// @throws DecodeError with this reason and the present offset, always.
  [[noreturn, gnu::cold, gnu::noinline]] void fail(std::string_view why) const {
    throw DecodeError(std::string(why), offset());
  }

 private:
  // Offsets and alignments count from the start of the whole message.
  decoder(const decoder& whole, std::span<const std::byte> part) noexcept
      : begin_(whole.begin_),
        next_(part.data()),
        end_(part.data() + part.size()),
        levels_left_(whole.levels_left_),
        empty_elements_left_(whole.empty_elements_left_) {}

  [[noreturn, gnu::cold, gnu::noinline]] void too_long() const {
    fail(detail::concat({remaining(), " bytes too many"}));
  }
  [[noreturn, gnu::cold, gnu::noinline]] void ends_early(std::size_t n) const {
    fail(detail::concat({"message ends early: ", n, " bytes expected, ", remaining(), " left"}));
  }
  [[noreturn, gnu::cold, gnu::noinline]] void too_many(std::uint64_t n) const {
    fail(detail::concat(
        {"message ends early: ", n, " elements expected, ", remaining(), " bytes left"}));
  }

  const std::byte* begin_;
  const std::byte* next_;
  const std::byte* end_;
  std::size_t levels_left_;
  std::size_t empty_elements_left_;
};

}  // namespace procpool
