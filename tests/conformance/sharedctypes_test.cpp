// SPDX-License-Identifier: MIT
// What CPython's own tests of multiprocessing.Value, Array, RawValue, RawArray, sharedctypes and
// the heap assert.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <numeric>
#include <random>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using procpool::Array;
using procpool::Lock;
using procpool::RawArray;
using procpool::RawValue;
using procpool::RLock;
using procpool::Value;

struct foo {
  int x;
  double y;
  std::int64_t z;
};

template <class V>
concept has_lock = requires(const V& value) {
  value.get_lock();
};

// ---- tasks ----

template <class V>
void set_value(V shared, typename V::value_type value) {
  shared.value() = value;
}
template <class A>
void sum_up(A array) {
  std::partial_sum(array.begin(), array.end(), array.begin());
}
void twice(foo& value) {
  value.x *= 2;
  value.y *= 2;
  value.z *= 2;
}
template <class Int, class Real, class Long, class Struct, class Numbers, class Text>
void double_all(Int x, Real y, Long z, Struct s, Numbers numbers, Text text) {
  x.value() *= 2;
  y.value() *= 2;
  z.value() *= 2;
  twice(s.value());
  for (double& each : numbers) each *= 2;
  std::vector<char> old(text.begin(), std::ranges::find(text, '\0'));
  std::ranges::copy(old, std::ranges::copy(old, text.begin()).out);
}
void double_locked(Value<int> x, Value<foo> s) {
  x.update([](int& v) { v *= 2; });
  const std::scoped_lock guard(s.get_lock());
  twice(s.value());
}

template <template <class> class V, class T>
void is_written_by_another(T first, T second) {
  V<T> shared{first};
  CHECK(shared.value() == first);
  procpool::Pool pool{1};
  pool.apply(set_value<V<T>>, shared, second);
  CHECK(shared.value() == second);
}
template <class T>
using locked_value = Value<T, RLock>;

template <class A>
void is_summed_up() {
  std::vector<int> plain{680, 626, 934, 821, 150, 233, 548, 982, 714, 831};
  A array(plain);
  CHECK(array.size() == plain.size());
  CHECK(array[4] == plain[4]);
  CHECK(std::ranges::equal(array, plain));
  std::ranges::copy(std::array{1, 2, 3, 4}, array.begin() + 4);
  std::ranges::copy(std::array{1, 2, 3, 4}, plain.begin() + 4);
  CHECK(std::ranges::equal(array, plain));
  procpool::Pool pool{1};
  pool.apply(sum_up<A>, array);
  std::partial_sum(plain.begin(), plain.end(), plain.begin());
  CHECK(std::ranges::equal(array, plain));
}

}  // namespace

TEST_CASE("_TestValue.test_value: a child's write is seen", "[workers]") {
  is_written_by_another<locked_value, int>(7, 8);
  is_written_by_another<locked_value, double>(3.5, 4.5);
  is_written_by_another<locked_value, short>(-232, 234);
  is_written_by_another<locked_value, std::int64_t>(2LL << 33, 3LL << 33);
  is_written_by_another<locked_value, char>('x', 'y');
}

TEST_CASE("_TestValue.test_rawvalue: the same without a lock", "[workers]") {
  is_written_by_another<RawValue, int>(7, 8);
  is_written_by_another<RawValue, double>(3.5, 4.5);
  is_written_by_another<RawValue, short>(-232, 234);
  is_written_by_another<RawValue, std::int64_t>(2LL << 33, 3LL << 33);
  is_written_by_another<RawValue, char>('x', 'y');
}

TEST_CASE("_TestValue.test_getobj_getlock: its own lock, a given one, or none", "") {
  const Value<int> own{5};
  CHECK_FALSE(own.get_lock().locked());
  const RLock rlock;
  CHECK(Value<int>(5, rlock).get_lock() == rlock);
  const Lock lock;
  CHECK(Value(5, lock).get_lock() == lock);
  static_assert(has_lock<Value<int>> && !has_lock<RawValue<int>>);
}

TEST_CASE("_TestArray.test_array: index, parts, prefix sums by a child", "[workers]") {
  is_summed_up<Array<int>>();
}

TEST_CASE("_TestArray.test_array_from_size: zeros, also where something was before", "") {
  for (int i = 0; i < 3; ++i) {
    Array<int> array(10);
    CHECK(array.size() == 10);
    CHECK(std::ranges::count(array, 0) == 10);
    std::iota(array.begin(), array.end(), 0);
    CHECK(array[9] == 9);
  }
}

TEST_CASE("_TestArray.test_rawarray: the same without a lock", "[workers]") {
  is_summed_up<RawArray<int>>();
}

TEST_CASE("_TestArray.test_getobj_getlock_obj: its own lock, a given one, or none", "") {
  const Array<int> own(10);
  CHECK_FALSE(own.get_lock().locked());
  CHECK(own.span().size() == 10);
  const Lock lock;
  CHECK(Array<int, Lock>(10, lock).get_lock() == lock);
  static_assert(has_lock<Array<int>> && !has_lock<RawArray<int>>);
}

TEST_CASE("_TestSharedCTypes.test_sharedctypes: all is doubled by a child", "[workers]") {
  RawValue<int> x{7};
  RawValue<double> y{1.0 / 3};
  RawValue<std::int64_t> z{2LL << 33};
  RawValue<foo> s(foo{3, 2, 2LL << 33});
  RawArray<double> numbers(10);
  std::iota(numbers.begin(), numbers.end(), 0.0);
  RawArray<char> text(20);
  std::ranges::copy(std::string_view("hello"), text.begin());
  procpool::Pool pool{1};
  pool.apply(double_all<RawValue<int>, RawValue<double>, RawValue<std::int64_t>, RawValue<foo>,
                        RawArray<double>, RawArray<char>>,
             x, y, z, s, numbers, text);
  CHECK(x.value() == 14);
  CHECK(y.value() == 2.0 / 3);
  CHECK(z.value() == 4LL << 33);
  CHECK(s.value().x == 6);
  CHECK(s.value().y == 4);
  CHECK(numbers[9] == 18);
  CHECK(std::string_view(text.data()) == "hellohello");
}

TEST_CASE("_TestSharedCTypes.test_synchronize: the same with locks", "[workers]") {
  Value<int> x{7};
  Value<double> y{1.0 / 3};
  Value<std::int64_t> z{2LL << 33};
  Value<foo> s(foo{3, 2, 2LL << 33});
  Array<double> numbers(10);
  std::iota(numbers.begin(), numbers.end(), 0.0);
  Array<char> text(20);
  std::ranges::copy(std::string_view("hello"), text.begin());
  procpool::Pool pool{1};
  pool.apply(double_all<Value<int>, Value<double>, Value<std::int64_t>, Value<foo>, Array<double>,
                        Array<char>>,
             x, y, z, s, numbers, text);
  CHECK(x.get() == 14);
  CHECK(y.get() == 2.0 / 3);
  CHECK(s.get().z == 4LL << 33);
  CHECK(numbers[9] == 18);
  CHECK(std::string_view(text.data()) == "hellohello");
  pool.apply(double_locked, x, s);
  CHECK(x.get() == 28);
  CHECK(s.get().x == 12);
}

TEST_CASE("_TestSharedCTypes.test_copy: a copy of a struct is another one", "") {
  Value<foo> shared(foo{2, 5.0, 2LL << 33});
  const foo copy = shared.get();
  shared.value() = {0, 0, 0};
  CHECK(copy.x == 2);
  CHECK(copy.y == 5.0);
  CHECK(copy.z == 2LL << 33);
  CHECK(shared.get().x == 0);
}

TEST_CASE("_TestHeap.test_heap: thousands of arrays, at most 50 at a time, none overlap", "") {
  std::mt19937 random(42);
  std::vector<Array<int, Lock>> alive;
  for (int i = 0; i < 5000; ++i) {
    const std::size_t size = 1 + random() % 400;
    Array<int, Lock> fresh(size);
    REQUIRE(std::ranges::count(fresh, 0) == static_cast<long>(size));
    std::ranges::fill(fresh, i);
    alive.push_back(std::move(fresh));
    if (alive.size() <= 50) continue;
    const std::size_t victim = random() % alive.size();
    const auto& array = alive[victim];
    REQUIRE(std::ranges::count(array, array[0]) == static_cast<long>(array.size()));
    std::swap(alive[victim], alive.back());
    alive.pop_back();
  }
  for (const auto& each : alive) {
    CHECK(std::ranges::count(each, each[0]) == static_cast<long>(each.size()));
  }
}
