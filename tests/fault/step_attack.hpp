// SPDX-License-Identifier: MIT
/// @file
/// A worker of a pool is taken through its task step by step and killed after so many instructions;
/// then what became of the task is compared with what the workers themselves have noted.
///
/// First the whole path is stepped once and noted down. To come to the n-th instruction of it
/// again, the worker may run to a breakpoint, where the path came to some address before n for the
/// first time, and is stepped from there.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "fault/stepper.hpp"
#include "support/processes.hpp"

namespace fault {

// ---- what runs in the workers ------------------------------------------------------------------

/// At most so many items run in one round of an attack. A task's argument is round * most_items +
/// the item's index.
inline constexpr int most_items = 8;

/// What ran, as the workers saw it. In shared memory.
struct record {
  std::array<std::atomic<pid_t>, most_items> by;
  std::array<std::atomic<int>, most_items> runs;
  std::atomic<bool> door_open;
};
inline record* notes = nullptr;

/// To be called by every task.
inline void note_run(int x) {
  const auto item = static_cast<std::size_t>(x % most_items);
  notes->by[item] = getpid();
  ++notes->runs[item];
}

inline int small_value(int x) {
  return 7 * x + 3;
}
inline int small_task(int x) {
  note_run(x);
  return small_value(x);
}

// ---- what came of it ---------------------------------------------------------------------------

struct ending {
  enum class kind_type { value, died, wrong } kind;
  std::string text = {};  ///< of the exception
  pid_t pid = 0;          ///< whom WorkerDied names
  std::size_t item = 0;
};

/// What @p get gives or throws, against the value that it should give.
template <class Value, class Get>
ending ending_of(const Value& wanted, Get get) {
  using kind = ending::kind_type;
  try {
    if (get() == wanted) return {kind::value};
    return {kind::wrong, "not its value"};
  } catch (const procpool::WorkerDied& error) {
    const bool killed = error.exitcode() == -SIGKILL && error.item().has_value();
    if (!killed) return {kind::wrong, error.what()};
    return {kind::died, error.what(), error.pid(), *error.item()};
  } catch (const std::exception& error) {  // TimeoutError, for one
    return {kind::wrong, error.what()};
  }
}

/// Waits for all results of a round, in order.
using result_processor = std::function<std::vector<ending>()>;

/// A thread that waits for the results, and so drives the pool while its worker is stepped.
class driver {
 public:
  explicit driver(result_processor collect)
      : collect_(std::move(collect)), thread_([this] { run(); }) {}
  driver(const driver&) = delete;
  driver& operator=(const driver&) = delete;
  ~driver() {
    if (thread_.joinable()) thread_.join();
  }

  /// Returns when it has nothing more to do for now, so that every round begins alike.
  void settle() const {
    while (id_ == 0) std::this_thread::yield();
    await_sleep(id_);
  }
  [[nodiscard]] bool done() const noexcept { return done_; }
  [[nodiscard]] std::vector<ending> results() {
    thread_.join();
    return std::move(results_);
  }

 private:
  void run() {
    id_ = gettid();
    results_ = collect_();
    done_ = true;
  }

  result_processor collect_;
  std::vector<ending> results_;
  std::atomic<pid_t> id_{0};
  std::atomic<bool> done_{false};
  std::thread thread_;  // last: it uses the others
};

// ---- the attack --------------------------------------------------------------------------------

struct scenario {
  /// Submits the tasks of this round.
  std::function<result_processor(procpool::Pool<>&, int round)> launch;
  /// Goes before it and returns whom to attack. Empty: the worker that ran the last task.
  std::function<pid_t(procpool::Pool<>&, int round)> prepare = {};
  bool one_task = true;  ///< the items are one chunk
  bool wanders = false;  ///< let run, its path may be another than the one that was stepped
  bool newborn = false;  ///< attacked is the worker that takes that one's place, as it comes up
};

struct tally {
  std::size_t kills = 0;
  std::size_t own = 0;        ///< values from the worker that was killed
  std::size_t others = 0;     ///< values from another
  std::size_t deaths = 0;     ///< WorkerDied
  std::size_t elsewhere = 0;  ///< kills at another instruction than planned
  std::size_t wrong = 0;
  std::vector<std::string> complaints;  ///< the first of them
};

class step_attack {
 public:
  step_attack(procpool::Pool<>& pool, scenario what, unsigned seed)
      : pool_(pool), what_(std::move(what)), random_(seed) {
    run_next();
    learn();
  }

  /// The number of instructions of the whole task.
  [[nodiscard]] std::size_t length() const noexcept { return path_.size(); }

  /// Kills the worker after this many instructions.
  void kill_after(std::size_t instructions, bool with_short_cut) {
    round(instructions, [&](stepper& victim, auto over) {
      const std::size_t from = with_short_cut ? checkpoint(instructions) : 0;
      advance(victim, from, instructions, over);
    });
    tried_.insert(std::min(instructions, length()));
  }

  /// How many single steps a short cut to this place leaves.
  [[nodiscard]] std::size_t steps_behind(std::size_t instructions) const {
    return instructions - checkpoint(instructions);
  }

  [[nodiscard]] const tally& counts() const noexcept { return tally_; }
  /// How many different numbers of instructions were tried.
  [[nodiscard]] std::size_t places() const noexcept { return tried_.size(); }

  /// The more was executed, the more outcomes are the victim's. By how many instructions this was
  /// not so, at most.
  [[nodiscard]] std::size_t relapse() {
    std::sort(progress_.begin(), progress_.end());
    std::vector<std::size_t> reached;  // by progress: after how many instructions first
    std::size_t most = 0;
    for (const auto& [instructions, progress] : progress_) {
      if (progress + 1 < reached.size()) {
        most = std::max(most, instructions - reached[progress + 1]);
      }
      while (reached.size() <= progress) reached.push_back(instructions);
    }
    return most;
  }

 private:
  static constexpr std::size_t to_the_end = std::numeric_limits<std::size_t>::max();

  void learn() {
    round(to_the_end, [&](stepper& victim, auto over) { note_path(victim, over); });
    std::unordered_set<std::uintptr_t> seen;
    for (std::size_t at = 0; at < path_.size(); ++at) {
      const bool is_new = seen.insert(path_[at]).second;
      checkpoints_.push_back(is_new || at == 0 ? at : checkpoints_.back());
    }
  }

  [[nodiscard]] std::size_t checkpoint(std::size_t instructions) const {
    return checkpoints_[std::min(instructions, length() - 1)];
  }

  // Attack(victim, over) moves the victim; over() tells whether all results are there.
  template <class Attack>
  void round(std::size_t instructions, Attack attack) {
    clear_notes();
    ++round_;
    if (what_.prepare) next_victim_ = what_.prepare(pool_, round_);
    await_sleep(next_victim_);
    auto victim = std::make_unique<stepper>(next_victim_);
    driver waiting(what_.launch(pool_, round_));
    waiting.settle();
    if (what_.newborn) victim = replacement_of(std::move(victim), waiting);
    door_at_ = random_() % std::min(instructions, longest_shut);
    {
      const one_cpu together(victim->pid());
      attack(*victim, [&] { return waiting.done(); });
      victim->kill_it();
    }
    notes->door_open = true;
    ++tally_.kills;
    judge(waiting.results(), victim->pid(), instructions);
    run_next();
  }

  // Kills the worker, which has not begun with its task, and catches the one that takes its place.
  static std::unique_ptr<stepper> replacement_of(std::unique_ptr<stepper> worker,
                                                 const driver& waiting) {
    const birth_watch births(support::children_of(getpid()).at(0).pid);
    worker->kill_it();
    auto newborn = std::make_unique<stepper>(births.await_child(), stepper::traced_already{});
    waiting.settle();  // the newborn's task is sent
    return newborn;
  }

  template <class Over>
  void note_path(stepper& victim, Over over) {
    do {
      open_door(path_.size());
      path_.push_back(victim.pc());
    } while (victim.step(over) == stepper::halt::stopped);
  }

  // The first step is made for certain: in it the call is made again that it sleeps in.
  template <class Over>
  void advance(stepper& victim, std::size_t from, std::size_t instructions, Over over) {
    using halt = stepper::halt;
    open_door(0);
    halt end = victim.step(over);
    if (from > 1 && end == halt::stopped) end = victim.run_to(path_[from], over);
    for (auto at = std::max<std::size_t>(from, 1); at < instructions && end == halt::stopped;
         ++at) {
      open_door(at);
      end = victim.step(over);
    }
    const bool as_planned = end == halt::over
                                ? instructions >= length()
                                : instructions < length() && victim.pc() == path_[instructions];
    if (!as_planned) ++tally_.elsewhere;
    comparable_ = as_planned && !(what_.wanders && from > 1);
  }

  void open_door(std::size_t instructions) const {
    if (instructions == door_at_) notes->door_open = true;
  }

  static void clear_notes() {
    for (auto& each : notes->runs) each = 0;
    for (auto& each : notes->by) each = 0;
    notes->door_open = false;
  }

  void judge(const std::vector<ending>& results, pid_t victim, std::size_t instructions) {
    using kind = ending::kind_type;
    const auto died = [](const ending& each) { return each.kind == kind::died; };
    const auto first = std::find_if(results.begin(), results.end(), died);
    const auto culprit = static_cast<std::size_t>(first - results.begin());  // or the end
    std::size_t progress = 0;
    for (std::size_t item = 0; item < results.size(); ++item) {
      const ending& each = results[item];
      const bool own = notes->by[item] == victim;
      std::string fault = died(each) ? fault_of_death(each, item, victim, culprit) : each.text;
      if (each.kind == kind::value) fault = fault_of_value(item, own, culprit, results.size());
      if (!fault.empty()) complain(instructions, "item " + std::to_string(item) + ": " + fault);
      if (each.kind == kind::wrong) continue;
      progress += died(each) ? 1u : own ? 2u : 0u;
      ++(died(each) ? tally_.deaths : own ? tally_.own : tally_.others);
    }
    if (comparable_) progress_.emplace_back(std::min(instructions, length()), progress);
  }

  // What is wrong with this death, if anything is.
  [[nodiscard]] std::string fault_of_death(const ending& each, std::size_t item, pid_t victim,
                                           std::size_t culprit) const {
    if (item != culprit) return "a second death";
    if (each.pid != victim || each.item != (what_.one_task ? item : 0)) return each.text;
    const bool ran_elsewhere = notes->runs[item] == 1 && notes->by[item] != victim;
    return notes->runs[item] > 1 || ran_elsewhere ? "ran again after the death" : "";
  }

  // The same for a right value. In a chunk, items before the one that died were finished, and those
  // behind it not begun.
  [[nodiscard]] std::string fault_of_value(std::size_t item, bool own, std::size_t culprit,
                                           std::size_t items) const {
    const int runs = notes->runs[item];
    if (runs != 1) return "ran " + std::to_string(runs) + " times";
    if (!what_.one_task || culprit == items || own == (item < culprit)) return "";
    return own ? "ran behind the one that died" : "was not finished before the one that died";
  }

  void complain(std::size_t instructions, const std::string& what) {
    ++tally_.wrong;
    if (tally_.complaints.size() >= 20) return;
    tally_.complaints.push_back("killed after " + std::to_string(instructions) +
                                " instructions: " + what);
  }

  // The pool goes on: the next task has its value. It also tells who will be attacked next, and
  // that worker is warm then.
  void run_next() {
    clear_notes();
    const int x = ++round_ * most_items;
    const ending next =
        ending_of(small_value(x), [&] { return pool_.apply_async(small_task, x).get(patience); });
    if (next.kind != ending::kind_type::value) complain(to_the_end, "the next task: " + next.text);
    next_victim_ = notes->by[0];
  }

  static constexpr std::size_t longest_shut = 1000;

  procpool::Pool<>& pool_;
  scenario what_;
  std::mt19937 random_;
  pid_t next_victim_ = 0;
  int round_ = 0;
  bool comparable_ = true;                ///< this round was killed just where the number says
  std::size_t door_at_ = 0;               ///< before this instruction the door is opened
  std::vector<std::uintptr_t> path_;      ///< address of each instruction
  std::vector<std::size_t> checkpoints_;  ///< for each, the last new address up to it
  std::unordered_set<std::size_t> tried_;
  std::vector<std::pair<std::size_t, std::size_t>> progress_;  ///< after how many instructions
  tally tally_;
};

}  // namespace fault
