// SPDX-License-Identifier: MIT
/// @file
/// What Value and Array have in common: a lock, their own or a given one; how a Value is stored.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/sync/object_handle.hpp>
#include <procpool/detail/sync/value_state.hpp>
#include <procpool/lock.hpp>

namespace procpool::detail {

/// A handle of an object with a lock. @tparam L Lock or RLock
template <class L>
class locked_handle : public object_handle {
  static_assert(std::same_as<L, Lock> || std::same_as<L, RLock>,
                "procpool: the lock of a Value or an Array is a Lock or an RLock");

 public:
  /// The lock: of this object alone, or the one that it was made with. Python: get_lock()
  [[nodiscard]] L& get_lock() const noexcept { return lock_; }

 protected:
  locked_handle(object_kind kind, std::uint64_t type)
      : object_handle(kind, type), lock_(object_access::make<L>(object())) {}
  locked_handle(object_kind kind, std::uint64_t type, const L& lock)
      : object_handle(kind, type), lock_(lock) {}
  explicit locked_handle(from_object from)
      : object_handle(std::move(from)), lock_(object_access::make<L>(object())) {}

  [[nodiscard]] const object_ref& object() const noexcept {
    return object_access::object_of(*this);
  }

  class held_lock {
   public:
    explicit held_lock(record_lock lock) : lock_(lock) { lock_.acquire(std::nullopt); }
    held_lock(const held_lock&) = delete;
    held_lock& operator=(const held_lock&) = delete;
    ~held_lock() {
      try {
        static_cast<void>(lock_.release());
      } catch (...) {  // another process has written over the lock
      }
    }

   private:
    record_lock lock_;
  };
  /// Has the lock as long as it exists.
  [[nodiscard]] held_lock guard() const {
    constexpr auto kind = std::same_as<L, RLock> ? lock_kind::recursive : lock_kind::plain;
    return held_lock(record_lock(object_access::object_of(lock_)->record(), kind));
  }

 private:
  template <class, object_kind>
  friend struct locked_codec;
  mutable L lock_;  ///< its own is in the record of this object
};

/// Travels with the lock that it was made with.
template <class Handle, object_kind Kind>
struct locked_codec : same_level {
  static constexpr std::size_t min_wire_size = sizeof(object_wire) + 1;

  static void encode(encoder& e, const Handle& handle) {
    put_object(e, object_access::object_of(handle));
    const bool given = object_access::object_of(handle.lock_) != object_access::object_of(handle);
    e.put(given);
    if (given) e.put(handle.lock_);
  }
  static Handle decode(decoder& d) {
    Handle handle(from_object{get_object(d, Kind, Handle::tag)});
    if (!handle.is_complete()) d.fail("a handle of an object that is too small for its type");
    if (d.get<bool>()) handle.lock_ = d.get<typename Handle::lock_type>();
    return handle;
  }
};

/// How a T lies in a Value.
template <class T>
class value_storage {
  static constexpr std::size_t words = (sizeof(T) + 7) / 8;
  static constexpr std::size_t copy_bytes = (words * 8 + alignof(T) - 1) / alignof(T) * alignof(T);

 public:
  /// One word, which is written by one store.
  static constexpr bool is_word = sizeof(T) <= 8;
  static constexpr std::size_t bytes = is_word ? 8 : 2 * copy_bytes;
  static constexpr bool can_be_atomic =
      sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8;

  value_storage() noexcept = default;
  explicit value_storage(const object_data& data) noexcept : data_(data) {}

  [[nodiscard]] bool is_complete() const noexcept { return data_.bytes() >= bytes; }

  [[nodiscard]] T& current(object_record& record) const noexcept {
    if constexpr (is_word) {
      return *reinterpret_cast<T*>(data_.begin());
    } else {
      return *reinterpret_cast<T*>(copies(record).current());
    }
  }
  [[nodiscard]] std::optional<T> read(object_record& record) const noexcept {
    std::array<std::uint64_t, copy_bytes / 8> raw;
    if constexpr (is_word) {
      raw[0] = __atomic_load_n(reinterpret_cast<const std::uint64_t*>(data_.begin()),
                               __ATOMIC_ACQUIRE);  // with what its writer did before
    } else {
      if (!copies(record).read(raw.data())) return std::nullopt;
    }
    return made_of(raw.data());
  }
  /// With the lock.
  void write(object_record& record, const T& value) const noexcept {
    std::array<std::uint64_t, copy_bytes / 8> raw{};
    std::memcpy(raw.data(), &value, sizeof(T));
    if constexpr (is_word) {
      __atomic_store_n(reinterpret_cast<std::uint64_t*>(data_.begin()), raw[0],
                       __ATOMIC_RELEASE);  // as in read()
    } else {
      copies(record).write(raw.data());
    }
  }

 private:
  [[nodiscard]] value_copies copies(object_record& record) const noexcept {
    return {record, data_.begin(), copy_bytes};
  }
  static T made_of(const std::uint64_t* raw) noexcept {
    std::array<std::byte, sizeof(T)> value;
    std::memcpy(value.data(), raw, sizeof(T));
    return std::bit_cast<T>(value);
  }

  object_data data_;
};

#ifdef __cpp_lib_atomic_ref
template <class T>
[[nodiscard]] std::atomic_ref<T> atomic_view(T& value) noexcept {
  return std::atomic_ref<T>(value);
}
#else  // libc++ before 19
template <class T>
[[nodiscard]] std::atomic<T>& atomic_view(T& value) noexcept {
  static_assert(sizeof(std::atomic<T>) == sizeof(T) && std::atomic<T>::is_always_lock_free);
  return reinterpret_cast<std::atomic<T>&>(value);
}
#endif

}  // namespace procpool::detail
