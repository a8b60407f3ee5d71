// SPDX-License-Identifier: MIT
/// @file
/// Takes the descriptors along that a value contains while it is encoded, and has them while it is
/// decoded. The codec of Connection calls it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>

#include <procpool/codec/decoder.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// For one message, on one thread.
class descriptor_carrier {
 public:
  /// Takes a descriptor along, which stays the caller's and must stay open until the message has
  /// been sent. @returns what take() finds it by
  virtual std::uint64_t put(int descriptor) = 0;
  /// @returns the descriptor; empty if there is none of that number, or it was taken before
  virtual os::fd take(std::uint64_t number) = 0;

  /// Whose turn it is on this thread; null: values are not on their way through a Connection.
  static os::per_thread_pointer<descriptor_carrier>& current() noexcept {
    static constinit os::per_thread_pointer<descriptor_carrier> carrier{"descriptor carrier"};
    return carrier;
  }

 protected:
  ~descriptor_carrier() = default;
};

/// Makes a carrier the current one for its lifetime.
class carrier_scope {
 public:
  explicit carrier_scope(descriptor_carrier& carrier)
      : before_(descriptor_carrier::current().exchange(&carrier)) {}
  carrier_scope(const carrier_scope&) = delete;
  carrier_scope& operator=(const carrier_scope&) = delete;
  ~carrier_scope() { descriptor_carrier::current() = before_; }

 private:
  descriptor_carrier* before_;
};

/// What stands for a descriptor in a message: a heap's, or the carrier's, which is no heap.
inline constexpr std::uint64_t no_heap = 0;

[[nodiscard]] inline descriptor_wire pass_descriptor(int descriptor) {
  auto* const carrier = descriptor_carrier::current().get();
  if (carrier == nullptr) return send_descriptor(descriptor);
  return {.heap = no_heap, .ticket = carrier->put(descriptor), .counted = 0};
}

/// @throws DecodeError when there is no such descriptor; ProcessError when the system refuses
[[nodiscard]] inline os::fd take_descriptor(decoder& in, const descriptor_wire& wire) {
  if (wire.heap == no_heap) {
    auto* const carrier = descriptor_carrier::current().get();
    os::fd found = carrier != nullptr ? carrier->take(wire.ticket) : os::fd();
    if (!found) in.fail("a descriptor that did not come along (are too many open here?)");
    return found;
  }
  try {
    return receive_descriptor(wire);
  } catch (const std::invalid_argument& error) {
    in.fail(error.what());
  }
}

}  // namespace procpool::detail
