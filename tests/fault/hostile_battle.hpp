// SPDX-License-Identifier: MIT
/// @file
/// A pool under attack: one task does its worst while hundreds of innocent ones run on the other
/// workers and wait behind it. Each attack gets a process of its own, so that a parent that
/// crashes, hangs or swells is a result like any other.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "fault/hostile.hpp"
#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/processes.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"

namespace hostile {

/// What an attack is told. Flat, so that its bytes lie in the task ring as they are here.
struct order {
  std::uintptr_t code;   ///< an attack_code; workers are forked, so the address is the same there
  std::uint64_t seed;    ///< another one in each round
  std::int32_t variant;  ///< which form of the attack
  std::uint32_t item;    ///< of a chunk; the one in the middle attacks
};
using attack_code = void (*)(const order&);

/// The type of the attacking task, which decides how its results travel.
enum class shape { number, text, chunk };
inline constexpr std::uint32_t chunk_items = 10;
inline constexpr std::uint32_t chunk_attacker = 4;

/// How attacks may end, apart from an error on their task.
struct manners {
  bool may_succeed = false;  ///< the worker may get away with it: the result is the task's own
  bool lingers = false;      ///< goes on after its task: later tasks of that worker are its victims
  bool wild = false;    ///< and leaves no word of the worker to be trusted: what it was sent and
                        ///< may have begun is not run again
  bool swells = false;  ///< may fill the parent's memory up to its limit
};

inline constexpr std::size_t most_innocents = 256;

/// Seen by the test and by the workers.
struct scene {
  support::gate door;    ///< attackers wait here
  support::gate muster;  ///< one task on each worker
  std::atomic<pid_t> attacker{0};
  std::atomic<int> runs{0};  ///< of the attack
  std::array<std::atomic<pid_t>, most_innocents> ran_by{};
};
/// What all attacks of a test came to.
struct tally {
  std::atomic<long> attacks{0};
  std::atomic<long> deaths{0};  ///< attacks that ended with WorkerDied
  std::atomic<long> results{0};
  std::atomic<long> wrong{0};
  std::atomic<long> excused{0};   ///< tasks on the worker of an attack that lingers
  std::atomic<bool> over{false};  ///< the pool is gone: what an attack has started may end
};
inline scene* common = nullptr;
inline tally* figures = nullptr;

inline std::uint64_t base_seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("PROCPOOL_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  }();
  return seed;
}
inline bool full() {
  return std::getenv("PROCPOOL_FULL") != nullptr;
}

// ---- tasks -------------------------------------------------------------------------------------

/// A forged claim may have the attack run again, though not for ever.
inline constexpr int most_runs = 30;

inline void attack(const order& what) {
  common->attacker = getpid();
  if (++common->runs > most_runs) throw std::runtime_error("the attack was run again and again");
  common->door.pass();
  reinterpret_cast<attack_code>(what.code)(what);
}
inline std::int32_t attack_number(const order& what) {
  attack(what);
  return 7;
}
inline std::string attack_text(const order& what) {
  attack(what);
  return "seven";
}
inline std::int32_t attack_item(const order& what) {
  if (what.item == chunk_attacker) attack(what);
  return static_cast<std::int32_t>(what.item);
}

inline void note_run(std::uint32_t id) {
  common->ran_by[id] = getpid();
}
inline std::uint64_t innocent_number(std::uint32_t id) {
  note_run(id);
  if (id % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return std::uint64_t{id} * id + 1;
}
inline std::string innocent_text(std::uint32_t id) {
  note_run(id);
  return std::string(id % 16 == 0 ? 3 * ring_bytes : id, static_cast<char>('a' + id % 26));
}
inline std::int32_t innocent_number_of(std::int32_t x) {
  return x * x + 1;
}
inline void stand_up() {
  common->muster.pass();
}

inline const procpool::pool_options small_pool{
    .processes = processes, .ring_bytes = ring_bytes, .arena_bytes = arena_bytes};

// ---- the battle --------------------------------------------------------------------------------

/// A pool and what it is attacked with; in a process of its own.
class battle {
 public:
  explicit battle(std::string name, manners allowed = {})
      : name_(std::move(name)), allowed_(allowed) {}

  /// One attack. Says on stderr what was not as it should be.
  void round(shape form, attack_code code, std::int32_t variant) {
    const order what{reinterpret_cast<std::uintptr_t>(code), base_seed() + ++rounds_, variant, 0};
    label_ = name_ + ", variant " + std::to_string(variant) + ", seed " + std::to_string(what.seed);
    new (common) scene{};
    if (form == shape::number) {
      fight(pool_.apply_async(attack_number, what));
    } else if (form == shape::text) {
      fight(pool_.apply_async(attack_text, what));
    } else {
      std::vector<order> items(chunk_items, what);
      for (std::uint32_t i = 0; i < chunk_items; ++i) items[i].item = i;
      fight(pool_.map_async(attack_item, items, {.chunksize = chunk_items}));
    }
  }

  [[nodiscard]] bool won() const { return problems_ == 0; }
  [[nodiscard]] procpool::Pool<>& pool() { return pool_; }

  void problem(const std::string& what) {
    ++problems_;
    std::fprintf(stderr, "%s: %s\n", label_.c_str(), what.c_str());
  }

 private:
  static constexpr std::chrono::seconds patience{15};
  enum class ending { value, death, error, none };

  struct innocents {
    std::uint32_t first;
    std::vector<procpool::AsyncResult<std::uint64_t>> numbers;
    std::vector<procpool::AsyncResult<std::string>> texts;
  };

  // The attacker waits until all that was there before it has its results: bytes of other tasks are
  // not in its ring then, so nothing excuses a wrong one.
  template <class Result>
  void fight(Result result) {
    const innocents before = submit(0, 24);
    if (!common->door.wait_for(1)) return problem("the attacker was not started");
    check(before);
    const innocents behind = submit(64, 48);
    auto more = pool_.map_async(innocent_number, ids(200, 40), {.chunksize = 7});
    common->door.open();
    judge(result);
    check(behind);
    check_map(more);
    check_workers(common->attacker);
    ++figures->attacks;
  }

  static std::vector<std::uint32_t> ids(std::uint32_t first, std::uint32_t count) {
    std::vector<std::uint32_t> all(count);
    std::iota(all.begin(), all.end(), first);
    return all;
  }

  innocents submit(std::uint32_t first, std::uint32_t pairs) {
    innocents all{first, {}, {}};
    for (std::uint32_t i = 0; i < pairs; ++i) {
      all.numbers.push_back(pool_.apply_async(innocent_number, first + 2 * i));
      all.texts.push_back(pool_.apply_async(innocent_text, first + 2 * i + 1));
    }
    return all;
  }

  template <class Result>
  void judge(const Result& result) {
    last_ = ending_of(result);
    if (last_ == ending::none) problem("the attack has no outcome, run " + runs() + " times");
    if (last_ == ending::value && !allowed_.may_succeed) problem("the attack ended with a value");
    if (last_ == ending::death) ++figures->deaths;
    if (common->runs > most_runs) problem("the attack was run " + runs() + " times");
  }
  static std::string runs() { return std::to_string(common->runs); }

  template <class Result>
  ending ending_of(const Result& result) {
    if (!result.wait(patience)) return ending::none;
    try {
      result.get();
      return ending::value;
    } catch (const procpool::WorkerDied& death) {
      if (std::string(death.what()).size() > 65'536) problem("a report without end");
      return ending::death;
    } catch (const std::exception&) {
      return ending::error;
    }
  }

  void check(const innocents& all) {
    for (std::uint32_t i = 0; i < all.numbers.size(); ++i) {
      const std::uint32_t number = all.first + 2 * i;
      check_one(all.numbers[i], number, std::uint64_t{number} * number + 1);
      const std::uint32_t text = number + 1;
      check_one(
          all.texts[i], text,
          std::string(text % 16 == 0 ? 3 * ring_bytes : text, static_cast<char>('a' + text % 26)));
    }
  }

  template <class T>
  void check_one(const procpool::AsyncResult<T>& result, std::uint32_t id, const T& right) {
    ++figures->results;
    if (!result.wait(patience)) return wrong(id, "has no outcome");
    try {
      if (result.get() == right) return;
      judge_innocent(id, "has a wrong value");
    } catch (const procpool::WorkerDied& death) {
      if (allowed_.wild && death.pid() == common->attacker) common->ran_by[id] = death.pid();
      judge_innocent(id, death.what());
    } catch (const std::exception& error) {
      judge_innocent(id, error.what());
    }
  }

  void judge_innocent(std::uint32_t id, const std::string& what) {
    if (allowed_.lingers && common->ran_by[id] == common->attacker) {
      ++figures->excused;
    } else {
      wrong(id, what);
    }
  }

  void wrong(std::uint32_t id, const std::string& what) {
    ++figures->wrong;
    problem("innocent task " + std::to_string(id) + ": " + what);
  }

  void check_map(const procpool::AsyncResult<std::vector<std::uint64_t>>& result) {
    figures->results += 40;
    if (!result.wait(patience)) return wrong(200, "and those of its map have no outcome");
    try {
      const auto got = result.get();
      for (std::uint32_t i = 0; i < got.size(); ++i) {
        const std::uint64_t id = 200 + i;
        if (got[i] != id * id + 1) judge_innocent(200 + i, "has a wrong value in its map");
      }
    } catch (const std::exception& error) {
      if (!allowed_.lingers) wrong(200, error.what());
    }
  }

  // All places of the pool have a worker that works, and a killed one is gone. An attack that
  // lingers may take the task that came to its worker: then another one does.
  void check_workers(pid_t attacker) {
    std::vector<procpool::AsyncResult<void>> all;
    for (int i = 0; i < processes; ++i) all.push_back(pool_.apply_async(stand_up));
    const bool there = support::eventually([&] {
      for (auto& each : all) {
        if (fell_to(attacker, each)) each = pool_.apply_async(stand_up);
      }
      return common->muster.arrived >= processes;
    });
    if (!there) problem("not all workers are there" + fates(all));
    common->muster.open();
    for (auto& each : all) {
      if (!each.wait(patience)) problem("a worker does not answer");
    }
    if (last_ != ending::death || allowed_.may_succeed) return;
    if (!support::eventually([=] { return !support::is_running(attacker); })) {
      problem("the worker is still there");
    }
  }

  // The door is closed: a task that has an outcome has not waited at it.
  bool fell_to(pid_t attacker, const procpool::AsyncResult<void>& task) {
    if (!allowed_.lingers || !task.ready()) return false;
    try {
      task.get();
    } catch (const procpool::WorkerDied& death) {
      if (death.pid() != attacker) return false;
    } catch (const std::exception&) {  // forged, as a value is
    }
    ++figures->excused;
    return true;
  }

  static std::string fates(const std::vector<procpool::AsyncResult<void>>& all) {
    std::string text;
    for (const auto& each : all) {
      try {
        if (each.ready()) each.get();
      } catch (const std::exception& error) {
        text += std::string("; ") + error.what();
      }
    }
    return text;
  }

  std::string name_;
  manners allowed_;
  std::string label_;
  std::uint64_t rounds_ = 0;
  int problems_ = 0;
  ending last_ = ending::none;
  procpool::Pool<> pool_{small_pool};
};

/// A number of /proc/self/status, in KiB.
inline long status_kib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name)) return std::atol(line.c_str() + name.size() + 1);
  }
  return 0;
}

/// Under AddressSanitizer freed memory stays in quarantine.
inline constexpr long swell_limit_kib = (support::address_sanitizer ? 1024L : 64L) * 1024;

/// What slow machines and sanitizers need, as for the watchdog.
inline unsigned time_factor() {
  const char* given = std::getenv("PROCPOOL_TEST_LIMIT_SCALE");
  return given != nullptr ? static_cast<unsigned>(std::max(1, std::atoi(given))) : 1;
}

/// Runs @p body(battle) in a process of its own and looks after it: alive, not swollen, no leaks.
/// @returns 0 when all was as it should be; the exit code tells more.
template <class Body>
int wage(const std::string& name, manners allowed, Body body) {
  return support::run_child([&] {
    alarm(50 * time_factor());
    figures->over = false;
    const auto before = support::take_snapshot();
    const long size = status_kib("VmRSS:");
    bool won = true;
    {
      battle fight(name, allowed);
      body(fight);
      won = fight.won();
    }
    figures->over = true;
    const long grown = status_kib("VmHWM:") - size;
    if (grown > swell_limit_kib && !allowed.swells) {
      std::fprintf(stderr, "%s: the parent grew by %ld KiB\n", name.c_str(), grown);
      won = false;
    }
    for (const auto& leak : support::leaks_since(before)) {
      std::fprintf(stderr, "%s: left behind: %s\n", name.c_str(), leak.c_str());
      won = false;
    }
    return won ? 0 : 1;
  });
}

/// For a test: what it shares with its workers, and its last line.
class campaign {
 public:
  explicit campaign(const char* what) : what_(what) {
    static_cast<void>(base_seed());  // one for all processes to come
    common = scene_.get();
    figures = tally_.get();
  }
  campaign(const campaign&) = delete;
  campaign& operator=(const campaign&) = delete;
  ~campaign() {
    std::printf("hostile, %s: %ld attacks run, %ld worker deaths, %ld other results, %ld wrong",
                what_, tally_->attacks.load(), tally_->deaths.load(), tally_->results.load(),
                tally_->wrong.load());
    if (tally_->excused > 0) {
      std::printf(" (%ld ran on a lingering attacker)", tally_->excused.load());
    }
    std::printf("; seed %llu\n", static_cast<unsigned long long>(base_seed()));
    std::fflush(stdout);
  }

 private:
  const char* what_;
  support::shared<scene> scene_;
  support::shared<tally> tally_;
};

}  // namespace hostile
