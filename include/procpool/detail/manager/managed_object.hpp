// SPDX-License-Identifier: MIT
/// @file
/// An object in a manager's process, and a call of it as the code of the call sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/connection/descriptor_carrier.hpp>
#include <procpool/detail/heap/held_object.hpp>

namespace procpool::detail {

/// Its mutex is held while code uses it, as Python's lock of the interpreter is.
struct managed_object {
  explicit managed_object(std::uint64_t tag) noexcept : type(tag) {}
  managed_object(const managed_object&) = delete;
  managed_object& operator=(const managed_object&) = delete;
  virtual ~managed_object() = default;

  const std::uint64_t type;  ///< its type_tag()
  std::mutex mutex;
};

template <class T>
class managed_value final : public managed_object {
 public:
  template <class... A>
  explicit managed_value(std::in_place_t, A&&... arguments)
      : managed_object(type_tag<T>()), value_(make(std::forward<A>(arguments)...)) {}

  [[nodiscard]] T& value() noexcept { return value_; }

 private:
  template <class... A>
  static T make(A&&... arguments) {
    if constexpr (std::is_constructible_v<T, A...>) {
      return T(std::forward<A>(arguments)...);
    } else {
      return T{std::forward<A>(arguments)...};
    }
  }

  T value_;
};

/// One call in a manager's process, for its code.
class managed_call {
 public:
  managed_call(const managed_call&) = delete;
  managed_call& operator=(const managed_call&) = delete;

  /// What the client has sent.
  [[nodiscard]] virtual decoder& arguments() = 0;
  /// The object that is called. @throws DecodeError if there is none of this type
  [[nodiscard]] virtual std::shared_ptr<managed_object> object(std::uint64_t type) = 0;
  /// Keeps a new object. @throws DecodeError if there is one of this number
  virtual void keep(std::shared_ptr<managed_object> object) = 0;

  /// Of the client's message, to be current only while it is decoded: what the object does later
  /// sends other messages.
  [[nodiscard]] virtual descriptor_carrier& sent_along() = 0;

  /// Sets the result of the call. Without it there is none.
  template <class R>
  void put(const R& result) {
    byte_buffer& out = begin_result();
    const carrier_scope scope(returned_along());
    handle_scope sent(handle_delivery::repeated);
    encoder(out).put(result);
    keep_handles(sent.take());
  }

 protected:
  managed_call() = default;
  ~managed_call() = default;

  /// Where the result goes, after the head of the reply.
  [[nodiscard]] virtual byte_buffer& begin_result() = 0;
  [[nodiscard]] virtual descriptor_carrier& returned_along() = 0;
  virtual void keep_handles(std::shared_ptr<void> handles) noexcept = 0;
};

}  // namespace procpool::detail
