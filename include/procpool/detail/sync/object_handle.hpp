// SPDX-License-Identifier: MIT
/// @file
/// What the handles of shared objects have in common.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/heap/held_object.hpp>

namespace procpool::detail {

/// An object for a constructor of its handle. Not object_ref, which 0 converts to.
struct from_object {
  object_ref object;
};

/// A handle: copies stand for the same object. To move one is to copy it: there is no handle
/// without an object.
class object_handle {
 public:
  object_handle(const object_handle&) noexcept = default;
  object_handle& operator=(const object_handle&) noexcept = default;

  /// Whether both stand for the same object.
  friend bool operator==(const object_handle& a, const object_handle& b) noexcept {
    return a.object_ == b.object_;
  }

 protected:
  ~object_handle() = default;
  explicit object_handle(from_object from) noexcept : object_(std::move(from.object)) {}
  /// A new object. @throws ProcessError
  explicit object_handle(object_kind kind, std::uint64_t type = 0)
      : object_(make_object(kind, type)) {}
  [[nodiscard]] object_record& record() const noexcept { return object_->record(); }

 private:
  friend struct object_access;
  object_ref object_;
};

/// For codecs and for objects that contain others.
struct object_access {
  [[nodiscard]] static const object_ref& object_of(const object_handle& handle) noexcept {
    return handle.object_;
  }
  template <std::derived_from<object_handle> Handle>
  [[nodiscard]] static Handle make(object_ref object) {
    return Handle(from_object{std::move(object)});
  }
};

/// A handle travels as that of its object.
template <class Handle, object_kind Kind>
struct object_codec : same_level {
  static constexpr std::size_t min_wire_size = sizeof(object_wire);

  static void encode(encoder& e, const Handle& handle) {
    put_object(e, object_access::object_of(handle));
  }
  static Handle decode(decoder& d) { return object_access::make<Handle>(get_object(d, Kind)); }
};

/// The handle of a lock, which may be the lock of another object. Kind and type travel before it.
template <class Handle, object_kind Own>
struct lock_codec : same_level {
  static constexpr std::size_t min_wire_size =
      sizeof(object_wire) + sizeof(object_kind) + sizeof(std::uint64_t);

  static void encode(encoder& e, const Handle& handle) {
    const object_ref& object = object_access::object_of(handle);
    // Relaxed: neither changes while the object is held.
    e.put(object->record().kind.load(std::memory_order_relaxed));
    e.put(object->record().type.load(std::memory_order_relaxed));
    put_object(e, object);
  }
  static Handle decode(decoder& d) {
    const auto kind = static_cast<object_kind>(d.get<std::uint32_t>());
    const auto type = d.get<std::uint64_t>();
    if (kind != Own && kind != object_kind::condition && kind != object_kind::value &&
        kind != object_kind::array) {
      d.fail("a handle of a shared object that has no lock");
    }
    return object_access::make<Handle>(get_object(d, kind, type));
  }
};

}  // namespace procpool::detail
