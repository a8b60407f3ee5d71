// SPDX-License-Identifier: MIT
/// @file
/// A Barrier: one word says which generation is filling, how many wait, whether it is broken. An
/// owner word guards its changes; waiters only read it.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/owner_cells.hpp>

namespace procpool::detail {

inline constexpr std::uint32_t max_parties = 4096;

/// wait_words[0] of a Barrier.
struct barrier_word {
  std::uint32_t count = 0;       ///< 13 bits: how many wait in this generation
  std::uint32_t generation = 0;  ///< 17 bits
  bool broken = false;

  static constexpr std::uint32_t generations = 1U << 17U;

  [[nodiscard]] constexpr std::uint32_t word() const noexcept {
    return count | (generation % generations) << 13U | (broken ? 1U << 30U : 0U);
  }
  [[nodiscard]] static constexpr barrier_word of(std::uint32_t word) noexcept {
    return {word & 0x1FFFU, word >> 13U & (generations - 1), (word >> 30U & 1U) != 0};
  }
};

/// The body of a Barrier. Cell i names the process whose thread came as number i. wait_words[1] is
/// the lock.
struct barrier_state {
  std::atomic<std::uint64_t> failures;  ///< bit g % 64: generation g was broken or reset
  cell_state cells;
};
static_assert(sizeof(barrier_state) <= object_body_size);

/// A Barrier in this process. A value: it refers to the object. Any thread.
class barrier_access {
 public:
  barrier_access(object_record& record, const owner_cells& cells) noexcept
      : record_(&record), cells_(cells.all()) {}

  /// @param action run by the last one to come; may be null
  /// @returns the number of this thread, from 0, in the order of coming
  /// @throws BrokenBarrier; what @p action throws
  std::uint32_t wait(void (*action)(), const os::deadline& until);
  void reset();
  void abort();

  [[nodiscard]] barrier_word state() const noexcept {
    return barrier_word::of(word().load(std::memory_order_acquire));  // with what came before
  }
  [[nodiscard]] std::uint32_t parties() const noexcept {
    return static_cast<std::uint32_t>(cells_.size());
  }

 private:
  class guard;
  struct place {
    std::uint32_t generation;
    std::uint32_t number;
  };

  [[nodiscard]] std::atomic<std::uint32_t>& word() const noexcept { return record_->wait_words[0]; }
  [[nodiscard]] bool arrive(void (*action)(), const os::deadline& until, place& mine);
  [[nodiscard]] bool is_over(const place& mine) const noexcept;
  void await(const place& mine, const os::deadline& until);
  void change(barrier_word to) noexcept;
  void finish(bool failed, bool broken) noexcept;
  void break_generation(const place& mine);
  [[nodiscard]] bool neighbour_is_dead(const place& mine) const noexcept;

  object_record* record_;
  std::span<owner_cell> cells_;
};

// Actions. One travels as a place in the code, and only places where the program itself has put an
// action are accepted: a message cannot make a process run anything else.

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
