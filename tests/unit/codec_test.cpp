// SPDX-License-Identifier: MIT
// Values of every type come out of the codec as they went in.
#include <procpool/codec.hpp>

#include <array>
#include <bitset>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <forward_list>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "fuzz/everything.hpp"
#include "unit/codec_support.hpp"

using namespace codec_test;
using Catch::Matchers::ContainsSubstring;
using procpool::codec;
using procpool::DecodeError;
using procpool::encodable;
using procpool::detail::is_flat_v;

namespace {

enum class Small : signed char {};
enum class Big : std::uint64_t {};
enum Plain : int { zero, one };
enum Truth : bool { no, yes };

struct Point {
  double x = 0;
  double y = 0;
  static Point random(generator& r) { return {random_value<double>(r), random_value<double>(r)}; }
  bool operator==(const Point&) const = default;
};

struct Row {
  std::string name;
  std::optional<double> score;
  std::map<std::string, int> tags;
  Point place;
  bool valid = false;
  Small small{};
  static Row random(generator& r) {
    return {random_value<std::string>(r),
            random_value<std::optional<double>>(r),
            random_value<std::map<std::string, int>>(r),
            Point::random(r),
            random_value<bool>(r),
            random_value<Small>(r)};
  }
  bool operator==(const Row&) const = default;
};

struct Empty {
  bool operator==(const Empty&) const = default;
  static Empty random(generator&) { return {}; }
};

struct Node {
  int value = 0;
  std::vector<Node> children;
  bool operator==(const Node&) const = default;
};

/// A node on top of `levels` others.
Node tower(std::size_t levels) {
  Node top{0, {}};
  for (std::size_t i = 1; i <= levels; ++i) {
    Node next{static_cast<int>(i), {}};
    next.children.push_back(std::move(top));
    top = std::move(next);
  }
  return top;
}

}  // namespace

TEMPLATE_TEST_CASE("numbers, characters, bool and enums survive a round trip", "[codec]", bool,
                   char, signed char, unsigned char, wchar_t, char8_t, char16_t, char32_t, short,
                   unsigned short, int, unsigned, long, unsigned long, long long,
                   unsigned long long, float, double, long double, std::byte, Small, Big) {
  check_round_trips<TestType>();
}

TEST_CASE("special numbers keep their bits", "[codec]") {
  check_round_trip(std::numeric_limits<double>::infinity());
  check_round_trip(-0.0);
  CHECK(std::signbit(decoded<double>(encoded(-0.0).view())));
  CHECK(std::isnan(decoded<double>(encoded(std::nan("")).view())));
  CHECK(std::isnan(decoded<long double>(encoded(std::nanl("")).view())));
  check_round_trip(std::numeric_limits<long double>::denorm_min());
  check_round_trip(one);
  check_round_trip(yes);
}

TEST_CASE("integers of 128 bits survive a round trip", "[codec]") {
  using procpool::detail::int128;
  const int128 big = (int128{1} << 100) + 7;
  CHECK(decoded<int128>(encoded(big).view()) == big);
  CHECK(decoded<std::vector<int128>>(encoded(std::vector<int128>{big, -big}).view())[1] == -big);
}

TEMPLATE_TEST_CASE("strings survive a round trip", "[codec]", std::string, std::wstring,
                   std::u8string, std::u16string, std::u32string) {
  check_round_trips<TestType>();
}

TEST_CASE("a string may contain zeros", "[codec]") {
  check_round_trip(std::string("a\0b", 3));
}

TEMPLATE_TEST_CASE("sequences survive a round trip", "[codec]", std::vector<int>,
                   std::vector<double>, std::vector<std::string>, std::vector<bool>,
                   std::vector<std::vector<short>>, std::vector<Point>, std::vector<Row>,
                   std::vector<Small>, std::vector<Empty>, std::deque<int>, std::deque<std::string>,
                   std::list<double>, std::list<std::list<bool>>, (std::array<int, 3>),
                   (std::array<std::string, 2>), (std::array<bool, 4>),
                   (std::array<std::array<char, 3>, 2>)) {
  check_round_trips<TestType>();
}

TEST_CASE("std::forward_list and empty arrays survive a round trip", "[codec]") {
  check_round_trip(std::forward_list<std::string>{});
  check_round_trip(std::forward_list<std::string>{"one", "two", "three"});
  check_round_trip(std::array<int, 0>{});
  check_round_trip(std::vector<std::array<std::string, 0>>(3));
}

TEST_CASE("vectors of bool survive at every length", "[codec]") {
  generator random(1);
  for (std::size_t n = 0; n < 70; ++n) {
    std::vector<bool> bits(n);
    for (std::size_t i = 0; i < n; ++i) bits[i] = random() % 2 == 1;
    check_round_trip(bits);
    CHECK(encoded(bits).size() == 8 + (n + 7) / 8);
  }
}

TEMPLATE_TEST_CASE("associative containers survive a round trip", "[codec]", std::set<int>,
                   std::set<std::string>, std::multiset<char>, (std::map<int, std::string>),
                   (std::map<std::string, std::map<int, bool>>),
                   (std::map<int, int, std::greater<>>), (std::multimap<bool, int>),
                   std::unordered_set<std::string>, std::unordered_multiset<signed char>,
                   (std::unordered_map<int, std::vector<int>>),
                   (std::unordered_multimap<bool, char>), (std::map<int, Row>)) {
  check_round_trips<TestType>();
}

TEST_CASE("a multimap keeps the order of equal keys", "[codec]") {
  const std::multimap<int, std::string> value{{1, "b"}, {1, "a"}, {0, "z"}, {1, "c"}};
  check_round_trip(value);
}

TEMPLATE_TEST_CASE("pairs, tuples and optionals survive a round trip", "[codec]",
                   (std::pair<int, std::string>), (std::pair<bool, std::pair<char, double>>),
                   std::tuple<>, std::tuple<int>, (std::tuple<std::string, bool, double>),
                   (std::tuple<std::tuple<int>>), std::optional<int>, std::optional<bool>,
                   std::optional<std::string>, std::optional<std::optional<int>>,
                   std::vector<std::optional<Row>>, Row, Empty) {
  check_round_trips<TestType>();
}

TEST_CASE("each alternative of a variant survives a round trip", "[codec]") {
  using variant = std::variant<std::monostate, int, std::string, Point, int>;
  check_round_trip(variant());
  check_round_trip(variant(std::in_place_index<1>, 5));
  check_round_trip(variant("text"));
  check_round_trip(variant(Point{1, 2}));
  check_round_trip(variant(std::in_place_index<4>, 5));
}

TEST_CASE("bits, complex numbers, times and paths survive a round trip", "[codec]") {
  check_round_trip(std::bitset<0>());
  check_round_trip(std::bitset<8>(0xa5));
  check_round_trip(std::bitset<65>().set(64).set(0));
  check_round_trip(std::complex<double>(1, -2));
  check_round_trip(std::vector<std::complex<float>>{{1, 2}, {3, 4}});
  check_round_trip(std::complex<long double>(1, -2));
  check_round_trip(std::chrono::milliseconds(-5));
  check_round_trip(std::chrono::duration<double>(0.5));
  check_round_trip(std::vector<std::chrono::steady_clock::time_point>(3));
  check_round_trip(std::chrono::system_clock::now());
  check_round_trip(std::filesystem::path("some//where/../x"));
  check_round_trip(std::filesystem::path());
}

TEST_CASE("a value of every codec at once survives a round trip", "[codec]") {
  check_round_trip(everything::Everything{});
  check_round_trip(everything::sample());
}

// ---------------------------------------------------------------------------- ownership

TEST_CASE("a unique_ptr is sent as what it points to", "[codec]") {
  const auto number = decoded<std::unique_ptr<int>>(encoded(std::make_unique<int>(5)).view());
  REQUIRE(number != nullptr);
  CHECK(*number == 5);
  CHECK(decoded<std::unique_ptr<int>>(encoded(std::unique_ptr<int>()).view()) == nullptr);
  const auto constant =
      decoded<std::unique_ptr<const int>>(encoded(std::make_unique<const int>(6)).view());
  CHECK(*constant == 6);
}

namespace {
struct MoveOnly {
  std::unique_ptr<std::string> text;
  std::optional<std::unique_ptr<int>> number;
  std::vector<std::unique_ptr<int>> more;
};
}  // namespace

TEST_CASE("types that can only be moved are sent and received", "[codec]") {
  std::vector<MoveOnly> rows(2);
  rows[0].text = std::make_unique<std::string>("text");
  rows[0].number = std::make_unique<int>(1);
  rows[0].more.push_back(std::make_unique<int>(2));
  const auto back = decoded<std::vector<MoveOnly>>(encoded(rows).view());
  REQUIRE(back.size() == 2);
  CHECK(*back[0].text == "text");
  CHECK(**back[0].number == 1);
  CHECK(*back[0].more.at(0) == 2);
  CHECK(back[1].text == nullptr);
  const std::map<int, std::unique_ptr<int>> map = [] {
    std::map<int, std::unique_ptr<int>> m;
    m.emplace(1, std::make_unique<int>(10));
    return m;
  }();
  CHECK(*decoded<std::map<int, std::unique_ptr<int>>>(encoded(map).view()).at(1) == 10);
  using array = std::array<std::unique_ptr<int>, 2>;
  const array two{std::make_unique<int>(1), nullptr};
  CHECK(*decoded<array>(encoded(two).view())[0] == 1);
}

TEST_CASE("a variant without a value is refused", "[codec]") {
  std::variant<std::string, std::deque<int>> value("text");  // moving a deque may throw
  CHECK_THROWS(value.emplace<1>(std::deque<int>().max_size() + 1));
  REQUIRE(value.valueless_by_exception());
  CHECK_THROWS_AS(encoded(value), std::invalid_argument);
}

// ---------------------------------------------------------------------------- recursion

TEST_CASE("types that contain themselves survive a round trip", "[codec]") {
  check_round_trip(Node{1, {{2, {}}, {3, {{4, {}}}}}});
  check_round_trip(tower(63));
}

TEST_CASE("what nests too deeply is refused before it is sent, and when it is received",
          "[codec]") {
  CHECK_NOTHROW(encoded(tower(63)));
  CHECK_THROWS_AS(encoded(tower(64)), std::length_error);
  const byte_buffer message = encoded(tower(9));
  CHECK_NOTHROW(decoded<Node>(message.view(), {.max_depth = 10}));
  CHECK_THROWS_WITH(decoded<Node>(message.view(), {.max_depth = 9}), ContainsSubstring("deep"));
}

TEST_CASE("depth is what is nested, not what is side by side", "[codec]") {
  const std::vector<std::vector<std::string>> wide(1000, {"a", "b"});
  CHECK(decoded<std::vector<std::vector<std::string>>>(encoded(wide).view()) == wide);
}

// ---------------------------------------------------------------------------- the bytes

TEST_CASE("flat types are their bytes, and blocks of them are aligned", "[codec]") {
  CHECK(encoded(Point{1, 2}).size() == sizeof(Point));
  const std::pair<char, std::vector<double>> value{'x', {1.5, 2.5}};
  const byte_buffer message = encoded(value);
  REQUIRE(message.size() == 16 + 2 * sizeof(double));  // 1 + 8 for the count, 7 zeros
  for (std::size_t i = 9; i < 16; ++i) CHECK(message.data()[i] == std::byte{0});
  double first = 0;
  std::memcpy(&first, message.data() + 16, sizeof first);
  CHECK(first == 1.5);
}

TEST_CASE("an encoder appends to what is there and aligns from where it began", "[codec]") {
  byte_buffer buffer;
  buffer.resize_uninitialized(32);
  encoder e(buffer);
  CHECK(e.size() == 0);
  e.put('x');
  e.align(8);
  CHECK(e.size() == 8);
  e.align(8);
  CHECK(e.size() == 8);
  e.bytes("abc", 3);
  e.count(5);
  CHECK(e.size() == 19);
  CHECK(buffer.size() == 32 + 19);
  decoder d(buffer.view().subspan(32));
  CHECK(d.get<char>() == 'x');
  d.align(8);
  CHECK(d.offset() == 8);
  CHECK(std::memcmp(d.bytes(3).data(), "abc", 3) == 0);
  CHECK(d.remaining() == 8);
  CHECK_THROWS_AS(d.count(1), DecodeError);  // five elements, no byte left
}

TEST_CASE("a fixed span that is too small is a length_error", "[codec]") {
  alignas(16) std::array<std::byte, 16> room{};
  encoder e(room);
  e.put(1.0);
  CHECK_THROWS_WITH(e.put(std::string("text")), ContainsSubstring("does not fit into 16"));
  encoder nowhere{std::span<std::byte>()};
  nowhere.put(std::tuple<>());
  CHECK_THROWS_AS(nowhere.put('x'), std::length_error);
}

TEST_CASE("counting does not look at contiguous data", "[codec]") {
  const auto* nowhere = reinterpret_cast<const double*>(std::uintptr_t{4096});
  const std::span<const double> huge(nowhere, std::size_t{1} << 40);
  CHECK(counted(huge) == 8 + (std::size_t{8} << 40));
}

TEST_CASE("counting follows the alignment of the real thing", "[codec]") {
  encoder counting = encoder::counting();
  byte_buffer buffer;
  encoder real(buffer);
  for (const char letter : {'a', 'b', 'c'}) {
    for (encoder* e : {&counting, &real}) {
      e->put(letter);
      e->put(std::vector<double>{1});
      e->put(std::vector<short>{1, 2, 3});
    }
    CHECK(counting.size() == real.size());
  }
}

// ---------------------------------------------------------------------------- own codecs

namespace {

class Celsius {
 public:
  explicit Celsius(double degrees) : degrees_(degrees) {}
  [[nodiscard]] double degrees() const { return degrees_; }
  bool operator==(const Celsius&) const = default;

 private:
  double degrees_;
};

class Pixel {  // a class with constructors whose bytes are its value
 public:
  Pixel(unsigned char r, unsigned char g, unsigned char b) : rgb_{r, g, b} {}
  bool operator==(const Pixel&) const = default;

 private:
  unsigned char rgb_[3];
};

template <class T>
struct Box {  // an aggregate with a codec of its own
  T value;
  bool operator==(const Box&) const = default;
};

struct Percent {
  int value = 0;
  bool operator==(const Percent&) const = default;
};

}  // namespace

template <>
struct procpool::codec<Celsius> {
  static constexpr std::size_t min_wire_size = sizeof(double);
  static void encode(encoder& e, const Celsius& value) { e.put(value.degrees()); }
  static Celsius decode(decoder& d) { return Celsius(d.get<double>()); }
};

template <>
struct procpool::codec<Pixel> : procpool::flat_codec<Pixel> {};

template <class T>
struct procpool::codec<Box<T>> {
  static void encode(encoder& e, const Box<T>& box) {
    e.put('<');
    e.put(box.value);
    e.put('>');
  }
  static Box<T> decode(decoder& d) {
    if (d.get<char>() != '<') d.fail("no box");
    Box<T> box{d.get<T>()};
    if (d.get<char>() != '>') d.fail("an open box");
    return box;
  }
};

template <>
struct procpool::codec<Percent> {
  static void encode(encoder& e, const Percent& value) { e.put(value.value); }
  static Percent decode(decoder& d) {
    const Percent percent{d.get<int>()};
    if (percent.value < 0 || percent.value > 100) d.fail("no percentage");
    return percent;
  }
};

TEST_CASE("a class with a codec of its own is sent by it, alone and inside others", "[codec]") {
  STATIC_REQUIRE(encodable<Celsius>);
  check_round_trip(Celsius(21.5));
  check_round_trip(std::vector<Celsius>(3, Celsius(1)));
  check_round_trip(std::array<Celsius, 2>{Celsius(1), Celsius(2)});
  check_round_trip(std::map<int, Celsius>{{1, Celsius(1)}});
  check_round_trip(Box<std::vector<std::string>>{{"a", "b"}});
  check_round_trip(std::vector<Box<int>>{{1}, {2}});
}

TEST_CASE("a codec of its own replaces that of an aggregate, and the copy of its bytes",
          "[codec]") {
  STATIC_REQUIRE_FALSE(is_flat_v<Percent>);
  check_round_trip(std::vector<Percent>{{1}, {100}});
  CHECK_THROWS_WITH(decoded<Percent>(encoded(101).view()), ContainsSubstring("no percentage at"));
  CHECK_THROWS_AS(decoded<Box<int>>(message_of('(', 1, '>').view()), DecodeError);
}

TEST_CASE("a class that declares itself flat is copied as bytes", "[codec]") {
  STATIC_REQUIRE(is_flat_v<Pixel>);
  const std::vector<Pixel> pixels(4, Pixel(1, 2, 3));
  CHECK(encoded(pixels).size() == 8 + 4 * sizeof(Pixel));
  check_round_trip(pixels);
  check_round_trip(Pixel(1, 2, 3));
}

TEST_CASE("an enum with a predicate refuses numbers that are no value of it", "[codec]") {
  using everything::Color;
  check_round_trip(Color::blue);
  CHECK_THROWS_WITH(decoded<Color>(message_of(std::uint8_t{3}).view()),
                    ContainsSubstring("no value of its enum"));
  CHECK(decoded<everything::Level>(message_of(short{999}).view()) == everything::Level{999});
}
