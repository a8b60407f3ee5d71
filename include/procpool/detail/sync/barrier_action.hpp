// SPDX-License-Identifier: MIT
/// @file
/// Actions of Barriers. One travels as a place in the code, and only places where the program
/// itself has put an action are accepted: a message cannot make a process run anything else.
#pragma once

#include <cstdint>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/config.hpp>

namespace procpool::detail {

/// An action of this program, in a list that has all of them before main.
struct known_action {
  explicit known_action(void (*function)());

  void (*run)();
  const known_action* next = nullptr;
};

template <class Action>
struct barrier_action {
  static void run() { static_cast<void>(Action{}()); }
  static inline const known_action entry{&run};
};

/// @param action null: none
void put_action(encoder& e, void (*action)());
/// @throws DecodeError: it is no action
[[nodiscard]] auto get_action(decoder& d) -> void (*)();

/// @throws std::invalid_argument unless it is 1 to 4096
[[nodiscard]] std::uint32_t checked_parties(std::uint32_t parties);

}  // namespace procpool::detail
