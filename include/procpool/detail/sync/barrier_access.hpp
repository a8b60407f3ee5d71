// SPDX-License-Identifier: MIT
/// @file
/// Implements barrier_state.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/sync/barrier_state.hpp>
#include <procpool/detail/sync/semaphore_access.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The list of known actions: one in a process, whatever its modules see of each other.
struct action_list {
  std::atomic<const known_action*> first{nullptr};

  static action_list& instance() {
    static auto& list = os::one_per_process<action_list>("barrier actions");
    return list;
  }
};

PROCPOOL_FUNCTION known_action::known_action(void (*function)()) : run(function) {
  auto& first = action_list::instance().first;
  next = first.load(std::memory_order_relaxed);  // checked by the exchange
  while (!first.compare_exchange_weak(next, this, std::memory_order_release)) {  // with its members
  }
}

PROCPOOL_FUNCTION void put_action(encoder& e, void (*action)()) {
  const code_ref code =
      action == nullptr ? code_ref{} : find_code(reinterpret_cast<std::uintptr_t>(action));
  e.put(code.offset);
  e.put(code.module);
}

PROCPOOL_FUNCTION auto get_action(decoder& d) -> void (*)() {
  const auto offset = d.get<std::uint64_t>();
  const auto module = d.get<std::uint32_t>();
  if (offset == 0 && module == 0) return nullptr;
  const known_action* each =
      action_list::instance().first.load(std::memory_order_acquire);  // with its members
  for (; each != nullptr; each = each->next) {
    const code_ref code = find_code(reinterpret_cast<std::uintptr_t>(each->run));
    if (code.offset == offset && code.module == module) return each->run;
  }
  d.fail("an action of a Barrier that this program does not have");
}

PROCPOOL_FUNCTION std::uint32_t checked_parties(std::uint32_t parties) {
  if (parties == 0 || parties > max_parties) {
    throw std::invalid_argument(concat({"a Barrier has 1 to ", max_parties, " parties"}));
  }
  return parties;
}

/// Has the lock of a Barrier as long as it exists.
class barrier_access::guard {
 public:
  /// @throws BrokenBarrier: the time is over, while another one runs the action
  guard(barrier_access& barrier, const os::deadline& until)
      : word_(barrier.record_->wait_words[1]) {
    if (acquire_owner_word(word_, this_owner(), until) == acquired::no) {
      throw BrokenBarrier(
          "the time of a wait is over, while another one runs the Barrier's action");
    }
    // A full generation: its last member has died while it ran the action.
    if (barrier.state().count >= barrier.parties()) barrier.finish(true, true);
  }
  guard(const guard&) = delete;
  guard& operator=(const guard&) = delete;
  ~guard() { release_owner_word(word_); }

 private:
  std::atomic<std::uint32_t>& word_;
};

inline os::time_point in_a_moment() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(1);
}

// With the lock. The sleepers' flag stays unless all are woken.
PROCPOOL_FUNCTION void barrier_access::change(barrier_word to) noexcept {
  std::uint32_t seen = word().load(std::memory_order_relaxed);  // checked by the exchange
  while (!word().compare_exchange_weak(seen, to.word() | (seen & has_sleepers),
                                       std::memory_order_seq_cst)) {  // publishes
  }
}

// With the lock. One store ends the generation for all. What came of it is written before.
PROCPOOL_FUNCTION void barrier_access::finish(bool failed, bool broken) noexcept {
  auto& failures = body_as<barrier_state>(*record_).failures;
  const std::uint32_t generation = state().generation;
  const std::uint64_t bit = std::uint64_t{1} << generation % 64;
  if (failed) {
    failures.fetch_or(bit, std::memory_order_relaxed);  // published by the word
  } else {
    failures.fetch_and(~bit, std::memory_order_relaxed);
  }
  const std::uint32_t before = word().exchange(barrier_word{0, generation + 1, broken}.word(),
                                               std::memory_order_seq_cst);  // publishes
  if ((before & has_sleepers) != 0) wake_all(word());
}

PROCPOOL_FUNCTION bool barrier_access::is_over(const place& mine) const noexcept {
  return state().generation != mine.generation;
}

PROCPOOL_FUNCTION void barrier_access::break_generation(const place& mine) {
  const guard lock(*this, in_a_moment());
  if (!is_over(mine)) finish(true, true);
}

// @returns true: this one was the last, and the generation has passed
PROCPOOL_FUNCTION bool barrier_access::arrive(void (*action)(), const os::deadline& until,
                                              place& mine) {
  // Some time, even for a wait that is over at once: the lock is free in a moment.
  const guard lock(*this, until ? std::max(*until, in_a_moment()) : until);
  const barrier_word now = state();
  // Full: only if it was scribbled over.
  if (now.broken || now.count >= parties()) {
    throw BrokenBarrier("the Barrier is broken: call reset()");
  }
  mine = {now.generation, now.count};
  cells_[now.count].store(this_owner(), std::memory_order_relaxed);  // published by the word
  const bool last = now.count + 1 == parties();
  if (!last || action != nullptr) change({now.count + 1, now.generation, false});
  if (!last) return false;
  try {
    if (action != nullptr) action();
  } catch (...) {
    finish(true, true);
    throw;
  }
  finish(false, false);
  return true;
}

// Each waits with an eye on the one that came before it, the first on the last: as long as one of
// them lives, a death is noticed.
PROCPOOL_FUNCTION bool barrier_access::neighbour_is_dead(const place& mine) const noexcept {
  const std::uint32_t count = std::min(state().count, parties());
  const std::uint32_t other = mine.number != 0 ? mine.number - 1 : count - 1;
  if (count == 0 || mine.number >= count) return false;
  const owner_id owner = cells_[other].load(std::memory_order_relaxed);  // see arrive()
  return owner_is_dead(owner) && !is_over(mine);
}

PROCPOOL_FUNCTION void barrier_access::await(const place& mine, const os::deadline& until) {
  wait_slices slices;
  while (!is_over(mine)) {
    std::uint32_t seen = word().load(std::memory_order_relaxed);  // checked by the sleep
    if (barrier_word::of(seen).generation != mine.generation) return;
    if ((seen & has_sleepers) == 0 &&
        !word().compare_exchange_strong(seen, seen | has_sleepers, std::memory_order_relaxed))
      continue;  // announce the sleep
    const bool in_time = slices.sleep(word(), seen | has_sleepers, until);
    if (is_over(mine)) return;
    if (!in_time || neighbour_is_dead(mine)) return break_generation(mine);
  }
}

PROCPOOL_FUNCTION std::uint32_t barrier_access::wait(void (*action)(), const os::deadline& until) {
  place mine{};
  if (arrive(action, until, mine)) return mine.number;
  await(mine, until);
  const auto failures =
      body_as<barrier_state>(*record_).failures.load(std::memory_order_relaxed);  // see finish()
  if ((failures >> mine.generation % 64 & 1U) != 0) {
    throw BrokenBarrier("the Barrier was broken or reset while this thread waited");
  }
  return mine.number;
}

PROCPOOL_FUNCTION void barrier_access::reset() {
  const guard lock(*this, std::nullopt);
  finish(true, false);
}

PROCPOOL_FUNCTION void barrier_access::abort() {
  const guard lock(*this, std::nullopt);
  finish(true, true);
}

}  // namespace procpool::detail
