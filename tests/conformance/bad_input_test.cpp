// SPDX-License-Identifier: MIT
// Bad input: one documented type, a sentence that names the cause, and a pool that is usable or
// cleanly ended afterwards.
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"
#include "tasks.hpp"
#include "types.hpp"

namespace {

using namespace conformance;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

/// The text of the @p Error that @p work throws; fails the test if it throws none.
template <class Error, class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  FAIL_CHECK("nothing was thrown");
  return {};
}

void check_usable(procpool::Pool<>& pool) {
  CHECK(pool.map(square, numbers(10)) == squares(10));
}

/// In a child: that a pool can be made and used now.
bool pool_works(int workers) {
  procpool::Pool pool{workers};
  return pool.map(square, numbers(10)) == squares(10);
}

/// Changes the soft limit only, so that it can be put back.
rlim_t set_limit(__rlimit_resource what, rlim_t soft) {
  rlimit limit{};
  CHILD_REQUIRE(getrlimit(what, &limit) == 0);
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = soft;
  CHILD_REQUIRE(setrlimit(what, &limit) == 0);
  return before;
}

/// The number of processes is limited for ordinary users only. A user id of our own, where we may
/// choose one, makes the count exact.
void become_ordinary_user() {
  if (geteuid() != 0) return;
  const auto own = static_cast<uid_t>(1'000'000'000 + getpid());
  CHILD_REQUIRE(setgroups(0, nullptr) == 0);
  CHILD_REQUIRE(setresgid(own, own, own) == 0);
  CHILD_REQUIRE(setresuid(own, own, own) == 0);
  prctl(PR_SET_DUMPABLE, 1);  // a change of user takes away the right to look into /proc/self
}

/// Threads count too. For our own user id only, which is exact when nobody else has it.
rlim_t processes_of_user() {
  rlim_t count = 0;
  for (const auto& process : support::all_processes()) {
    std::ifstream status("/proc/" + std::to_string(process.pid) + "/status");
    bool ours = false;
    for (std::string key; status >> key;) {
      if (unsigned long value = 0; (key == "Uid:" || key == "Threads:") && status >> value) {
        if (key == "Uid:") ours = value == getuid();
        if (key == "Threads:" && ours) count += value;
      }
    }
  }
  return count;
}

rlim_t address_space_in_use() {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  CHILD_REQUIRE(static_cast<bool>(file >> pages));
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

/// In a child: making a pool of @p workers fails with @p error, says so, and leaves nothing behind.
void require_refused(int workers, std::errc error, const std::string& word) {
  const auto fds = support::count_fds();
  std::string message = "nothing was thrown";
  std::error_code code;
  try {
    procpool::Pool pool{workers};
  } catch (const procpool::ProcessError& refused) {
    message = refused.what();
    code = refused.code();
  }
  std::fprintf(stderr, "%s\n", message.c_str());
  CHILD_REQUIRE(code == error);
  CHILD_REQUIRE(message.find(word) != std::string::npos);
  CHILD_REQUIRE(support::count_fds() == fds);
  CHILD_REQUIRE(support::eventually([] { return support::children_of(getpid()).empty(); }));
}

/// Runs @p body in a child and fails with what it said.
void check_in_child(const std::function<int()>& body) {
  const auto run = support::capture_child(body);
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
}

}  // namespace

TEST_CASE("bad input: a pool of no workers, or fewer", "[pool][bad_input]") {
  for (int workers : {0, -1}) {
    const auto text = message_of<std::invalid_argument>([&] { procpool::Pool pool{workers}; });
    CHECK_THAT(text, ContainsSubstring("process") || ContainsSubstring("worker"));
    CHECK_THAT(text, ContainsSubstring(std::to_string(workers)));
  }
}

TEST_CASE("bad input: chunks of no items", "[pool][bad_input]") {
  procpool::Pool pool{2};
  const auto items = numbers(10);
  const auto check = [](const std::string& text) { CHECK_THAT(text, ContainsSubstring("chunk")); };
  using error = std::invalid_argument;
  check(message_of<error>([&] { static_cast<void>(pool.map(square, items, {.chunksize = 0})); }));
  check(message_of<error>([&] { static_cast<void>(pool.map(square, items, {.chunksize = -1})); }));
  check(message_of<error>(
      [&] { static_cast<void>(pool.map_async(square, items, {.chunksize = 0})); }));
  check(message_of<error>(
      [&] { static_cast<void>(pool.starmap(multiply, twins(3), {.chunksize = 0})); }));
  check(message_of<error>(
      [&] { static_cast<void>(pool.starmap_async(multiply, twins(3), {.chunksize = 0})); }));
  check(message_of<error>([&] { static_cast<void>(pool.imap(square, items, {.chunksize = 0})); }));
  check(message_of<error>(
      [&] { static_cast<void>(pool.imap_unordered(square, items, {.chunksize = 0})); }));
  check_usable(pool);
}

TEST_CASE("bad input: a callable that is null", "[pool][bad_input]") {
  procpool::Pool pool{2};
  long (*nothing)(long) = nullptr;
  const auto check = [](const std::string& text) { CHECK_THAT(text, ContainsSubstring("null")); };
  using error = std::invalid_argument;
  check(message_of<error>([&] { static_cast<void>(pool.apply(nothing, 5)); }));
  check(message_of<error>([&] { static_cast<void>(pool.apply_async(nothing, 5)); }));
  check(message_of<error>([&] { static_cast<void>(pool.map(nothing, numbers(3))); }));
  check(message_of<error>([&] { static_cast<void>(pool.map_async(nothing, numbers(3))); }));
  check(message_of<error>([&] { static_cast<void>(pool.imap(nothing, numbers(3))); }));
  check_usable(pool);
}

TEST_CASE("bad input: an initializer that is null", "[pool][bad_input]") {
  void (*nothing)() = nullptr;
  const auto text = message_of<std::invalid_argument>(
      [&] { procpool::Pool pool{{.processes = 2, .initializer = {nothing}}}; });
  CHECK_THAT(text, ContainsSubstring("null"));
}

TEST_CASE("bad input: a limit of no tasks per worker", "[pool][bad_input]") {
  for (int limit : {0, -1}) {
    const auto text = message_of<std::invalid_argument>(
        [&] { procpool::Pool pool{{.processes = 2, .maxtasksperchild = limit}}; });
    CHECK_THAT(text, ContainsSubstring("maxtasksperchild"));
  }
}

TEST_CASE("bad input: a result that throws while it is encoded", "[pool][bad_input]") {
  procpool::Pool pool{2};
  const auto text = message_of<encoding_failed>(
      [&] { static_cast<void>(pool.apply([] { return unshippable{}; })); });
  CHECK_THAT(text, ContainsSubstring("cannot be encoded"));
  check_usable(pool);
}

TEST_CASE("bad input: a closure that captured a local by reference", "[pool][bad_input]") {
  procpool::Pool pool{2};
  long local = 5;
  const auto closure = [&local](long x) { return x + local; };
  const auto text =
      message_of<std::invalid_argument>([&] { static_cast<void>(pool.apply(closure, 1)); });
  CHECK_THAT(text, ContainsSubstring("reference"));
  check_usable(pool);
}

TEST_CASE("bad input: an input range that throws in the middle", "[pool][bad_input]") {
  procpool::Pool pool{2};
  const auto check = [](const std::string& text) { CHECK(text == "the input broke"); };
  using error = input_failed;
  check(message_of<error>([&] { static_cast<void>(pool.map(square, source(500))); }));
  check(message_of<error>(
      [&] { static_cast<void>(pool.map_async(square, source(500), {.chunksize = 3})); }));
  check(message_of<error>([&] {
    for (long x : pool.imap(square, source(500))) static_cast<void>(x);
  }));
  check(message_of<error>([&] {
    for (long x : pool.imap_unordered(square, source(500))) static_cast<void>(x);
  }));
  check_usable(pool);
}

TEST_CASE("bad input: work for a pool that is closed", "[pool][bad_input]") {
  procpool::Pool pool{2};
  pool.close();
  const auto text =
      message_of<procpool::PoolClosed>([&] { static_cast<void>(pool.apply(square, 5)); });
  CHECK_THAT(text, ContainsSubstring("closed"));
  pool.join();
}

TEST_CASE("bad input: join of a pool that is still open", "[pool][bad_input]") {
  procpool::Pool pool{2};
  const auto text = message_of<std::logic_error>([&] { pool.join(); });
  CHECK_THAT(text, ContainsSubstring("close"));
  check_usable(pool);
}

TEST_CASE("bad input: successful before the result is there", "[pool][bad_input][workers]") {
  procpool::Pool pool{1};
  auto result = pool.apply_async(slow_square, 5, 500ms);
  const auto text = message_of<std::logic_error>([&] { static_cast<void>(result.successful()); });
  CHECK_THAT(text, ContainsSubstring("ready"));
  CHECK(result.get() == 25);
}

TEST_CASE(
    "TestPoolNotLeakOnFailure.test_release_unused_processes: no process can be made: the "
    "constructor says so",
    "[conformance][pool][bad_input][processes]") {
  check_in_child([] {
    become_ordinary_user();
    const rlim_t before = set_limit(RLIMIT_NPROC, 1);
    require_refused(5, std::errc::resource_unavailable_try_again, "process");
    set_limit(RLIMIT_NPROC, before);
    return pool_works(5) ? 0 : 1;
  });
}

TEST_CASE(
    "TestPoolNotLeakOnFailure.test_release_unused_processes: some workers could be started: "
    "they are ended before the constructor throws",
    "[conformance][pool][bad_input][processes]") {
  for (rlim_t more : {rlim_t{1}, rlim_t{2}, rlim_t{4}}) {
    INFO("room for " << more << " more processes");
    check_in_child([more] {
      become_ordinary_user();
      const rlim_t before = set_limit(RLIMIT_NPROC, processes_of_user() + more);
      require_refused(5, std::errc::resource_unavailable_try_again, "process");
      set_limit(RLIMIT_NPROC, before);
      return pool_works(5) ? 0 : 1;
    });
  }
}

TEST_CASE(
    "bad input: a dead worker that cannot be replaced leaves the pool broken or working, "
    "never hanging",
    "[pool][bad_input][processes]") {
  check_in_child([] {
    become_ordinary_user();
    procpool::Pool pool{1};
    CHILD_REQUIRE(pool.apply(square, 5) == 25);
    const rlim_t before = set_limit(RLIMIT_NPROC, 1);
    bool died = false;
    try {
      pool.apply([] { _exit(3); });
    } catch (const procpool::WorkerDied&) {
      died = true;
    }
    CHILD_REQUIRE(died);
    set_limit(RLIMIT_NPROC, before);
    try {
      CHILD_REQUIRE(pool.apply_async(square, 5).get(20s) == 25);
    } catch (const procpool::BrokenPool& broken) {
      CHILD_REQUIRE(std::string(broken.what()).find("process") != std::string::npos);
    }
    return pool_works(1) ? 0 : 1;
  });
}

TEST_CASE("bad input: no memory for the rings", "[pool][bad_input][workers]") {
  check_in_child([] {
    // Not even for the smallest ones; with some MiB a pool makes do, see address_space_test.
    std::vector<char>(64 << 10, 'x').clear();  // the checks below find memory in this heap
    const rlim_t before = set_limit(RLIMIT_AS, address_space_in_use() + (32 << 10));
    require_refused(2, std::errc::not_enough_memory, "memory");
    set_limit(RLIMIT_AS, before);
    return pool_works(2) ? 0 : 1;
  });
}

TEST_CASE("bad input: no descriptors left", "[pool][bad_input][workers]") {
  for (rlim_t more : {rlim_t{0}, rlim_t{1}, rlim_t{3}, rlim_t{5}}) {
    INFO("room for " << more << " more descriptors");
    check_in_child([more] {
      const int lowest_free = open("/dev/null", O_RDONLY);
      close(lowest_free);
      const rlim_t before = set_limit(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free) + more);
      std::error_code code;
      try {
        procpool::Pool pool{8};
        CHILD_REQUIRE(pool.apply(square, 5) == 25);
      } catch (const procpool::ProcessError& refused) {
        code = refused.code();
        std::fprintf(stderr, "%s\n", refused.what());
      }
      set_limit(RLIMIT_NOFILE, before);
      CHILD_REQUIRE(more > 3 || code == std::errc::too_many_files_open);
      CHILD_REQUIRE(support::eventually([] { return support::children_of(getpid()).empty(); }));
      return pool_works(2) ? 0 : 1;
    });
  }
}

TEST_CASE("bad input: stdin, stdout and stderr closed in the parent",
          "[pool][bad_input][processes]") {
  const support::shared<std::atomic<int>> right;
  const int status = support::run_child([&] {
    for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
    procpool::Pool pool{2};
    const auto print = [](long x) {
      std::printf("number %ld\n", x);
      std::fflush(stdout);
      std::fprintf(stderr, "number %ld\n", x);
      return x * x;
    };
    if (pool.map(print, numbers(100), {.chunksize = 1}) == squares(100)) ++*right;
    try {
      pool.apply([] { _exit(3); });
    } catch (const procpool::WorkerDied&) {
      ++*right;
    }
    if (pool.map(print, numbers(100)) == squares(100)) ++*right;
    pool.close();
    pool.join();
    return 0;
  });
  CHECK(status == 0);
  CHECK(*right == 3);
}

TEST_CASE("bad input: a task that closes every descriptor it can find",
          "[pool][bad_input][processes]") {
  procpool::Pool pool{2};
  try {
    pool.apply([] {
      for (int fd = 0; fd < 256; ++fd) close(fd);
    });
  } catch (const procpool::WorkerDied&) {  // allowed: the worker cannot go on without them
  }
  CHECK(support::eventually([&] {
    try {
      return pool.map(square, numbers(10)) == squares(10);
    } catch (const procpool::WorkerDied&) {
      return false;
    }
  }));
}

TEST_CASE("bad input: a worker's stdin is empty, the parent's is left alone",
          "[pool][bad_input][processes]") {
  procpool::Pool pool{1};
  CHECK(pool.apply([] { return std::getchar(); }) == EOF);
}
