// SPDX-License-Identifier: MIT
/// @file
/// Value and Array, RawValue and RawArray: variables that processes share. See docs/value.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <algorithm>
#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/sync/object_handle.hpp>
#include <procpool/detail/sync/value_handle.hpp>
#include <procpool/detail/sync/value_state.hpp>
#include <procpool/lock.hpp>
#include <procpool/shared_array.hpp>

namespace procpool {

namespace detail {
/// The alignment of the data in a record.
template <class T>
concept shareable_value = shareable_element<T> && !std::is_const_v<T> && alignof(T) <= 32;
}  // namespace detail

/// A variable that processes share, with a lock. Copies stand for the same variable, and travel.
///
///     procpool::Value<long> counter{0};
///     counter.update([](long& v) { ++v; });
///     { std::scoped_lock guard(counter.get_lock()); counter.value() += 1; }
///     counter.atomic().fetch_add(1);   // without the lock: up to 8 bytes
///
/// get(), set() and update() are whole: a process that is killed in the middle of update() has
/// changed nothing, and no other process ever sees half of a value. What is done to value() is not;
/// the next one to take the lock can ask get_lock().owner_died(). Any thread of any process.
///
/// @tparam T trivially copyable, without pointers, aligned to at most 32 bytes. @tparam L Lock or
/// RLock. Python: multiprocessing.Value
template <class T, class L = RLock>
class Value : public detail::locked_handle<L> {
  static_assert(detail::shareable_value<T>,
                "procpool: a Value must be trivially copyable and no pointer: another process has "
                "other objects at the same address");
  using storage = detail::value_storage<T>;

 public:
  using value_type = T;

  /// @throws ProcessError when the system refuses memory
  Value() : Value(T{}) {}
  explicit Value(T initial) : detail::locked_handle<L>(detail::object_kind::value, tag) {
    begin(initial);
  }
  /// With a lock that guards other things as well.
  Value(T initial, const L& lock)
      : detail::locked_handle<L>(detail::object_kind::value, tag, lock) {
    begin(initial);
  }

  /// The variable itself. To be changed with the lock. Not to be kept: after the next update() of a
  /// value of more than 8 bytes the variable is at another place.
  [[nodiscard]] T& value() const noexcept { return storage_.current(this->record()); }

  /// A copy of the variable, whole. Needs no lock
  [[nodiscard]] T get() const {
    if (const auto copy = storage_.read(this->record())) return *copy;
    const auto guard = this->guard();  // it changes all the time
    return value();
  }
  /// Takes the lock and changes the variable. Python: value = ...
  void set(const T& value) {
    const auto guard = this->guard();
    storage_.write(this->record(), value);
  }
  /// Takes the lock, calls @p change with a copy of the variable, and makes it the variable. Does
  /// nothing if that throws. @returns the new value. Python: with get_lock(): value += 1
  template <std::invocable<T&> Change>
  T update(Change&& change) {
    const auto guard = this->guard();
    T copy = value();
    static_cast<void>(std::invoke(std::forward<Change>(change), copy));
    storage_.write(this->record(), copy);
    return copy;
  }

  /// The variable as a std::atomic_ref: without the lock. set() and update() may come between.
  [[nodiscard]] auto atomic() const noexcept requires(storage::can_be_atomic) {
    return detail::atomic_view(value());
  }

 private:
  friend struct detail::locked_codec<Value, detail::object_kind::value>;
  using lock_type = L;
  static constexpr std::uint64_t tag = detail::type_tag<T>();

  explicit Value(detail::from_object from) : detail::locked_handle<L>(std::move(from)) {
    storage_ = storage(detail::find_data(this->object()));
  }
  void begin(const T& initial) {
    storage_ = storage(detail::make_data(this->object(), storage::bytes, "a Value"));
    std::memcpy(static_cast<void*>(&value()), &initial, sizeof(T));
  }
  [[nodiscard]] bool is_complete() const noexcept { return storage_.is_complete(); }

  storage storage_;
};

/// A variable that processes share, without a lock. Copies stand for the same variable, and travel.
/// Python: multiprocessing.RawValue.
template <class T>
class RawValue : public detail::object_handle {
  static_assert(detail::shareable_value<T>,
                "procpool: a RawValue must be trivially copyable and no pointer: another process "
                "has other objects at the same address");

 public:
  using value_type = T;

  /// @throws ProcessError when the system refuses memory
  RawValue() : RawValue(T{}) {}
  explicit RawValue(T initial) : object_handle(detail::object_kind::value, tag) {
    data_ = detail::make_data(detail::object_access::object_of(*this), sizeof(T), "a RawValue");
    value() = initial;
  }

  /// The variable itself. Several processes that change it at once need a lock, or atomic().
  [[nodiscard]] T& value() const noexcept { return *reinterpret_cast<T*>(data_.begin()); }
  [[nodiscard]] auto atomic() const noexcept requires(detail::value_storage<T>::can_be_atomic) {
    return detail::atomic_view(value());
  }

 private:
  friend codec<RawValue>;
  static constexpr std::uint64_t tag = detail::type_tag<RawValue>();

  explicit RawValue(detail::from_object from) : object_handle(std::move(from)) {
    data_ = detail::find_data(detail::object_access::object_of(*this));
  }

  detail::object_data data_;
};

/// An array that processes share, with a lock, which its functions do not take. Copies stand for
/// the same array, and travel. A contiguous range: it converts to std::span.
///
///     procpool::Array<double> array(1000);
///     { std::scoped_lock guard(array.get_lock()); array[3] = 1.5; }
///
/// A process that dies leaves the elements as they were; get_lock().owner_died() tells.
/// @tparam T trivially copyable, without pointers. @tparam L Lock or RLock. Python:
/// multiprocessing.Array
template <class T, class L = RLock>
class Array : public detail::locked_handle<L> {
  static_assert(detail::shareable_value<T>,
                "procpool: elements of an Array must be trivially copyable and no pointers: "
                "another process has other objects at the same address");

 public:
  using element_type = T;
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using pointer = T*;
  using iterator = T*;

  /// @p size elements, whose bytes are zero. @throws ProcessError: there is not enough memory;
  /// std::invalid_argument: @p size is negative
  explicit Array(detail::number<std::size_t> size)
      : detail::locked_handle<L>(detail::object_kind::array, tag) {
    begin_with(size);
  }
  /// With a lock that guards other things as well.
  Array(detail::number<std::size_t> size, const L& lock)
      : detail::locked_handle<L>(detail::object_kind::array, tag, lock) {
    begin_with(size);
  }
  /// A copy of the elements of @p values. @throws as above
  template <std::ranges::sized_range Range>
    requires(std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
             !std::same_as<std::remove_cvref_t<Range>, Array>)
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): excluded above
  explicit Array(Range&& values) : Array(static_cast<std::size_t>(std::ranges::size(values))) {
    std::ranges::copy(values, begin());
  }
  Array(std::initializer_list<T> values) : Array(std::span<const T>(values)) {}

  /// @returns the number of elements
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] T* data() const noexcept { return reinterpret_cast<T*>(data_.begin()); }
  [[nodiscard]] T* begin() const noexcept { return data(); }
  [[nodiscard]] T* end() const noexcept { return data() + size_; }
  /// The element at @p index, which must be less than size().
  [[nodiscard]] T& operator[](std::size_t index) const noexcept { return data()[index]; }
  /// The same, checked. @throws std::out_of_range
  [[nodiscard]] T& at(std::size_t index) const {
    if (index >= size_) detail::not_in_array(index, 1, size_);
    return data()[index];
  }
  /// The elements, valid as long as a handle exists in this process. Python: get_obj()
  [[nodiscard]] std::span<T> span() const noexcept { return {data(), size_}; }

 private:
  friend struct detail::locked_codec<Array, detail::object_kind::array>;
  using lock_type = L;
  static constexpr std::uint64_t tag = detail::type_tag<T>();

  explicit Array(detail::from_object from) : detail::locked_handle<L>(std::move(from)) {
    use(detail::find_data(this->object()));
  }
  void begin_with(std::size_t size) {
    use(detail::make_data(this->object(), detail::bytes_of(size, sizeof(T)), "an Array"));
  }
  [[nodiscard]] bool is_complete() const noexcept { return true; }
  void use(const detail::object_data& data) noexcept {
    data_ = data;
    size_ = data_.bytes() / sizeof(T);
  }

  detail::object_data data_;
  std::size_t size_ = 0;
};

template <std::ranges::sized_range Range>
Array(Range&&) -> Array<std::ranges::range_value_t<Range>>;

/// An array that processes share, without a lock. Python: multiprocessing.RawArray.
template <class T>
using RawArray = SharedArray<T>;

template <class T, class L>
struct codec<Value<T, L>> : detail::locked_codec<Value<T, L>, detail::object_kind::value> {};
template <class T, class L>
struct codec<Array<T, L>> : detail::locked_codec<Array<T, L>, detail::object_kind::array> {};

template <class T>
struct codec<RawValue<T>> : detail::same_level {
  static constexpr std::size_t min_wire_size = sizeof(detail::object_wire);

  static void encode(encoder& e, const RawValue<T>& value) {
    detail::put_object(e, detail::object_access::object_of(value));
  }
  static RawValue<T> decode(decoder& d) {
    RawValue<T> value(
        detail::from_object{detail::get_object(d, detail::object_kind::value, RawValue<T>::tag)});
    if (value.data_.bytes() < sizeof(T)) d.fail("a RawValue that is too small for its type");
    return value;
  }
};

}  // namespace procpool

template <class T, class L>
inline constexpr bool std::ranges::enable_view<procpool::Array<T, L>> = false;

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/value_access.hpp>
#endif
