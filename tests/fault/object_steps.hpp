// SPDX-License-Identifier: MIT
/// @file
/// A process is taken through one operation on a shared object, instruction by instruction, and
/// killed with SIGKILL after the first, the second, the third ... Each time the survivors must find
/// the object in order, and go on soon.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/detail/heap/heap.hpp>

#include "fault/stepper.hpp"
#include "support/shared.hpp"

namespace fault {

/// The operation, in the process that is killed. A plain function: a breakpoint is set on it.
using operation = void (*)();

struct object_attack {
  /// In the process to be killed, before the operation. It runs at full speed.
  std::function<void()> prepare = [] {};
  operation operate;
  /// In this process, after the death. @returns what is wrong; empty: nothing
  std::function<std::string()> survive;
};

struct object_tally {
  std::size_t instructions = 0;  ///< of the whole operation
  std::size_t kills = 0;
  std::vector<std::string> complaints;
  std::chrono::microseconds longest{0};  ///< that the survivors took
};

namespace detail {

struct attack_notes {
  std::atomic<int> go{0};
  std::atomic<int> done{0};
};

/// A child that waits for the order to begin.
inline pid_t start_victim(const object_attack& attack, attack_notes& notes) {
  notes.go = 0;
  notes.done = 0;
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    attack.prepare();
    notes.go = 1;
    while (notes.go != 2) ::sched_yield();
    attack.operate();
    notes.done = 1;
  } catch (...) {
    ::_exit(1);
  }
  for (;;) ::pause();
}

/// Runs it to the operation, then @p steps instructions of it. @returns how many there were
inline std::size_t advance(stepper& victim, const object_attack& attack, attack_notes& notes,
                           std::size_t steps) {
  const auto over = [&] { return notes.done != 0; };
  notes.go = 2;
  if (victim.run_to(reinterpret_cast<std::uintptr_t>(attack.operate), over) ==
      stepper::halt::over) {
    throw std::runtime_error("the operation was over before it began");
  }
  std::size_t count = 0;
  while (count < steps && notes.done == 0) {
    if (victim.step(over) == stepper::halt::over) break;
    ++count;
  }
  return count;
}

}  // namespace detail

/// @param budget roughly how many kills; with PROCPOOL_FULL=1 one at every instruction
inline object_tally kill_at_every_instruction(const object_attack& attack,
                                              std::size_t budget = 150) {
  const support::shared<detail::attack_notes> notes;
  object_tally tally;
  const auto run = [&](std::size_t steps) {
    const pid_t pid = detail::start_victim(attack, *notes);
    while (notes->go != 1) ::usleep(50);
    std::size_t count = 0;
    {
      stepper victim(pid);
      count = detail::advance(victim, attack, *notes, steps);
      victim.kill_it();
    }
    procpool::detail::process_was_reaped(pid);
    return count;
  };
  const auto look = [&](std::size_t steps) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string wrong = attack.survive();
    tally.longest = std::max(tally.longest, std::chrono::duration_cast<std::chrono::microseconds>(
                                                std::chrono::steady_clock::now() - begin));
    if (!wrong.empty()) {
      tally.complaints.push_back("killed after " + std::to_string(steps) + ": " + wrong);
    }
  };
  tally.instructions = run(~std::size_t{0});
  look(tally.instructions);
  const bool full = std::getenv("PROCPOOL_FULL") != nullptr;
  const std::size_t stride = full ? 1 : std::max<std::size_t>(1, tally.instructions / budget);
  for (std::size_t steps = 0; steps < tally.instructions && tally.complaints.size() < 5;
       steps += stride) {
    run(steps);
    ++tally.kills;
    look(steps);
  }
  return tally;
}

}  // namespace fault
