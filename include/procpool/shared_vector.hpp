// SPDX-License-Identifier: MIT
/// @file
/// shared_vector: a vector that comes back from a task without a copy. See docs/shared_array.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/bulk/vector_memory.hpp>
#include <procpool/shared_array.hpp>

namespace procpool {

/// A std::vector of trivially copyable elements that is sent without a copy when it is large (256
/// KiB or more), for results of tasks above all:
///
///     shared_vector<double> make(std::size_t n) {
///       shared_vector<double> values(n);
///       ...
///       return values;
///     }
///     auto values = pool.apply(make, 1 << 23);   // 64 MiB: its descriptor travels
///
/// It is sealed when it is sent: the kernel lets nobody write the memory any more, so that a worker
/// that runs wild cannot change what the program has received. Both sides may go on writing all the
/// same: a page is copied when it is written first. Pointers into the vector remain valid for
/// reading; take them anew to write. To share memory that both sides see change, send a
/// SharedArray.
///
/// A large vector has a descriptor in the process that made it. About 250 of them can be on their
/// way at the same time; a sender waits for 10 s when there are more. A vector that was received
/// and is sent on is copied once.
///
/// One thread at a time, as std::vector; sending it counts as writing. If a process dies, vectors
/// that others received from it stay as they are.
///
/// Python: nothing like it; a pool's results are pickled and copied twice.
template <shareable_element T>
  requires(!std::is_const_v<T>)
class shared_vector {
  static_assert(alignof(T) <= detail::vector_memory::alignment);

 public:
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using const_reference = const T&;
  using iterator = T*;
  using const_iterator = const T*;

  shared_vector() noexcept = default;
  /// @p size elements whose bytes are zero; of a large vector they are not touched yet.
  /// @throws ProcessError when there is not enough memory, or no descriptor; std::length_error
  explicit shared_vector(std::size_t size) { resize(size); }
  /// @p size copies of @p value. @throws as above
  shared_vector(std::size_t size, const T& value) {
    reserve(size);
    std::uninitialized_fill_n(begin_of_all(), size, value);
    size_ = size;
  }
  shared_vector(std::initializer_list<T> values)
      : shared_vector(std::span(values.begin(), values.size())) {}
  /// A copy of the elements of @p values. @throws as above
  template <std::ranges::sized_range Range>
    requires(std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
             !std::same_as<std::remove_cvref_t<Range>, shared_vector>)
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): excluded above
  explicit shared_vector(Range&& values) {
    const auto count = static_cast<std::size_t>(std::ranges::size(values));
    reserve(count);
    std::ranges::copy(values, begin_of_all());
    size_ = count;
  }
  shared_vector(const shared_vector& other) : shared_vector(other.span()) {}
  shared_vector& operator=(const shared_vector& other) {
    if (this != &other) *this = shared_vector(other);
    return *this;
  }
  shared_vector(shared_vector&& other) noexcept
      : memory_(std::move(other.memory_)),
        size_(std::exchange(other.size_, 0)),
        used_(std::exchange(other.used_, 0)) {}
  shared_vector& operator=(shared_vector&& other) noexcept {
    memory_ = std::move(other.memory_);
    std::swap(size_, other.size_);
    std::swap(used_, other.used_);
    return *this;
  }
  ~shared_vector() = default;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t capacity() const noexcept { return memory_.capacity() / sizeof(T); }
  [[nodiscard]] T* data() noexcept { return begin_of_all(); }
  [[nodiscard]] const T* data() const noexcept {
    return reinterpret_cast<const T*>(memory_.data());
  }
  [[nodiscard]] T* begin() noexcept { return data(); }
  [[nodiscard]] T* end() noexcept { return data() + size_; }
  [[nodiscard]] const T* begin() const noexcept { return data(); }
  [[nodiscard]] const T* end() const noexcept { return data() + size_; }
  [[nodiscard]] T& operator[](std::size_t index) noexcept { return data()[index]; }
  [[nodiscard]] const T& operator[](std::size_t index) const noexcept { return data()[index]; }
  /// Checked. @throws std::out_of_range
  [[nodiscard]] T& at(std::size_t index) {
    if (index >= size_) detail::not_in_array(index, 1, size_);
    return data()[index];
  }
  [[nodiscard]] const T& at(std::size_t index) const {
    if (index >= size_) detail::not_in_array(index, 1, size_);
    return data()[index];
  }
  [[nodiscard]] T& front() noexcept { return data()[0]; }
  [[nodiscard]] T& back() noexcept { return data()[size_ - 1]; }
  [[nodiscard]] const T& front() const noexcept { return data()[0]; }
  [[nodiscard]] const T& back() const noexcept { return data()[size_ - 1]; }
  [[nodiscard]] std::span<const T> span() const noexcept { return {data(), size_}; }

  /// Makes room. A large vector grows without a copy: its pages are mapped anew. @throws as above
  void reserve(std::size_t count) {
    if (count > max_size()) throw std::length_error("a shared_vector cannot be that long");
    if (count > capacity()) memory_.grow(size_ * sizeof(T), count * sizeof(T));
  }
  /// New elements have zero bytes. @throws as above
  void resize(std::size_t count) {
    reserve(count);
    used_ = std::max(used_, size_);
    // A file's pages are zero until they are written.
    const std::size_t end = memory_.begins_as_zeros() ? std::min(count, used_) : count;
    if (end > size_)
      std::memset(static_cast<void*>(begin_of_all() + size_), 0, (end - size_) * sizeof(T));
    size_ = count;
  }
  void push_back(const T& value) {
    const T copy = value;  // it may be an element
    if (size_ == capacity()) reserve(std::max<std::size_t>(16, size_ + size_ / 2));
    begin_of_all()[size_++] = copy;
  }
  template <class... A>
  T& emplace_back(A&&... arguments) {
    push_back(T(std::forward<A>(arguments)...));
    return back();
  }
  void pop_back() noexcept {
    used_ = std::max(used_, size_);
    --size_;
  }
  void clear() noexcept {
    used_ = std::max(used_, size_);
    size_ = 0;
  }
  [[nodiscard]] static constexpr std::size_t max_size() noexcept {
    return (std::size_t{1} << 46U) / sizeof(T);
  }

  friend bool operator==(const shared_vector& a,
                         const shared_vector& b) requires(std::equality_comparable<T>) {
    return std::ranges::equal(a.span(), b.span());
  }

 private:
  friend codec<shared_vector>;

  [[nodiscard]] T* begin_of_all() noexcept {
    memory_.will_be_written();
    return reinterpret_cast<T*>(memory_.data());
  }

  mutable detail::vector_memory memory_;  // sending seals it, which does not change the elements
  std::size_t size_ = 0;
  std::size_t used_ = 0;  ///< elements from here and from size_ on were never written
};

/// Small vectors travel as their elements, large ones as a descriptor.
template <class T>
struct codec<shared_vector<T>> : detail::same_level {
  static constexpr std::size_t min_wire_size = 1 + sizeof(std::uint64_t);

  static void encode(encoder& e, const shared_vector<T>& value) {
    value.memory_.put(e, value.size_ * sizeof(T), sizeof(T));
  }
  static shared_vector<T> decode(decoder& d) {
    shared_vector<T> value;
    std::size_t used = 0;
    value.memory_ = detail::vector_memory::get(d, used, sizeof(T));
    value.size_ = used / sizeof(T);
    return value;
  }
};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/bulk/vector_file.hpp>
#endif
