// SPDX-License-Identifier: MIT
// Workers that cannot come up. Nobody is charged for them but the pool: errors of their own break
// it at the third in a row, what the system refuses is waited for.
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <procpool/detail/backend/restart_policy.hpp>
#include <procpool/procpool.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::BrokenPool;
using procpool::WorkerDied;
using std::chrono::steady_clock;
using support::shared;

// ---- what befalls new workers ------------------------------------------------------------------

enum class fate { none, exits, aborts, is_killed, has_no_descriptors };

struct fates {
  std::atomic<pid_t> program;  ///< whose fork server's children are meant
  std::atomic<fate> fate_now;
  std::atomic<int> born;
  std::atomic<int> spared;  ///< so many are left alone first
};

fates* now = nullptr;

// Runs in every forked child, before anything of the library.
void befall() {
  if (now == nullptr || now->program == 0 || getppid() == now->program) return;  // the fork server
  ++now->born;
  if (now->spared-- > 0) return;
  const rlimit none{0, 0};
  switch (now->fate_now) {
    case fate::none:
      return;
    case fate::exits:
      return _exit(3);
    case fate::aborts:
      return std::abort();
    case fate::is_killed:
      kill(getpid(), SIGKILL);
      return;
    case fate::has_no_descriptors:
      setrlimit(RLIMIT_NOFILE, &none);
      return;
  }
}

const int handler = pthread_atfork(nullptr, nullptr, befall);

/// New workers of this process meet it, those after the first @p spared.
class on_birth {
 public:
  explicit on_birth(fate what, int spared = 0) {
    static shared<fates>* const memory = new shared<fates>;
    now = memory->get();
    now->spared = spared;
    now->born = 0;
    now->fate_now = what;
    now->program = getpid();
  }
  on_birth(const on_birth&) = delete;
  on_birth& operator=(const on_birth&) = delete;
  ~on_birth() { now->program = 0; }

  void change(fate what) { now->fate_now = what; }
  [[nodiscard]] int born() const { return now->born; }
};

// ---- tasks -------------------------------------------------------------------------------------

int leaf(int x) {
  return x + 1;
}

struct tally {
  int fine = 0;
  int died = 0;
  int broken = 0;
  std::string why;
};

template <class Backend>
tally run_some(procpool::Pool<Backend>& pool) {
  tally found;
  const std::vector<int> items(8, 1);
  try {
    for (auto& each : pool.map_outcomes(leaf, items, {.chunksize = 1})) {
      try {
        found.fine += each.value() == 2 ? 1 : 0;
      } catch (const WorkerDied& died) {
        ++found.died;
        found.why = died.what();
      } catch (const BrokenPool& broken) {
        ++found.broken;
        found.why = broken.what();
      }
    }
  } catch (const BrokenPool& broken) {
    found.broken = 8;
    found.why = broken.what();
  }
  return found;
}

/// Whether its text tells how often it was tried, and for how long.
void check_says_how_long(const std::string& why) {
  CHECK_THAT(why, ContainsSubstring("attempts"));
  CHECK_THAT(why, ContainsSubstring("for 3"));
}

/// The number of processes is limited for ordinary users only.
void become_ordinary_user() {
  if (geteuid() != 0) return;
  const auto own = static_cast<uid_t>(1'000'000'000 + getpid());
  CHILD_REQUIRE(setgroups(0, nullptr) == 0);
  CHILD_REQUIRE(setresgid(own, own, own) == 0);
  CHILD_REQUIRE(setresuid(own, own, own) == 0);
  prctl(PR_SET_DUMPABLE, 1);  // a change of user takes away the right to look into /proc/self
}

/// @p process, or this one, can have no more processes and threads until the end of the scope, or
/// for a while.
class process_limit {
 public:
  explicit process_limit(pid_t process) : process_(process) {
    CHILD_REQUIRE(prlimit(process, RLIMIT_NPROC, nullptr, &before_) == 0);
    const rlimit none{1, before_.rlim_max};
    CHILD_REQUIRE(prlimit(process, RLIMIT_NPROC, &none, nullptr) == 0);
  }
  process_limit(const process_limit&) = delete;
  process_limit& operator=(const process_limit&) = delete;
  ~process_limit() { lift(); }
  void lift() const { prlimit(process_, RLIMIT_NPROC, &before_, nullptr); }

 private:
  pid_t process_;
  rlimit before_{};
};

/// Lifts a limit after a while.
std::jthread lift_after(std::chrono::milliseconds time, const process_limit& limit) {
  return std::jthread([time, &limit] {
    std::this_thread::sleep_for(time);
    limit.lift();
  });
}

void check_in_child(const std::function<int()>& body) {
  const auto run = support::capture_child(body);
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
}

}  // namespace

TEST_CASE(
    "workers that leave before they have come up break the pool at the third, and no task "
    "is charged",
    "[fault][starts]") {
  for (const int workers : {1, 2, 5}) {
    INFO(workers << " workers");
    const on_birth birth(fate::exits);
    procpool::Pool pool{workers};
    const tally found = run_some(pool);
    CHECK(found.died == 0);
    CHECK(found.broken == 8);
    CHECK_THAT(found.why, ContainsSubstring("did not come up"));
    CHECK_THAT(found.why, ContainsSubstring("exited with code 3"));
    CHECK_THAT(found.why, ContainsSubstring("3 workers failed to start in a row"));
    CHECK(birth.born() <= workers + 3);
    std::printf("%d workers that exit at birth: %d born\n", workers, birth.born());
  }
}

TEST_CASE("workers that crash before they have come up break the pool, which names the signal",
          "[fault][starts]") {
  const on_birth birth(fate::aborts);
  procpool::Pool pool{2};
  const tally found = run_some(pool);
  CHECK(found.died == 0);
  CHECK(found.broken == 8);
  CHECK_THAT(found.why, ContainsSubstring("signal 6"));
  CHECK(birth.born() <= 5);
}

TEST_CASE("the last words of a worker that cannot come up are in the error", "[fault][starts]") {
  const on_birth birth(fate::has_no_descriptors);
  procpool::Pool pool{{.processes = 2, .max_resident = std::size_t{1} << 30}};
  const tally found = run_some(pool);
  CHECK(found.died == 0);
  CHECK(found.broken == 8);
  CHECK_THAT(found.why,
             ContainsSubstring(
                 "cannot look at the memory of a worker (pread /proc/self/statm): Too many open"));
  check_says_how_long(found.why);
}

TEST_CASE("new workers that somebody kills are started again until it is over", "[fault][starts]") {
  on_birth birth(fate::is_killed, 2);
  procpool::Pool pool{2};
  CHECK(pool.map(leaf, std::vector<int>(8, 1)) == std::vector<int>(8, 2));
  std::jthread later([&] {
    std::this_thread::sleep_for(600ms);
    birth.change(fate::none);
  });
  for (int i = 0; i < 2; ++i) {
    CHECK_THROWS_AS(pool.apply([] { kill(getpid(), SIGKILL); }), WorkerDied);
  }
  const tally found = run_some(pool);
  CHECK(found.fine == 8);
  std::printf("killed at birth for 0.6 s: %d born\n", birth.born());
  CHECK(birth.born() <= 20);
}

TEST_CASE("new workers that are always killed break the pool after a while", "[fault][starts]") {
  const on_birth birth(fate::is_killed);
  procpool::Pool pool{2};
  const auto begin = steady_clock::now();
  const tally found = run_some(pool);
  CHECK(steady_clock::now() - begin > 2s);
  CHECK(found.died == 0);
  CHECK(found.broken == 8);
  CHECK_THAT(found.why, ContainsSubstring("did not come up"));
  CHECK_THAT(found.why, ContainsSubstring("signal 9"));
  check_says_how_long(found.why);
  CHECK(birth.born() <= 30);
}

TEST_CASE("what descriptors a worker needs it gets a little later", "[fault][starts]") {
  on_birth birth(fate::has_no_descriptors);
  procpool::Pool pool{{.processes = 2, .max_resident = std::size_t{1} << 30}};
  std::jthread later([&] {
    std::this_thread::sleep_for(300ms);
    birth.change(fate::none);
  });
  CHECK(run_some(pool).fine == 8);
}

TEST_CASE("workers that cannot be replaced, as the system refuses processes, are replaced later",
          "[fault][starts]") {
  check_in_child([] {
    become_ordinary_user();
    procpool::Pool pool{4};
    const pid_t server = pool.apply([] { return getppid(); });
    const process_limit limit(server);
    int died = 0;
    for (int i = 0; i < 4; ++i) {  // one after the other: there are fewer and fewer
      try {
        pool.apply([] { kill(getpid(), SIGKILL); });
      } catch (const WorkerDied&) {
        ++died;
      }
    }
    CHILD_REQUIRE(died == 4);
    const auto later = lift_after(1s, limit);
    const tally found = run_some(pool);
    std::fprintf(stderr, "%d fine: %s\n", found.fine, found.why.c_str());
    return found.fine == 8 ? 0 : 1;
  });
}

TEST_CASE("when the system goes on to refuse processes the pool says what it refuses, and how long",
          "[fault][starts]") {
  check_in_child([] {
    become_ordinary_user();
    procpool::Pool pool{2};
    const process_limit limit(pool.apply([] { return getppid(); }));
    const auto deadly = pool.map_outcomes([](int) { kill(getpid(), SIGKILL); },
                                          std::vector<int>{1, 2}, {.chunksize = 1});
    const tally found = run_some(pool);
    CHILD_REQUIRE(found.broken == 8);
    std::fprintf(stderr, "%s\n", found.why.c_str());
    CHILD_REQUIRE(found.why.find("Resource temporarily unavailable") != found.why.npos);
    CHILD_REQUIRE(found.why.find("attempts") != found.why.npos);
    return 0;
  });
}

TEST_CASE("refusals with a worker that came up between them do not add up", "[fault][starts]") {
  using procpool::detail::restart_policy;
  using procpool::detail::start_failure;
  for (const bool works : {false, true}) {
    restart_policy policy;
    policy.reserve(1);
    const restart_policy::time_point begin{100s};
    CHECK_FALSE(policy.failed(0, start_failure::refusal, false, begin));
    works ? policy.succeeded() : policy.came_up(0);
    CHECK_FALSE(policy.failed(0, start_failure::refusal, false, begin + 4s));
    CHECK(policy.refusals() == 1);
    CHECK(policy.failed(0, start_failure::refusal, false, begin + 8s));
  }
}

TEST_CASE("one worker that cannot be replaced takes nothing from the others", "[fault][starts]") {
  check_in_child([] {
    become_ordinary_user();
    procpool::Pool pool{2};
    const process_limit limit(pool.apply([] { return getppid(); }));
    try {
      pool.apply([] { kill(getpid(), SIGKILL); });
    } catch (const WorkerDied&) {
    }
    const auto until = steady_clock::now() + 4s;  // longer than the pool has patience
    while (steady_clock::now() < until) {
      CHILD_REQUIRE(run_some(pool).fine == 8);
      std::this_thread::sleep_for(20ms);
    }
    return pool.apply([] { return std::this_thread::sleep_for(1500ms), 7; }) == 7 ? 0 : 1;
  });
}

TEST_CASE("a pool can be made though processes are refused for a moment", "[fault][starts]") {
  check_in_child([] {
    become_ordinary_user();
    const process_limit limit(getpid());
    int seen = 0;
    {
      const auto refused = [] { return procpool::Pool{2}.processes(); };
      try {
        refused();
      } catch (const procpool::ProcessError& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ++seen;
      }
    }
    CHILD_REQUIRE(seen == 1);
    // The thread that lifts it must be there before.
    limit.lift();
    const int own = getpid();
    const pid_t helper = fork();
    CHILD_REQUIRE(helper >= 0);
    if (helper == 0) {
      const process_limit again(own);
      std::this_thread::sleep_for(700ms);
      again.lift();
      _exit(0);
    }
    std::this_thread::sleep_for(100ms);
    procpool::Pool pool{2};
    waitpid(helper, nullptr, 0);
    return run_some(pool).fine == 8 ? 0 : 1;
  });
}

TEST_CASE("threads that the system refuses are started later", "[fault][starts]") {
  check_in_child([] {
    become_ordinary_user();
    procpool::ThreadPool pool{{.processes = 2, .maxtasksperchild = 1}};
    CHILD_REQUIRE(run_some(pool).fine == 8);
    const pid_t own = getpid();
    const pid_t helper = fork();
    CHILD_REQUIRE(helper >= 0);
    if (helper == 0) {
      const process_limit limit(own);
      std::this_thread::sleep_for(600ms);
      limit.lift();
      _exit(0);
    }
    std::this_thread::sleep_for(100ms);
    const auto begin = steady_clock::now();
    const tally found = run_some(pool);
    std::fprintf(stderr, "%d fine after %.3f s: %s\n", found.fine,
                 std::chrono::duration<double>(steady_clock::now() - begin).count(),
                 found.why.c_str());
    waitpid(helper, nullptr, 0);
    return found.fine == 8 ? 0 : 1;
  });
}
