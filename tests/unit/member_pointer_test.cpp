// SPDX-License-Identifier: MIT
// Pointers to members as tasks: the object is the first argument.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using procpool::start_method;

struct counter {
  int plus(int x) const { return value + x; }
  int grow(int x) noexcept { return value += x; }
  int value = 0;
};
struct word {
  std::string text;
  std::string joined(const std::string& other) const { return text + other; }
};

// The virtual function that runs is that of the object as it arrives.
class shape {
 public:
  explicit shape(int side) : side_(side) {}
  virtual ~shape() = default;
  virtual int corners() const { return 4; }
  virtual int area() const { return side_ * side_; }
  int side() const { return side_; }

 private:
  int side_;
};

struct forked : procpool::Pool<> {
  forked() : Pool({.processes = 1, .start_method = start_method::fork}) {}
};
struct spawned : procpool::Pool<> {
  spawned() : Pool({.processes = 1, .start_method = start_method::spawn}) {}
};
struct threads : procpool::ThreadPool {
  threads() : Pool(1) {}
};
struct serial : procpool::Pool<procpool::Serial> {};

}  // namespace

template <>
struct procpool::codec<shape> {
  static void encode(encoder& out, const shape& value) { out.put(value.side()); }
  static shape decode(decoder& in) { return shape(in.get<int>()); }
};

namespace {

TEMPLATE_TEST_CASE("pointers to members are tasks", "[callable]", forked, spawned, threads,
                   serial) {
  TestType pool;
  CHECK(pool.apply(&counter::plus, counter{4}, 3) == 7);
  CHECK(pool.apply(&counter::grow, counter{4}, 3) == 7);
  CHECK(pool.apply(&counter::value, counter{4}) == 4);
  CHECK(pool.apply(&word::joined, word{"a"}, "b") == "ab");
  CHECK(pool.apply_async(&word::text, word{"a"}).get() == "a");
  CHECK(pool.map(&word::text, std::vector<word>{{"a"}, {"b"}}) ==
        std::vector<std::string>{"a", "b"});
  CHECK(pool.starmap(&counter::plus, std::vector<std::pair<counter, int>>{{{1}, 2}, {{3}, 4}}) ==
        std::vector<int>{3, 7});
  CHECK(pool.map_reduce(&counter::value, std::vector<counter>{{1}, {2}}, std::plus<int>()) == 3);
  counter here{5};
  CHECK(pool.apply(&counter::grow, std::ref(here), 1) == 6);
  CHECK(here.value == 5);
}

TEMPLATE_TEST_CASE("pointers to virtual functions call that of the object", "[callable]", forked,
                   spawned, threads, serial) {
  TestType pool;
  CHECK(pool.apply(&shape::area, shape(3)) == 9);
  CHECK(pool.apply(&shape::corners, shape(3)) == 4);
  CHECK(pool.map(&shape::area, std::vector<shape>{shape(1), shape(2)}) == std::vector<int>{1, 4});
}

TEST_CASE("a null pointer to a member is refused", "[callable]") {
  procpool::Pool pool{1};
  int (counter::*none)(int) const = nullptr;
  int counter::*nowhere = nullptr;
  CHECK_THROWS_AS(pool.apply(none, counter{}, 1), std::invalid_argument);
  CHECK_THROWS_AS(pool.apply(nowhere, counter{}), std::invalid_argument);
}

TEST_CASE("a spawned process can have a pointer to a member as its target", "[callable]") {
  procpool::Process process({.start_method = start_method::spawn}, &counter::plus, counter{1}, 2);
  process.start();
  process.join();
  CHECK(process.exitcode() == 0);
}

}  // namespace
