// SPDX-License-Identifier: MIT
/// @file
/// encoder: turns values into bytes.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <procpool/codec/limits.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/codec/encodable.hpp>
#include <procpool/detail/codec/type_diagnostics.hpp>

namespace procpool {

/// Appends the encodings of values to memory, or only counts their bytes. The encoding must start
/// at an address that is a multiple of 16, so that views into it are aligned. One thread at a time.
/// After an exception the bytes written so far cannot be decoded. Python: pickle.dumps().
class encoder {
 public:
  /// Appends to `out`, which grows as needed and must outlive the encoder. put() throws
  /// std::bad_alloc when there is no memory.
  explicit encoder(detail::byte_buffer& out) noexcept
      : area_(&out.area()), buffer_(&out), begin_(out.size()) {}

  /// Writes to the `out.size()` bytes of `out`. put() throws std::length_error when they are full.
  explicit encoder(std::span<std::byte> out) noexcept : own_{out.data(), 0, out.size()} {}

  /// An encoder that writes nothing and only counts: see size(). Contiguous data of any length
  /// takes constant time.
  [[nodiscard]] static encoder counting() noexcept { return encoder(counting_only{}); }

  encoder(const encoder&) = delete;
  encoder& operator=(const encoder&) = delete;

  /// Appends the encoding of `value`.
  /// @throws std::bad_alloc or std::length_error if the memory is full, see the constructors;
  /// std::length_error if the value nests deeper or has more empty elements than a decoder accepts
  /// (decode_limits); std::invalid_argument for a std::variant without value
  template <class T>
  void put(const T& value) {
    using type = std::remove_cv_t<T>;
    if constexpr (detail::is_flat_v<type>) {
      bytes(&reinterpret_cast<const std::byte&>(value), sizeof(type));
    } else if constexpr (!detail::has_codec<type>) {
      detail::explain<type>();
    } else if constexpr (detail::adds_level_v<type>) {
      if (levels_left_ == 0) too_deep();
      const detail::level_guard level(levels_left_);
      codec<type>::encode(*this, value);
    } else {
      codec<type>::encode(*this, value);
    }
  }

  /// Appends the `n` bytes at `data` unchanged. @throws as put()
  [[gnu::always_inline]] void bytes(const void* data, std::size_t n) {
    detail::byte_area& area = *area_;
    if (n > area.capacity - area.size) [[unlikely]] {
      if (!make_room(n)) return;
    }
    if (n == 0) return;  // memcpy takes no null pointer
    std::memcpy(area.data + area.size, data, n);
    area.size += n;
  }

  /// Appends zeros until size() is a multiple of `alignment`, a power of two up to 16.
  void align(std::size_t alignment) {
    static constexpr std::byte zeros[detail::byte_buffer::alignment] = {};
    bytes(zeros, (0 - size()) & (alignment - 1));
  }

  /// Appends a number of elements, for decoder::count().
  void count(std::size_t n) { put(std::uint64_t{n}); }

  /// Starts a part, with its length in front, for decoder::part(). @returns where it starts
  [[nodiscard]] std::size_t begin_part() {
    put(std::uint64_t{0});
    return size();
  }
  /// Ends the part that starts at `begin`.
  void end_part(std::size_t begin) {
    if (counting_) return;
    const std::uint64_t length = size() - begin;
    std::memcpy(area_->data + begin_ + begin - sizeof length, &length, sizeof length);
  }

  /// Whether put() has thrown std::length_error because memory of a fixed size was full.
  [[nodiscard]] bool overflowed() const noexcept { return overflowed_; }

  /// Whether it only counts: what is put is not sent.
  [[nodiscard]] bool is_counting() const noexcept { return counting_; }

  /// Bytes put so far.
  [[nodiscard]] std::size_t size() const noexcept { return area_->size - begin_ + counted_; }

  /// To be called by codecs of containers for each element that took no bytes.
  /// @param size of the element in memory, in bytes
  void pass_empty_element(std::size_t size) {
    if (empty_elements_left_ < size) too_many_elements();
    empty_elements_left_ -= size;
  }

 private:
  struct counting_only {};
  explicit encoder(counting_only) noexcept : counting_(true) {}

  [[gnu::noinline]] bool make_room(std::size_t n) {
    if (counting_) {
      counted_ += n;
      return false;
    }
    if (buffer_ == nullptr) full(n);
    buffer_->make_room(n);
    return true;
  }

  [[noreturn, gnu::cold]] void full(std::size_t n) {
    overflowed_ = true;
    throw std::length_error(detail::concat(
        {"an encoding of at least ", size() + n, " bytes does not fit into ", own_.capacity}));
  }
  [[noreturn, gnu::cold]] static void too_deep() {
    throw std::length_error(
        detail::concat({"a value nests deeper than ", decode_limits{}.max_depth, " levels"}));
  }
  [[noreturn, gnu::cold]] static void too_many_elements() {
    throw std::length_error("a value has too many elements that take no bytes");
  }

  detail::byte_area own_;
  detail::byte_area* area_ = &own_;
  detail::byte_buffer* buffer_ = nullptr;
  std::size_t begin_ = 0;
  std::size_t counted_ = 0;
  std::size_t levels_left_ = decode_limits{}.max_depth;
  std::size_t empty_elements_left_ = decode_limits{}.max_elements;
  bool counting_ = false;
  bool overflowed_ = false;
};

}  // namespace procpool
