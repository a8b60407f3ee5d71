// SPDX-License-Identifier: MIT
// Lock and RLock: who has it, who may release it, what happens when the owner dies.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <chrono>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/other_process.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::Lock;
using procpool::RLock;
using support::in_other_process;
using support::other_process;

constexpr auto never = 30s;

/// Tasks.
void count_under(Lock lock, procpool::SharedArray<long> count, int times) {
  for (int i = 0; i < times; ++i) {
    const std::scoped_lock guard(lock);
    count[0] = count[0] + 1;
  }
}
void die_with(Lock lock) {
  lock.acquire();
  _exit(3);
}
bool owner_died(const Lock& lock) {
  return lock.owner_died();
}

struct holder {
  RLock lock;
  std::vector<Lock> more;
  bool operator()(int) {
    const std::scoped_lock guard(lock, more.at(0));
    return lock.owner() == getpid() && more.at(1).locked();
  }
};

template <class L>
void take_from_the_dead(bool told) {
  L lock;
  const support::shared<support::gate> gate;
  other_process owner([&] {
    lock.acquire();
    gate->pass();
    return 0;
  });
  REQUIRE(gate->wait_for(1));
  CHECK(lock.locked());
  CHECK(lock.owner() == owner.pid());
  CHECK_FALSE(lock.try_lock());
  CHECK_FALSE(lock.acquire(1ms));
  CHECK_FALSE(lock.acquire(-1s));
  if (told) {
    owner.kill();
    owner.join();
  } else {
    owner.kill_untold();
  }
  CHECK_FALSE(lock.locked());
  REQUIRE(lock.acquire(never));
  CHECK(lock.owner() == getpid());
  CHECK(lock.owner_died());
  lock.release();
  REQUIRE(lock.try_lock());
  CHECK(lock.owner_died());
  lock.consistent();
  CHECK_FALSE(lock.owner_died());
  lock.release();
}

}  // namespace

TEST_CASE("a lock is taken, is locked, and is given back") {
  Lock lock;
  CHECK_FALSE(lock.locked());
  CHECK(lock.owner() == std::nullopt);
  lock.acquire();
  CHECK(lock.locked());
  CHECK(lock.owner() == getpid());
  CHECK_FALSE(lock.try_lock());
  CHECK_FALSE(lock.acquire(0s));
  CHECK_FALSE(lock.try_lock_for(2ms));
  CHECK_FALSE(lock.try_lock_until(std::chrono::steady_clock::now() - 1s));
  lock.release();
  CHECK(lock.try_lock());
  lock.unlock();
  CHECK_FALSE(lock.locked());
  {
    const std::scoped_lock guard(lock);
    CHECK(lock.locked());
  }
  const std::unique_lock held(lock, 1s);
  CHECK(held.owns_lock());
}

TEST_CASE("to release a lock that is not locked is an error, to unlock it is none") {
  Lock lock;
  CHECK_THROWS_AS(lock.release(), std::logic_error);
  lock.unlock();
  RLock recursive;
  CHECK_THROWS_AS(recursive.release(), std::logic_error);
  recursive.unlock();
  recursive.acquire();
  std::thread([&] { CHECK_THROWS_AS(recursive.release(), std::logic_error); }).join();
  CHECK(in_other_process([&] {
          try {
            recursive.release();
          } catch (const std::logic_error&) {
            return 7;
          }
          return 1;
        }) == 7);
  recursive.release();
}

TEST_CASE("another process may release a Lock") {
  Lock lock;
  lock.acquire();
  CHECK(in_other_process([&] {
          lock.release();
          return lock.locked() ? 1 : 0;
        }) == 0);
  CHECK_FALSE(lock.locked());
}

TEST_CASE("an RLock is taken again by its thread, and is free after as many releases") {
  RLock lock;
  for (int i = 0; i < 3; ++i) lock.acquire();
  CHECK(lock.depth() == 3);
  CHECK(lock.try_lock());
  std::thread([&] {
    CHECK_FALSE(lock.try_lock());
    CHECK_FALSE(lock.acquire(1ms));
  }).join();
  CHECK(in_other_process([&] { return lock.try_lock() ? 1 : 0; }) == 0);
  for (int i = 0; i < 4; ++i) {
    CHECK(lock.locked());
    lock.release();
  }
  CHECK_FALSE(lock.locked());
  CHECK(lock.depth() == 0);
  CHECK_THROWS_AS(lock.release(), std::logic_error);
}

TEST_CASE("a child that is forked does not own what its parent owns") {
  RLock lock;
  lock.acquire();
  CHECK(in_other_process([&] { return lock.try_lock() || lock.owner() != getppid() ? 1 : 0; }) ==
        0);
  lock.release();
}

TEST_CASE("who waits for a lock gets it when its owner is killed") {
  take_from_the_dead<Lock>(true);
  take_from_the_dead<Lock>(false);
  take_from_the_dead<RLock>(true);
  take_from_the_dead<RLock>(false);
}

TEST_CASE("try_lock finds out by and by that the owner is dead") {
  Lock lock;
  other_process owner([&] {
    lock.acquire();
    pause();
    return 0;
  });
  CHECK(support::eventually([&] { return lock.locked(); }));
  owner.kill_untold();
  CHECK(support::eventually([&] { return lock.try_lock(); }));
  CHECK(lock.owner_died());
}

TEST_CASE("who sleeps for a lock is woken by its release and by the owner's death") {
  Lock lock;
  lock.acquire();
  other_process sleeper([&] {
    lock.acquire();
    return lock.owner_died() ? 1 : 0;  // and dies with it
  });
  std::this_thread::sleep_for(20ms);
  lock.release();
  REQUIRE(sleeper.join() == 0);
  other_process second([&] {
    lock.acquire();
    return lock.owner_died() ? 0 : 1;
  });
  CHECK(second.join() == 0);
}

TEST_CASE("locks travel: to tasks, in members and containers") {
  for (const auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    procpool::Pool pool{{.processes = 3, .start_method = method}};
    const Lock lock;
    const procpool::SharedArray<long> count(1);
    std::vector<procpool::AsyncResult<void>> all;
    for (int i = 0; i < 8; ++i) all.push_back(pool.apply_async(count_under, lock, count, 500));
    for (auto& each : all) each.get();
    CHECK(count[0] == 4000);
    Lock held;
    held.acquire();
    const holder object{{}, {Lock(), held}};
    CHECK(pool.map(object, std::vector{1, 2}) == std::vector{true, true});
    held.release();
    procpool::Process process{{.start_method = method}, die_with, held};
    process.start();
    process.join();
    CHECK(process.exitcode() == 3);
    held.acquire();
    CHECK(held.owner_died());
    CHECK(pool.apply(owner_died, held));
  }
}

TEST_CASE("a handle of another kind of object is refused") {
  procpool::detail::byte_buffer bytes;
  procpool::encoder(bytes).put(RLock());
  procpool::decoder in({bytes.data(), bytes.size()});
  CHECK_THROWS_AS(in.get<Lock>(), procpool::DecodeError);
}

TEST_CASE("a lock whose word was scribbled over is an error or is taken, and never crashes") {
  for (const std::uint32_t word : {1U, 0x7FFFFFFFU, 0x80000000U, 0xFFFFFFFFU, 77U}) {
    Lock lock;
    RLock recursive;
    auto scribble = [word](const auto& handle) {
      auto& record = procpool::detail::object_access::object_of(handle)->record();
      record.wait_words[0] = word;
      record.body.fill(std::byte{0xAB});
    };
    scribble(lock);
    scribble(recursive);
    static_cast<void>(lock.acquire(200ms));
    static_cast<void>(recursive.acquire(200ms));
    static_cast<void>(lock.owner_died());
    static_cast<void>(lock.owner());
    static_cast<void>(recursive.depth());
    lock.unlock();
    recursive.unlock();
  }
}
