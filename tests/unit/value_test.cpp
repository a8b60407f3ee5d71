// SPDX-License-Identifier: MIT
// Value, RawValue, Array, RawArray: what they hold, their locks, what a death leaves.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/other_process.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::Array;
using procpool::Lock;
using procpool::RawArray;
using procpool::RawValue;
using procpool::RLock;
using procpool::Value;
using support::in_other_process;
using support::other_process;

struct odd {
  std::array<char, 3> c;
};
struct point {
  double x;
  double y;
};
template <std::size_t N>
struct numbers {
  std::array<std::uint64_t, N> all;
  [[nodiscard]] bool is_whole() const {
    for (const auto each : all) {
      if (each != all[0]) return false;
    }
    return true;
  }
};

template <class Handle>
Handle sent(const Handle& handle) {
  procpool::detail::byte_buffer bytes;
  procpool::encoder(bytes).put(handle);
  procpool::decoder in({bytes.data(), bytes.size()});
  return in.get<Handle>();
}

template <std::size_t N>
void is_never_half_written() {
  Value<numbers<N>> value;
  const support::shared<std::atomic<bool>> stop;
  other_process writer([&] {
    while (!*stop) {
      value.update([](numbers<N>& v) {
        for (auto& each : v.all) ++each;
      });
    }
    return 0;
  });
  bool whole = true;
  std::uint64_t last = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto copy = value.get();
    whole = whole && copy.is_whole() && copy.all[0] >= last;
    last = copy.all[0];
  }
  CHECK(whole);
  *stop = true;
  CHECK(writer.join() == 0);
}

template <std::size_t N>
void survives_kills(int kills) {
  Value<numbers<N>> value;
  std::mt19937 random(3);
  std::uint64_t last = 0;
  for (int i = 0; i < kills; ++i) {
    other_process writer([&] {
      while (true) {
        value.update([](numbers<N>& v) {
          for (auto& each : v.all) ++each;
        });
      }
      return 0;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 1000));
    writer.kill_untold();
    const auto now = value.get();
    REQUIRE(now.is_whole());
    REQUIRE(now.all[0] >= last);
    const auto next = value.update([](numbers<N>& v) {
      for (auto& each : v.all) ++each;
    });
    REQUIRE(next.is_whole());
    last = next.all[0];
  }
}

// Tasks.
void add(Value<long> value, int times) {
  for (int i = 0; i < times; ++i) value.update([](long& v) { ++v; });
}
void add_locked(Value<long> value, int times) {
  for (int i = 0; i < times; ++i) {
    const std::scoped_lock guard(value.get_lock());
    value.value() += 1;
  }
}
void add_atomic(Value<long> value, int times) {
  for (int i = 0; i < times; ++i) value.atomic().fetch_add(1);
}
double touch_all(Value<point> value, RawValue<int> raw, Array<double> array, RawArray<int> rest) {
  value.update([](point& p) { p.x += p.y; });
  raw.value() = 7;
  array[2] = 5;
  rest[1] = 8;
  return value.get().x + std::accumulate(array.begin(), array.end(), 0.0);
}

}  // namespace

TEST_CASE("a Value is what it was made with, and changes for all") {
  Value<long> value{5};
  CHECK(value.value() == 5);
  CHECK(value.get() == 5);
  CHECK(in_other_process([&] {
          value.value() = 6;
          return 0;
        }) == 0);
  CHECK(value.get() == 6);
  value.set(-1);
  CHECK(value.get() == -1);
  CHECK(value.update([](long& v) { v *= 3; }) == -3);
  CHECK(value.atomic().fetch_add(10) == -3);
  CHECK(value.get() == 7);
  CHECK_THROWS_AS(value.update([](long& v) {
    v = 0;
    throw std::runtime_error("no");
  }),
                  std::runtime_error);
  CHECK(value.get() == 7);
  CHECK_FALSE(value.get_lock().locked());
  CHECK(Value<int>().get() == 0);
  CHECK(sent(value) == value);
}

TEST_CASE("Values of all sizes") {
  Value<bool> flag{true};
  Value<odd> small(odd{{'a', 'b', 'c'}});
  Value<point> middle(point{1, 2});
  Value<numbers<14>> in_record;
  Value<numbers<15>> in_extent;
  Value<numbers<5000>> large;
  CHECK(flag.get());
  CHECK(small.get().c[2] == 'c');
  CHECK(middle.get().y == 2);
  CHECK(in_other_process([&] {
          flag.set(false);
          small.update([](odd& v) { v.c[2] = 'd'; });
          middle.set(point{3, 4});
          in_record.update([](auto& v) { v.all.fill(1); });
          in_record.update([](auto& v) { v.all.fill(2); });
          sent(in_extent).update([](auto& v) { v.all.fill(3); });
          large.update([](auto& v) { v.all.fill(4); });
          middle.value().x = 9;
          return 0;
        }) == 0);
  CHECK_FALSE(flag.get());
  CHECK(small.get().c[2] == 'd');
  CHECK(middle.get().y == 4);
  CHECK(middle.value().x == 9);
  CHECK(in_record.get().all[13] == 2);
  CHECK(in_extent.get().all[14] == 3);
  CHECK(large.get().is_whole());
  CHECK(large.value().all[4999] == 4);
}

TEST_CASE("the lock of a Value is its own, or the one it was made with") {
  const Value<long> own{1};
  CHECK(own.get_lock() == own.get_lock());
  {
    const std::scoped_lock guard(own.get_lock());
    const std::scoped_lock again(own.get_lock());
    CHECK(own.get_lock().depth() == 2);
  }
  Lock lock;
  Value shared(7, lock);
  static_assert(std::is_same_v<decltype(shared), Value<int, Lock>>);
  CHECK(shared.get_lock() == lock);
  lock.acquire();
  CHECK(in_other_process([&] { return sent(shared).get_lock().try_lock() ? 1 : 0; }) == 0);
  lock.release();
  CHECK(sent(shared).get_lock() == lock);
  shared.set(8);
  CHECK_FALSE(lock.locked());
  const Value<long, Lock> plain;
  plain.get_lock().acquire();
  CHECK_FALSE(plain.get_lock().try_lock());
  sent(plain.get_lock()).release();
  CHECK_FALSE(plain.get_lock().locked());
}

TEST_CASE("nobody sees half of a Value") {
  is_never_half_written<2>();
  is_never_half_written<14>();
  is_never_half_written<100>();
}

TEST_CASE("a process killed while it updates a Value leaves it whole") {
  survives_kills<1>(40);
  survives_kills<14>(40);
  survives_kills<600>(40);
}

TEST_CASE("the lock of a Value tells that its owner died") {
  Value<long> value{1};
  CHECK(in_other_process([&] {
          value.get_lock().acquire();
          value.value() = 2;
          return 0;
        }) == 0);
  auto& lock = value.get_lock();
  const std::scoped_lock guard(lock);
  CHECK(lock.owner_died());
  lock.consistent();
  CHECK_FALSE(lock.owner_died());
}

TEST_CASE("an Array is zero, or what it was made of") {
  Array<double> array(1000);
  CHECK(array.size() == 1000);
  array[3] = 1.5;
  const std::span<double> all = array;
  CHECK(std::accumulate(all.begin(), all.end(), 0.0) == 1.5);
  CHECK_THROWS_AS(array.at(1000), std::out_of_range);
  CHECK_THROWS_AS(Array<int>(-1), std::invalid_argument);
  const Array<int> few{1, 2, 3};
  CHECK(few.size() == 3);
  CHECK(few.at(2) == 3);
  const Array copy(std::vector{4, 5});
  CHECK(copy[1] == 5);
  const Array<int> none(0);
  CHECK(none.empty());
  CHECK(sent(none).empty());
  CHECK(in_other_process([&] {
          std::partial_sum(few.begin(), few.end(), few.begin());
          sent(array)[999] = 2;
          return 0;
        }) == 0);
  CHECK(few[2] == 6);
  CHECK(array[999] == 2);
  CHECK_THROWS_AS(Array<double>(std::size_t{1} << 60U), procpool::ProcessError);
}

TEST_CASE("an Array in memory that was used before is zero") {
  for (int i = 0; i < 5; ++i) {
    Array<int> array(10);
    Array<int> large(5000);
    CHECK(std::accumulate(array.begin(), array.end(), 0) == 0);
    CHECK(std::accumulate(large.begin(), large.end(), 0) == 0);
    std::iota(array.begin(), array.end(), 1);
    std::iota(large.begin(), large.end(), 1);
  }
}

TEST_CASE("an Array has a lock, its own or a given one") {
  const Array<int> array(3);
  {
    const std::scoped_lock guard(array.get_lock());
    CHECK(in_other_process([&] { return sent(array).get_lock().try_lock() ? 1 : 0; }) == 0);
  }
  const RLock lock;
  const Array<int> with(3, lock);
  CHECK(with.get_lock() == lock);
  CHECK(sent(with).get_lock() == lock);
}

TEST_CASE("Values and Arrays travel to tasks, forked and spawned") {
  for (const auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    const Value<long> counter{0};
    std::vector<procpool::AsyncResult<void>> all;
    for (int i = 0; i < 4; ++i) {
      all.push_back(pool.apply_async(add, counter, 500));
      all.push_back(pool.apply_async(add_locked, counter, 500));
    }
    for (auto& each : all) each.get();
    CHECK(counter.get() == 4000);
    all.clear();
    for (int i = 0; i < 4; ++i) all.push_back(pool.apply_async(add_atomic, counter, 500));
    for (auto& each : all) each.get();
    CHECK(counter.get() == 6000);
    const Value<point> value(point{1, 2});
    const RawValue<int> raw;
    const Array<double> array(10);
    const RawArray<int> rest(5);
    CHECK(pool.apply(touch_all, value, raw, array, rest) == 8);
    CHECK(value.get().x == 3);
    CHECK(raw.value() == 7);
    CHECK(array[2] == 5);
    CHECK(rest[1] == 8);
  }
}

TEST_CASE("a handle of a Value of another type is refused") {
  procpool::detail::byte_buffer bytes;
  procpool::encoder(bytes).put(Value<long>{1});
  procpool::decoder in({bytes.data(), bytes.size()});
  CHECK_THROWS_AS(in.get<Value<unsigned long>>(), procpool::DecodeError);
  procpool::decoder again({bytes.data(), bytes.size()});
  CHECK_THROWS_AS(again.get<RawValue<long>>(), procpool::DecodeError);
}

TEST_CASE("a Value or an Array whose record was scribbled over is read within its memory") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 500; ++round) {
    Value<numbers<4>> value;
    Value<numbers<40>> large;
    Array<int> array(round % 2 == 0 ? 10 : 1000);
    for (const auto* handle :
         std::initializer_list<const procpool::detail::object_handle*>{&value, &large, &array}) {
      auto& body = procpool::detail::object_access::object_of(*handle)->record().body;
      for (auto& byte : body) byte = static_cast<std::byte>(random());
      if (round % 5 == 0) std::memset(body.data() + 18, 0, 6);
    }
    static_cast<void>(value.get());
    static_cast<void>(large.get());
    large.set({});
    CHECK(std::accumulate(array.begin(), array.end(), 0L) != 1);
    const auto attempt = [](const auto& what) {
      try {
        what();
      } catch (const procpool::Error&) {
      }
    };
    attempt([&] { sent(value).set({}); });
    attempt([&] { sent(large).set({}); });
    attempt([&] {
      auto again = sent(array);
      if (!again.empty()) again[again.size() - 1] = 1;
    });
  }
}
