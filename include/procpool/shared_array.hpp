// SPDX-License-Identifier: MIT
/// @file
/// SharedArray: a large array that processes of one program read and write in place. See
/// docs/shared_array.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <ranges>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/bulk/bulk_memory.hpp>
#include <procpool/detail/heap/heap.hpp>

namespace procpool {

/// Elements of a SharedArray: their bytes are their value, in every process. No pointers.
template <class T>
concept shareable_element =
    std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> && !std::is_reference_v<T> &&
    !std::is_array_v<T> && !std::is_volatile_v<T>;

/// A part or all of an array in anonymous shared memory. A value: copies are the same elements.
///
///     SharedArray<double> data(1 << 27);                        // 1 GiB, all zero
///     pool.map([](SharedArray<double> part) {                   // each worker gets a part, and
///       for (double& x : part) x *= 2;                          // works on it in place
///     }, data.slices(64));
///
/// A handle travels in 40 bytes, whatever the size of the array: as an argument, a member of a
/// function object, an item, a result, under fork and spawn, to workers that were started before
/// the array was made. The receiver maps the memory; a process maps an array once. A receiver of
/// `SharedArray<const T>` maps it read-only: a write through a pointer ends that process with
/// SIGSEGV.
///
/// The memory lives until the last handle in any process is gone, however that process ends.
/// Nothing has a name, nothing is left behind. A process that dies leaves its elements as they were
/// when it died.
///
/// Any thread may use a handle as any other value. The elements have no lock: parts that do not
/// overlap need none; std::atomic_ref works across processes.
///
/// Python: multiprocessing.RawArray is the closest, which cannot be sent to a pool's task; with
/// numpy, an array over a SharedMemory.
template <class T>
class SharedArray {
  static_assert(shareable_element<T>,
                "procpool: elements of a SharedArray must be trivially copyable and no pointers: "
                "another process has other objects at the same address");

 public:
  using element_type = T;
  using value_type = std::remove_const_t<T>;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using pointer = T*;
  using iterator = T*;

  /// An empty array without memory.
  SharedArray() noexcept = default;

  /// A new array of @p size elements, whose bytes are zero. Its pages are reserved here, so that no
  /// later write fails. The memory is touched by who writes it first.
  /// @throws ProcessError: there is not enough memory (ENOMEM; what() says how much there is), more
  /// than 2 TiB (EFBIG), no descriptors; std::invalid_argument for a negative size
  explicit SharedArray(detail::number<std::size_t> size) requires(!std::is_const_v<T>)
      : memory_(size == 0 ? nullptr : detail::make_bulk(size, sizeof(T), tag)),
        data_(memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_->data())),
        size_(size) {}

  /// A new array with a copy of the elements of @p values. @throws as above
  template <std::ranges::sized_range Range>
    requires(std::convertible_to<std::ranges::range_reference_t<Range>, value_type> &&
             !std::is_const_v<T> && !std::same_as<std::remove_cvref_t<Range>, SharedArray>)
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): excluded above
  explicit SharedArray(Range&& values)
      : SharedArray(static_cast<std::size_t>(std::ranges::size(values))) {
    std::ranges::copy(values, data_);
  }

  /// The same elements, to be read only.
  template <class U>
    requires(std::is_const_v<T>&& std::same_as<U, value_type>)
  SharedArray(const SharedArray<U>& other)  // NOLINT: as for pointers
  noexcept : memory_(other.memory_), data_(other.data_), size_(other.size_) {}

  [[nodiscard]] T* data() const noexcept { return data_; }
  /// @returns the number of elements
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] T* begin() const noexcept { return data_; }
  [[nodiscard]] T* end() const noexcept { return data_ + size_; }
  /// The element at @p index, which must be less than size().
  [[nodiscard]] T& operator[](std::size_t index) const noexcept { return data_[index]; }
  /// The same, checked. @throws std::out_of_range
  [[nodiscard]] T& at(std::size_t index) const {
    if (index >= size_) detail::not_in_array(index, 1, size_);
    return data_[index];
  }
  [[nodiscard]] T& front() const noexcept { return data_[0]; }
  [[nodiscard]] T& back() const noexcept { return data_[size_ - 1]; }

  /// The elements as a span, which is valid as long as a handle exists in this process.
  [[nodiscard]] std::span<T> span() const noexcept { return {data_, size_}; }

  /// The @p count elements from @p offset on, as a handle of its own.
  /// @throws std::out_of_range if they are not all in this array
  [[nodiscard]] SharedArray subarray(std::size_t offset, std::size_t count) const {
    if (offset > size_ || count > size_ - offset) detail::not_in_array(offset, count, size_);
    SharedArray part;
    if (count == 0) return part;
    part.memory_ = memory_;
    part.data_ = data_ + offset;
    part.size_ = count;
    return part;
  }

  /// The array in @p count parts that follow each other, none empty: fewer if it has fewer
  /// elements. Their sizes differ by one at most. @throws std::invalid_argument if @p count is 0
  [[nodiscard]] std::vector<SharedArray> slices(std::size_t count) const {
    if (count == 0) throw std::invalid_argument("a SharedArray has at least one slice");
    count = std::min(count, size_);
    std::vector<SharedArray> parts;
    parts.reserve(count);
    for (std::size_t i = 0, at = 0; i < count; ++i) {
      const std::size_t length = size_ / count + (i < size_ % count ? 1 : 0);
      parts.push_back(subarray(at, length));
      at += length;
    }
    return parts;
  }

  /// Whether both are the same elements of the same array, in this process.
  friend bool operator==(const SharedArray& a, const SharedArray& b) noexcept {
    return a.data_ == b.data_ && a.size_ == b.size_;
  }

 private:
  template <class>
  friend class SharedArray;
  friend codec<SharedArray>;

  static constexpr std::uint64_t tag = detail::type_tag<value_type>();

  detail::bulk_ptr memory_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

template <std::ranges::sized_range Range>
SharedArray(Range&&) -> SharedArray<std::ranges::range_value_t<Range>>;

/// Travels as a handle. Decoding throws DecodeError if the array has ended, or is of another
/// program or type; ProcessError if it cannot be mapped.
template <class T>
struct codec<SharedArray<T>> : detail::same_level {
  static constexpr std::size_t min_wire_size = 2 * sizeof(std::uint64_t);
  static constexpr detail::extent_access access =
      std::is_const_v<T> ? detail::extent_access::read : detail::extent_access::read_write;

  static void encode(encoder& e, const SharedArray<T>& value) {
    detail::put_bulk(e, value.memory_, part_of(value));
  }
  static SharedArray<T> decode(decoder& d) {
    SharedArray<T> value;
    detail::bulk_part part;
    value.memory_ = detail::get_bulk(d, part, sizeof(T), SharedArray<T>::tag, access);
    if (value.memory_ == nullptr) return value;
    value.data_ = reinterpret_cast<T*>(value.memory_->data()) + part.offset;
    value.size_ = part.count;
    return value;
  }

 private:
  static detail::bulk_part part_of(const SharedArray<T>& value) noexcept {
    if (value.memory_ == nullptr) return {};
    const auto* const begin = reinterpret_cast<const T*>(value.memory_->data());
    return {static_cast<std::uint64_t>(value.data_ - begin), value.size_};
  }
};

}  // namespace procpool

/// Iterators remain valid without the handle they came from, as long as another one exists; but a
/// temporary handle may be the last.
template <class T>
inline constexpr bool std::ranges::enable_view<procpool::SharedArray<T>> = false;

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/bulk/bulk_access.hpp>
#endif
