// SPDX-License-Identifier: MIT
// Pool::fileno(): what it counts, when it is readable, and who has it open.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using support::waiting_at;

long square(long x) {
  return x * x;
}

bool readable(int descriptor, std::chrono::milliseconds limit) {
  pollfd what{descriptor, POLLIN, 0};
  return poll(&what, 1, static_cast<int>(limit.count())) == 1 && (what.revents & POLLIN) != 0;
}

/// What it has counted since the last time; 0 when it is not readable.
std::uint64_t take(int descriptor) {
  std::uint64_t count = 0;
  return read(descriptor, &count, sizeof count) == sizeof count ? count : 0;
}

/// Waits until it has counted so many; what it has counted.
std::uint64_t take_until(int descriptor, std::uint64_t expected) {
  std::uint64_t all = 0;
  while (all < expected && readable(descriptor, 20s)) all += take(descriptor);
  return all;
}

/// Whether a fork of the user's has neither the descriptor of @p pool nor another one for it.
template <class Pool>
bool is_closed_in_child(Pool& pool, int descriptor) {
  return support::run_child([&] {
           CHILD_REQUIRE(fcntl(descriptor, F_GETFD) == -1);
           try {
             static_cast<void>(pool.fileno());
             return 1;
           } catch (const std::logic_error&) {
           }
           return 0;
         }) == 0;
}

}  // namespace

TEST_CASE("fileno: readable when a result is ready, not before, and nobody has to wait",
          "[fileno]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  const int descriptor = pool.fileno();
  CHECK(pool.fileno() == descriptor);
  CHECK_FALSE(readable(descriptor, 0ms));
  const auto result = pool.apply_async(waiting_at(door));
  REQUIRE(door->wait_for(1));
  CHECK_FALSE(readable(descriptor, 20ms));
  door->open();
  REQUIRE(readable(descriptor, 20s));
  CHECK(result.ready());
  CHECK(take(descriptor) == 1);
  CHECK_FALSE(readable(descriptor, 0ms));
  CHECK(take(descriptor) == 0);  // does not block
}

TEST_CASE("fileno: counts results of calls and maps, failed and cancelled ones too", "[fileno]") {
  const support::shared<support::gate> door;
  procpool::Pool pool{1};
  const int descriptor = pool.fileno();
  const auto first = pool.apply_async(waiting_at(door));
  const auto failing = pool.apply_async([] { throw std::runtime_error("no"); });
  auto cancelled = pool.apply_async(square, 1L);
  const auto map = pool.map_async(square, std::vector<long>{1, 2, 3}, {.chunksize = 1});
  const auto called = pool.apply_async({.callback = [](long&) {}}, square, 2L);
  REQUIRE(door->wait_for(1));
  CHECK(cancelled.cancel());
  CHECK(take_until(descriptor, 1) == 1);
  door->open();
  CHECK(take_until(descriptor, 4) == 4);
  CHECK(first.ready());
  CHECK(failing.ready());
  CHECK(map.ready());
  CHECK(called.ready());
}

TEST_CASE("fileno: calls that are waited for do not count", "[fileno]") {
  procpool::Pool pool{2};
  const int descriptor = pool.fileno();
  for (long i = 0; i < 100; ++i) pool.apply(square, i);
  pool.map(square, std::vector<long>{1, 2, 3});
  CHECK_FALSE(readable(descriptor, 0ms));
}

TEST_CASE("fileno: counts from the first call on", "[fileno]") {
  procpool::Pool pool{2};
  for (long i = 0; i < 10; ++i) static_cast<void>(pool.apply_async(square, i).get());
  const int descriptor = pool.fileno();
  CHECK_FALSE(readable(descriptor, 0ms));
  const auto next = pool.apply_async(square, 3L);
  CHECK(take_until(descriptor, 1) == 1);
  CHECK(next.get(0s) == 9);
}

TEST_CASE("fileno: none of many results is missed", "[fileno]") {
  constexpr std::uint64_t count = 20'000;
  procpool::Pool pool{2};
  const int descriptor = pool.fileno();
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < static_cast<long>(count); ++i) {
    results.push_back(pool.apply_async(square, i));
  }
  CHECK(take_until(descriptor, count) == count);
  for (const auto& each : results) REQUIRE(each.ready());
}

TEST_CASE("fileno: in epoll, for several pools", "[fileno]") {
  procpool::Pool one{1};
  procpool::Pool other{1};
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(poller >= 0);
  for (auto* pool : {&one, &other}) {
    epoll_event interest{.events = EPOLLIN, .data = {.ptr = pool}};
    REQUIRE(epoll_ctl(poller, EPOLL_CTL_ADD, pool->fileno(), &interest) == 0);
  }
  const auto result = other.apply_async(square, 3L);
  epoll_event happened{};
  REQUIRE(epoll_wait(poller, &happened, 1, 20'000) == 1);
  CHECK(static_cast<void*>(happened.data.ptr) == &other);
  CHECK(result.ready());
  close(poller);
}

TEST_CASE("fileno: terminate is heard of, the pool's destructor closes it", "[fileno]") {
  const support::shared<support::gate> door;
  int descriptor = -1;
  std::optional<procpool::AsyncResult<long>> result;
  {
    procpool::Pool pool{1};
    descriptor = pool.fileno();
    result = pool.apply_async(waiting_at(door));
    pool.terminate();
    CHECK(take(descriptor) == 1);
    CHECK(result->cancelled());
    CHECK(pool.fileno() == descriptor);
  }
  CHECK(fcntl(descriptor, F_GETFD) == -1);  // though there is a result, which keeps the rest
}

TEST_CASE("fileno: not inherited, above the standard streams, closed in forked processes",
          "[fileno]") {
  procpool::Pool pool{1};
  const int descriptor = pool.fileno();
  CHECK(descriptor > STDERR_FILENO);
  CHECK((fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0);
  const auto is_event = [](int number) {
    const auto open = support::open_fds();
    return open.contains(number) && open.at(number).find("eventfd") != std::string::npos;
  };
  CHECK(is_event(descriptor));
  CHECK(is_closed_in_child(pool, descriptor));
  procpool::Process child([](int number) { return fcntl(number, F_GETFD) == -1 ? 0 : 1; },
                          descriptor);
  child.start();
  child.join();
  CHECK(child.exitcode() == 0);
  procpool::Pool later{1};  // whose workers are forked with this descriptor open
  CHECK(later.apply([](int number) { return fcntl(number, F_GETFD); }, descriptor) == -1);
  CHECK(pool.apply(square, 3L) == 9);
}

TEST_CASE("fileno: that of a pool without workers is closed in forked processes, too", "[fileno]") {
  procpool::Pool<procpool::Serial> pool{1};
  const int descriptor = pool.fileno();
  CHECK(is_closed_in_child(pool, descriptor));
  const auto result = pool.apply_async(square, 3L);
  CHECK(take(descriptor) == 1);
  CHECK(result.get() == 9);
}

TEST_CASE("fileno: kept away from closed standard streams", "[fileno]") {
  CHECK(support::run_child([] {
          procpool::Pool pool{1};
          close(STDIN_FILENO);
          const int descriptor = pool.fileno();
          CHILD_REQUIRE(descriptor > STDERR_FILENO);
          const auto result = pool.apply_async(square, 3L);
          CHILD_REQUIRE(take_until(descriptor, 1) == 1);
          return result.get() == 9 ? 0 : 1;
        }) == 0);
}

TEST_CASE("fileno: no descriptor left is an error, and the pool goes on", "[fileno]") {
  CHECK(support::run_child([] {
          procpool::Pool pool{1};
          rlimit limit{};
          getrlimit(RLIMIT_NOFILE, &limit);
          limit.rlim_cur = 0;
          setrlimit(RLIMIT_NOFILE, &limit);
          try {
            static_cast<void>(pool.fileno());
            return 1;
          } catch (const procpool::ProcessError&) {
          }
          limit.rlim_cur = limit.rlim_max;
          setrlimit(RLIMIT_NOFILE, &limit);
          CHILD_REQUIRE(pool.fileno() > STDERR_FILENO);
          return pool.apply(square, 3L) == 9 ? 0 : 1;
        }) == 0);
}

TEST_CASE("fileno: one that the program closed by mistake harms nothing", "[fileno]") {
  CHECK(support::run_child([] {
          procpool::Pool pool{1};
          close(pool.fileno());
          return pool.apply_async(square, 3L).get() == 9 ? 0 : 1;
        }) == 0);
}
