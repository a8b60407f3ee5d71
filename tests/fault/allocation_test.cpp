// SPDX-License-Identifier: MIT
// Every allocation that the program makes in a call of procpool fails in turn: alone, a few in a
// row, and all from there on. Whatever fails: the call throws std::bad_alloc or an error of
// procpool's, the pool works or says that it is broken, every result ends, and the pool can be
// ended; nothing is left behind, nothing crashes or hangs. The same in workers: it costs the task.
//
//   PROCPOOL_FULL=1       every place, not only the first ones and some of the others
//   PROCPOOL_FAULT=name   only scenarios whose name begins so: "fork map"; each place is told
#include "allocation_scenarios.hpp"

#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <procpool/process.hpp>
#include <string>
#include <vector>

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/processes.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"

namespace {

using namespace allocation;
using std::chrono::steady_clock;

/// How long allocations fail.
constexpr std::array<long, 3> lengths{1, 12, std::numeric_limits<long>::max()};
constexpr long most_places = 400;

bool complete() {
  return std::getenv("PROCPOOL_FULL") != nullptr;
}
const char* wanted_name() {
  return std::getenv("PROCPOOL_FAULT");
}

/// What a series of runs tells its test, as it goes on.
struct progress {
  std::atomic<long> length{0};
  std::atomic<long> place{0};
  std::atomic<long> runs{0};  ///< in which an allocation failed
  std::atomic<long> fine{0};
  std::atomic<long> bad_alloc{0};
  std::atomic<long> errors{0};
  std::atomic<long> broken{0};  ///< pools, afterwards
  std::atomic<long> wrong{0};   ///< exceptions of another kind
  std::atomic<long> leaked{0};  ///< pieces of memory
};

/// One run: whether an allocation has failed.
using one_run = std::function<bool(long succeed, long fail, progress& told)>;

void count(const injector& fail, bool works, progress& told) {
  ++told.runs;
  if (fail.what() == outcome::fine) ++told.fine;
  if (fail.what() == outcome::bad_alloc) ++told.bad_alloc;
  if (fail.what() == outcome::error) ++told.errors;
  if (fail.what() == outcome::other) {
    ++told.wrong;
    std::fprintf(stderr, "of another kind: %s\n", fail.text().c_str());
  }
  if (!works) ++told.broken;
  if (wanted_name() != nullptr) {
    std::fprintf(stderr, "    place %ld, %s: %s\n", told.place.load(),
                 works ? "the pool works" : "the pool is broken", fail.text().c_str());
  }
}

/// Runs all places from here on, in a process of its own. @returns 0 when that is done
int run_places(const one_run& run, progress& told) {
  constexpr long never = std::numeric_limits<long>::max() / 2;
  static_cast<void>(run(never, 1, told));  // what is there from the first time on
  const support::snapshot before = support::take_snapshot();
  for (; told.length < static_cast<long>(lengths.size()); told.length += 1, told.place = 0) {
    for (; told.place < most_places; told.place += 1) {
      const long place = told.place;
      const bool thinned = place > 12 && (place + told.length) % (told.length == 0 ? 3 : 7) != 0;
      if (thinned && !complete()) continue;
      const long live = failing_memory::live;
      if (!run(place, lengths[static_cast<std::size_t>(told.length.load())], told)) break;
      if (failing_memory::live > live + 3) {  // memory that threads keep to cut it
        told.leaked += failing_memory::live - live;
        std::fprintf(stderr, "LEFT: %ld pieces of memory\n", failing_memory::live - live);
      }
    }
  }
  for (const auto& each : support::leaks_since(before)) {
    std::fprintf(stderr, "LEFT: %s\n", each.c_str());
    told.leaked += 1;
  }
  return 0;
}

/// All places of one scenario; a run that hangs or crashes is told, and the next ones go on.
void run_series(const std::string& name, const one_run& run, progress& sum, int& bad) {
  if (wanted_name() != nullptr && !name.starts_with(wanted_name())) return;
  const support::shared<progress> told;
  const auto tell = [&](const char* what, int number) {
    ++bad;
    std::printf("  %s, allocation %ld, failing %ld: %s %d\n", name.c_str(), told->place.load(),
                lengths[static_cast<std::size_t>(told->length.load())], what, number);
  };
  for (bool done = false; !done && bad < 30;) {
    std::fflush(stdout);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::alarm(0);
      ::_exit(run_places(run, *told));
    }
    const int end = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    int status = -1;
    for (long runs = -1, same = 0; same < 30;) {  // half seconds: much longer than any run takes
      pollfd ended{end, POLLIN, 0};
      if (::poll(&ended, 1, 500) > 0) break;
      same = std::exchange(runs, told->runs + told->place) == runs ? same + 1 : 0;
    }
    const bool hangs = ::waitpid(pid, &status, WNOHANG) != pid;
    if (hangs) {
      tell("HANG", 0);
      const auto family = support::descendants_of(pid);
      ::kill(pid, SIGKILL);
      for (const auto& each : family) ::kill(each.pid, SIGKILL);
      ::waitpid(pid, &status, 0);
    } else if (status != 0) {
      tell(WIFSIGNALED(status) ? "CRASH by signal" : "WRONG, status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    ::close(end);
    done = !hangs && status == 0;
    told->place += 1;
  }
  std::printf("  %-32s places %4ld: fine %4ld, bad_alloc %4ld, error %3ld, then broken %2ld\n",
              name.c_str(), told->runs.load(), told->fine.load(), told->bad_alloc.load(),
              told->errors.load(), told->broken.load());
  sum.runs += told->runs, sum.fine += told->fine, sum.bad_alloc += told->bad_alloc;
  sum.errors += told->errors, sum.broken += told->broken, sum.wrong += told->wrong;
  sum.leaked += told->leaked;
}

void conclude(const char* title, const progress& sum, int bad, long least) {
  std::printf(
      "%s: %ld places: fine %ld, bad_alloc %ld, error %ld; pools that are broken then %ld; "
      "leaks %ld, others %ld, hangs and crashes %d\n",
      title, sum.runs.load(), sum.fine.load(), sum.bad_alloc.load(), sum.errors.load(),
      sum.broken.load(), sum.leaked.load(), sum.wrong.load(), bad);
  CHECK(bad == 0);
  CHECK(sum.wrong == 0);
  CHECK(sum.leaked == 0);
  CHECK((sum.runs >= least || wanted_name() != nullptr));
}

procpool::pool_options small() {
  return {.processes = 1, .ring_bytes = 8192, .arena_bytes = std::size_t{1} << 20};
}

// ---- pools -------------------------------------------------------------------------------------

void set_up(int) {}

/// All that is done with a pool, and making one and ending one.
template <class Pool>
void run_scenarios(const std::string& backend, const procpool::pool_options& options, bool workers,
                   progress& sum, int& bad) {
  for (const scenario<Pool>& each : scenarios<Pool>()) {
    if (each.processes && !workers) continue;
    run_series(
        backend + " " + each.name,
        [&](long succeed, long fail_for, progress& told) {
          injector fail(succeed, fail_for);
          bool works = false;
          {
            Pool pool(options);
            pool.apply(square, 2L);
            each.play(pool, fail);
            works = check(pool);
          }
          if (fail.hit()) count(fail, works, told);
          return fail.hit();
        },
        sum, bad);
  }
  run_series(
      backend + " construction",
      [&](long succeed, long fail_for, progress& told) {
        injector fail(succeed, fail_for);
        procpool::pool_options with = options;
        with.initializer = {set_up, 1};
        std::optional<Pool> pool;
        fail.in([&] { pool.emplace(with); });
        const bool works = !pool || check(*pool);
        if (fail.hit()) count(fail, works, told);
        return fail.hit();
      },
      sum, bad);
  run_series(
      backend + " destruction",
      [&](long succeed, long fail_for, progress& told) {
        injector fail(succeed, fail_for);
        auto pool = std::make_unique<Pool>(options);
        auto one = pool->apply_async({.callback = [](long) {}}, nap, 3L);
        auto all = pool->map_async(nap, std::vector<long>(6, 3));
        fail.in([&] { pool.reset(); });
        if (!one.wait(8s) || !all.wait(8s)) wrong("a result that never comes");
        if (fail.what() != outcome::fine) wrong("a destructor that throws");
        if (fail.hit()) count(fail, true, told);
        return fail.hit();
      },
      sum, bad);
}

// ---- in workers --------------------------------------------------------------------------------

/// For a task: from now on, in this worker.
void arm_worker(long succeed, long fail) {
  failing_memory::arm(succeed, fail);
}
bool disarm_worker() {
  failing_memory::disarm();
  return failing_memory::injected > 0;
}
std::vector<std::string> doubled(std::vector<std::string> texts) {
  std::vector<std::string> all = texts;
  all.insert(all.end(), texts.begin(), texts.end());
  if (all.size() == 6) throw std::runtime_error("a text that is too long for a string itself");
  return all;
}

void run_in_workers(const std::string& backend, const procpool::pool_options& options,
                    progress& sum, int& bad) {
  for (const std::size_t texts : {std::size_t{2}, std::size_t{3}, std::size_t{800}}) {
    run_series(
        backend + " worker, " + std::to_string(texts) + " texts",
        [&](long succeed, long fail_for, progress& told) {
          procpool::Pool<> pool(options);
          const std::vector<std::string> in(texts, std::string(50, 'x'));
          injector fail(succeed, fail_for);
          pool.apply(arm_worker, succeed, fail_for);
          bool hit = false;
          try {
            if (pool.apply(doubled, in).size() != 2 * texts) wrong("a wrong result");
            ++told.fine;
          } catch (const std::bad_alloc&) {
            ++told.bad_alloc;
            hit = true;
          } catch (const procpool::WorkerDied&) {
            ++told.errors;
            hit = true;
          } catch (const std::runtime_error&) {  // its own
            ++told.fine;
          }
          hit |= pool.apply(disarm_worker);
          if (!check(pool)) ++told.broken;
          told.runs += hit ? 1 : 0;
          return hit;
        },
        sum, bad);
  }
}

/// The fork server has no memory: it goes on, or ends, and the pool says so.
void run_in_server(progress& sum, int& bad) {
  const support::shared<std::atomic<long>> injected;
  run_series(
      "fork server",
      [&](long succeed, long fail_for, progress& told) {
        *injected = 0;
        bool ended = true;
        failing_memory::arm_next_child(succeed, fail_for, *injected);
        try {
          procpool::Pool<> pool(small());
          for (int i = 0; i < 2; ++i) {
            try {
              pool.apply(die, 1L);
            } catch (const procpool::WorkerDied&) {
            }
          }
          pool.resize(3);
          ended = !check(pool);
        } catch (const procpool::Error&) {
        }
        failing_memory::next_child = false;
        if (*injected == 0) return false;
        ++told.runs;
        ++(ended ? told.broken : told.fine);
        return true;
      },
      sum, bad);
}

// ---- processes ---------------------------------------------------------------------------------

void run_process(procpool::start_method method, progress& sum, int& bad) {
  const std::string name = method == procpool::start_method::fork ? "fork" : "spawn";
  run_series(
      name + " Process",
      [=](long succeed, long fail_for, progress& told) {
        injector fail(succeed, fail_for);
        std::optional<procpool::Process> child;
        fail.in([&] {
          child.emplace(procpool::process_options{.start_method = method}, nap, 1L);
          child->start();
          child->join();
        });
        if (child && child->pid()) child->join();
        child.reset();
        procpool::Process next(procpool::process_options{.start_method = method}, nap, 60'000L);
        next.start();
        next.terminate();
        next.join();
        if (next.exitcode() != -SIGTERM) wrong("the exit code of a process");
        if (fail.hit()) count(fail, true, told);
        return fail.hit();
      },
      sum, bad);
  run_series(
      name + " Process::terminate",
      [=](long succeed, long fail_for, progress& told) {
        injector fail(succeed, fail_for);
        procpool::Process child(procpool::process_options{.start_method = method}, nap, 60'000L);
        child.start();
        fail.in([&] {
          static_cast<void>(procpool::active_children());
          child.terminate();
          child.join();
          static_cast<void>(child.exitcode());
          child.close();
        });
        if (fail.what() != outcome::fine) child.kill(), child.join();
        if (fail.hit()) count(fail, true, told);
        return fail.hit();
      },
      sum, bad);
}

}  // namespace

TEST_CASE("Any allocation may fail in a program with a forked pool", "[fault][limit:900]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("operator new is replaced");
  progress sum;
  int bad = 0;
  run_scenarios<procpool::Pool<>>("fork", small(), true, sum, bad);
  run_in_workers("fork", small(), sum, bad);
  run_in_server(sum, bad);
  run_process(procpool::start_method::fork, sum, bad);
  conclude("forked workers", sum, bad, 400);
}

TEST_CASE("Any allocation may fail in a program with a spawned pool", "[fault][limit:900]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("operator new is replaced");
  progress sum;
  int bad = 0;
  auto options = small();
  options.start_method = procpool::start_method::spawn;
  run_scenarios<procpool::Pool<>>("spawn", options, true, sum, bad);
  run_in_workers("spawn", options, sum, bad);
  run_process(procpool::start_method::spawn, sum, bad);
  conclude("spawned workers", sum, bad, 200);
}

TEST_CASE("Any allocation may fail in a program with a pool of threads", "[fault][limit:900]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("operator new is replaced");
  progress sum;
  int bad = 0;
  run_scenarios<procpool::ThreadPool>("threads", small(), false, sum, bad);
  conclude("threads", sum, bad, 400);
}

namespace {

/// What the system lets this process have, by and by less: malloc itself fails.
int run_short_of_data() {
  int shortages = 0;
  procpool::Pool pool(small());
  pool.apply(square, 2L);
  for (const std::size_t spare :
       {std::size_t{0}, std::size_t{1} << 18, std::size_t{1} << 20, std::size_t{1} << 22}) {
    long used = 0;
    if (std::FILE* status = std::fopen("/proc/self/statm", "r")) {
      long skipped = 0;
      if (std::fscanf(status, "%ld %ld %ld %ld %ld %ld", &skipped, &skipped, &skipped, &skipped,
                      &skipped, &used) != 6) {
        used = 0;
      }
      std::fclose(status);
    }
    rlimit all{};
    ::getrlimit(RLIMIT_DATA, &all);
    const rlimit tight{static_cast<rlim_t>(used) * 4096 + spare, all.rlim_max};
    ::setrlimit(RLIMIT_DATA, &tight);
    for (int i = 0; i < 200; ++i) {
      try {
        pool.apply(reversed, std::string(std::size_t{1} << (i % 26), 'x'));
        static_cast<void>(pool.map(square, numbers(1L << (i % 20))));
      } catch (const std::bad_alloc&) {
        ++shortages;
      } catch (const procpool::Error&) {
        ++shortages;
      }
    }
    ::setrlimit(RLIMIT_DATA, &all);
    static_cast<void>(check(pool));
  }
  return shortages > 0 ? 0 : 1;
}

}  // namespace

TEST_CASE("A program that the system gives no more memory goes on with its pool",
          "[fault][limit:120]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("it needs memory itself");
  CHECK(support::run_child(run_short_of_data) == 0);
}

TEST_CASE("Any allocation may fail in a serial pool", "[fault][limit:900]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("operator new is replaced");
  progress sum;
  int bad = 0;
  run_scenarios<procpool::Pool<procpool::Serial>>("serial", small(), false, sum, bad);
  conclude("serial", sum, bad, 100);
}
