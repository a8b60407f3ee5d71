// SPDX-License-Identifier: MIT
/// @file
/// A value as a message of Connection: its encoding. Descriptors that the value contains travel
/// beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/descriptor_carrier.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>

namespace procpool::detail {

class sent_descriptors final : public descriptor_carrier {
 public:
  std::uint64_t put(int descriptor) override {
    numbers_.push_back(descriptor);
    return numbers_.size() - 1;
  }
  os::fd take(std::uint64_t) override { return {}; }
  [[nodiscard]] std::span<const int> numbers() const noexcept { return numbers_; }

 private:
  std::vector<int> numbers_;
};

class received_descriptors final : public descriptor_carrier {
 public:
  std::uint64_t put(int) override { return 0; }
  os::fd take(std::uint64_t number) override {
    return number < all_.size() ? os::off_stdio(std::move(all_[number])) : os::fd();
  }
  [[nodiscard]] std::vector<os::fd>& all() noexcept { return all_; }

 private:
  std::vector<os::fd> all_;
};

/// Objects whose handles the value contains are in transit until it is decoded.
template <class T>
void send_value(connection_state& connection, const T& value) {
  byte_buffer& out = connection.new_message();
  if constexpr (may_carry_handles_v<T>) {
    sent_descriptors along;
    handle_scope objects(handle_delivery::once);
    {
      const carrier_scope scope(along);
      encoder(out).put(value);
    }
    objects.commit();
    connection.send_message(along.numbers());
  } else {
    encoder(out).put(value);
    connection.send_message({});
  }
}

template <class T>
T receive_value(connection_state& connection) {
  received_descriptors along;  // closed in any case
  std::optional<carrier_scope> scope;
  if constexpr (may_carry_handles_v<T>) scope.emplace(along);
  decoder in(connection.receive(connection_state::no_limit,
                                may_carry_handles_v<T> ? &along.all() : nullptr));
  T value = in.get<T>();
  in.finish();
  return value;
}

}  // namespace procpool::detail
