// SPDX-License-Identifier: MIT
// The stack of workers and processes that were started on a small one: by a thread of its own with
// 128 KiB, or in a coroutine.
#include <pthread.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/sanitizers.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;

/// Uses so many KiB of stack, and at most a few times as many.
int deep(int kib) {
  volatile char page[1024];
  page[0] = 1;
  return kib > 0 ? deep(kib - 1) + page[0] : 0;
}

/// The same in large frames, which step over small guards.
int deep_in_large_frames(int times) {
  volatile char pages[200 << 10];
  for (std::size_t i = sizeof pages; i > 0; i -= 4096) pages[i - 1] = 1;
  pages[0] = 1;
  return times > 0 ? deep_in_large_frames(times - 1) + pages[0] : 0;
}

void* call(void* body) {
  (*static_cast<std::function<void()>*>(body))();
  return nullptr;
}

void on_small_thread(std::function<void()> body) {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, support::address_sanitizer ? 512 << 10 : 128 << 10);
  pthread_t thread{};
  REQUIRE(pthread_create(&thread, &small, call, &body) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&small);
}

std::function<void()>* coroutine = nullptr;

void on_coroutine(std::function<void()> body) {
  static ucontext_t caller;
  ucontext_t context;
  const auto stack = std::make_unique<std::array<std::byte, 256 << 10>>();
  REQUIRE(getcontext(&context) == 0);
  context.uc_stack.ss_sp = stack->data();
  context.uc_stack.ss_size = stack->size();
  context.uc_link = &caller;
  coroutine = &body;
  makecontext(
      &context, [] { (*coroutine)(); }, 0);
  swapcontext(&caller, &context);
}

/// Both, as far as the sanitizer knows of coroutines.
std::vector<void (*)(std::function<void()>)> small_stacks() {
  if (support::address_sanitizer || support::thread_sanitizer) return {&on_small_thread};
  return {&on_small_thread, &on_coroutine};
}

std::string overflow(procpool::Pool<>& pool, int (*task)(int), int depth) {
  try {
    pool.apply(task, depth);
  } catch (const procpool::WorkerDied& died) {
    return died.what();
  }
  return "";
}

/// A task that makes a pool and sends it a lambda with a reference to a local variable.
bool refuses_references() {
  procpool::Pool pool{1};
  int local = 3;
  try {
    pool.apply([&local] { return local; });
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("A worker has the stack of a fresh process, wherever its pool was made", "[stack]") {
  for (const auto& on : small_stacks()) {
    std::unique_ptr<procpool::Pool<>> pool;
    on([&] { pool = std::make_unique<procpool::Pool<>>(1); });
    CHECK(pool->apply(deep, 1024) == 1024);
    CHECK(pool->apply(deep_in_large_frames, 10) == 10);
    CHECK(pool->apply(refuses_references));
    // Nested pools and processes of such a worker.
    CHECK(pool->apply([] {
      procpool::Pool inner{1};
      return inner.apply(deep, 1024);
    }) == 1024);
    pool.reset();
  }
}

TEST_CASE("A full stack is told as such, also one of the worker's own", "[stack]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("the sanitizer tells it");
  rlimit limit{};
  getrlimit(RLIMIT_STACK, &limit);
  if (limit.rlim_cur > (64 << 20)) SKIP("needs a limit of the stack");
  for (const auto& on : small_stacks()) {
    std::unique_ptr<procpool::Pool<>> pool;
    on([&] { pool = std::make_unique<procpool::Pool<>>(1); });
    CHECK_THAT(overflow(*pool, deep, 100 << 10), ContainsSubstring("stack overflow"));
    CHECK_THAT(overflow(*pool, deep_in_large_frames, 1000), ContainsSubstring("stack overflow"));
  }
}

TEST_CASE("A forked process has the stack of a fresh one, wherever it was started", "[stack]") {
  for (const auto& on : small_stacks()) {
    std::optional<int> exitcode;
    on([&] {
      procpool::Process process([] { std::exit(deep(1024) == 1024 ? 7 : 1); });
      process.start();
      process.join();
      exitcode = process.exitcode();
    });
    CHECK(exitcode == 7);
  }
}

TEST_CASE("Workers of a process without a limit for its stack have a large one", "[stack]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("sanitizers limit stacks");
  const int code = support::run_child([] {
    rlimit limit{};
    getrlimit(RLIMIT_STACK, &limit);
    if (limit.rlim_max != RLIM_INFINITY) return 0;
    limit.rlim_cur = RLIM_INFINITY;
    CHILD_REQUIRE(setrlimit(RLIMIT_STACK, &limit) == 0);
    std::unique_ptr<procpool::Pool<>> pool;
    on_small_thread([&] { pool = std::make_unique<procpool::Pool<>>(1); });
    CHILD_REQUIRE(pool->apply(deep, 100 << 10) == 100 << 10);
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("In little address space a worker keeps the small stack, or has some more", "[stack]") {
  if (support::address_sanitizer || support::thread_sanitizer) SKIP("sanitizers need terabytes");
  for (const rlim_t mib : {24U, 6U}) {
    const int code = support::run_child([mib] {
      std::unique_ptr<procpool::Pool<>> pool;
      on_small_thread([&] {
        rlim_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        rlimit limit{};
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (mib << 20);
        setrlimit(RLIMIT_AS, &limit);
        pool = std::make_unique<procpool::Pool<>>(1);
      });
      CHILD_REQUIRE(pool->apply(deep, 16) == 16);
      return 0;
    });
    CHECK(code == 0);
  }
}
