// SPDX-License-Identifier: MIT
/// @file
/// The smallest shared object: a number in the shared heap, with a handle that can be sent.
#pragma once

#include <atomic>
#include <utility>

#include <procpool/detail/codec/handles.hpp>
#include <procpool/procpool.hpp>

namespace support {

class shared_number {
 public:
  explicit shared_number(long value = 0)
      : object_(procpool::detail::make_object(procpool::detail::object_kind::value, 77)) {
    number() = value;
  }
  explicit shared_number(procpool::detail::object_ref object) : object_(std::move(object)) {}

  [[nodiscard]] std::atomic<long>& number() const {
    return procpool::detail::body_as<std::atomic<long>>(object_->record());
  }
  [[nodiscard]] const procpool::detail::object_ref& object() const { return object_; }

 private:
  procpool::detail::object_ref object_;
};

/// Whether the record holds an object.
inline bool is_free(const procpool::detail::object_record& record) {
  return procpool::detail::record_state::of(record.state).phase ==
         procpool::detail::record_phase::free;
}

}  // namespace support

template <>
struct procpool::codec<support::shared_number> {
  static void encode(encoder& out, const support::shared_number& value) {
    detail::put_object(out, value.object());
  }
  static support::shared_number decode(decoder& in) {
    return support::shared_number(detail::get_object(in, detail::object_kind::value, 77));
  }
};
