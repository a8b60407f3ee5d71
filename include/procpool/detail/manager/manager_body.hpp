// SPDX-License-Identifier: MIT
/// @file
/// A manager in the shared heap: who serves, and how to get a connection to it.
///
/// A client that needs a connection takes a free door by writing its owner_id into it, rings, and
/// waits. The server makes a pair of sockets, deposits one in the descriptor store, and adds the
/// ticket to the door. The client receives the socket and frees the door. A door is one word, so
/// each step is done or not, whoever dies. Doors of dead clients are freed by the server, and it
/// removes what they have not received: only the server ever leaves descriptors in the store.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>

namespace procpool::detail {

/// A door, as one word.
struct door_state {
  owner_id client = 0;       ///< 0: the door is free
  std::uint64_t ticket = 0;  ///< 33 bits; 0: none yet

  static constexpr std::uint64_t ticket_bits = 33;
  /// In place of a ticket: the server cannot make a connection.
  static constexpr std::uint64_t refused = (std::uint64_t{1} << ticket_bits) - 1;

  [[nodiscard]] constexpr std::uint64_t word() const noexcept {
    return std::uint64_t{client} << ticket_bits | ticket;
  }
  [[nodiscard]] static constexpr door_state of(std::uint64_t word) noexcept {
    return {static_cast<owner_id>(word >> ticket_bits), word & refused};
  }
};

struct manager_body {
  std::atomic<std::uint32_t> server;  ///< its owner_id; 0: it has not started yet
  std::atomic<std::uint32_t> ended;   ///< 1: it must end, or is about to
  std::array<std::atomic<std::uint64_t>, 30> doors;
};
static_assert(sizeof(manager_body) <= object_body_size);

/// Of the words of its record: counts what clients want of the server, which sleeps on it.
[[nodiscard]] inline std::atomic<std::uint32_t>& manager_bell(object_record& record) noexcept {
  return record.wait_words[0];
}
/// Counts what the server has done at the doors; clients sleep on it.
[[nodiscard]] inline std::atomic<std::uint32_t>& manager_news(object_record& record) noexcept {
  return record.wait_words[1];
}

}  // namespace procpool::detail
