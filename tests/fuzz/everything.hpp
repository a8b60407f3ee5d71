// SPDX-License-Identifier: MIT
// One type that uses every codec of the library, and a value of it in which nothing is empty.
#pragma once

#include <array>
#include <bitset>
#include <chrono>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <procpool/codec.hpp>
#include <procpool/codec/associative.hpp>
#include <procpool/codec/chrono.hpp>
#include <procpool/codec/complex.hpp>
#include <procpool/codec/list.hpp>
#include <procpool/codec/path.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace everything {

enum class Color : std::uint8_t { red, green, blue };
constexpr bool is_color(Color color) {
  return color <= Color::blue;
}

enum class Level : std::int16_t {};

struct Empty {
  bool operator==(const Empty&) const = default;
};

struct Point {
  float x = 0;
  float y = 0;
  bool operator==(const Point&) const = default;
};

struct Padded {
  char letter = 0;
  double number = 0;
  bool flag = false;
  bool operator==(const Padded&) const = default;
};

/// A tree that contains itself in two ways.
struct Node {
  int value = 0;
  std::vector<Node> children;
  std::map<std::string, Node> named;
  bool operator==(const Node&) const = default;
};

/// A list that contains itself through a pointer.
struct Link {
  std::int8_t value = 0;
  std::unique_ptr<Link> next;
  bool operator==(const Link& other) const {
    if (value != other.value || (next == nullptr) != (other.next == nullptr)) return false;
    return next == nullptr || *next == *other.next;
  }
};

/// A class with an invariant and a codec of its own.
class Even {
 public:
  Even() = default;
  explicit Even(unsigned half) : half_(half) {}
  [[nodiscard]] unsigned value() const { return 2 * half_; }
  bool operator==(const Even&) const = default;

 private:
  unsigned half_ = 0;
};

struct Scalars {
  bool flag = false;
  std::byte raw{};
  char32_t letter = 0;
  std::int64_t number = 0;
  double real = 0;
  long double wide = 0;
  Color color = Color::red;
  Level level{};
  std::complex<float> phase;
  std::array<Point, 2> corners;
  std::array<std::string, 2> names;
  std::bitset<11> bits;
  bool operator==(const Scalars&) const = default;
};

struct Sequences {
  std::string text;
  std::u16string wide_text;
  std::vector<double> numbers;
  std::vector<Point> points;
  std::vector<Padded> padded;
  std::vector<bool> flags;
  std::vector<Empty> nothings;
  std::vector<std::string> lines;
  std::deque<short> deque;
  std::list<std::string> list;
  std::forward_list<int> forward;
  bool operator==(const Sequences&) const = default;
};

struct Associations {
  std::set<int> set;
  std::multiset<char> multiset;
  std::map<std::string, int> map;
  std::multimap<int, std::string> multimap;
  std::unordered_set<std::string> unordered_set;
  std::unordered_multiset<int> unordered_multiset;
  std::unordered_map<int, Point> unordered_map;
  std::unordered_multimap<int, bool> unordered_multimap;
  bool operator==(const Associations&) const = default;
};

struct Vocabulary {
  std::pair<int, std::string> pair;
  std::tuple<char, double, std::string> tuple;
  std::optional<Padded> optional;
  std::optional<bool> nothing;
  std::variant<std::monostate, int, std::string, Padded> variant;
  std::chrono::nanoseconds duration{};
  std::chrono::system_clock::time_point time;
  std::filesystem::path path;
  Even even;
  bool operator==(const Vocabulary&) const = default;
};

struct Everything {
  Scalars scalars;
  Sequences sequences;
  Associations associations;
  Vocabulary vocabulary;
  Node tree;
  Link chain;
  std::optional<std::unique_ptr<int>> owned;
  Empty empty;
  bool operator==(const Everything& other) const {
    const auto pointee = [](const auto& p) { return p && *p ? std::optional(**p) : std::nullopt; };
    return scalars == other.scalars && sequences == other.sequences &&
           associations == other.associations && vocabulary == other.vocabulary &&
           tree == other.tree && chain == other.chain && pointee(owned) == pointee(other.owned);
  }
};

/// The views, which make no sense inside of Everything.
struct Views {
  std::string_view text;
  std::span<const double> numbers;
  std::span<const std::byte> bytes;
  std::span<const std::uint16_t, 3> three;
};

inline Everything sample() {
  Everything value;
  value.scalars = {true,
                   std::byte{7},
                   U'ß',
                   -5,
                   2.5,
                   1.25L,
                   Color::green,
                   Level{-3},
                   {1, 2},
                   {{{1, 2}, {3, 4}}},
                   {"first", "second"},
                   std::bitset<11>(0x5a5)};
  value.sequences = {
      "text",      u"wide",   {1.5, 2.5}, {{1, 2}}, {{'a', 3.5, true}}, {true, false, 1}, {{}, {}},
      {"one", ""}, {1, 2, 3}, {"x", "y"}, {4, 5}};
  value.associations = {
      {3, 1, 2}, {'a', 'a', 'b'}, {{"one", 1}, {"two", 2}}, {{1, "a"}, {1, "b"}}, {"p", "q"},
      {7, 7, 8}, {{1, {1, 2}}},   {{1, true}, {1, false}}};
  using namespace std::chrono_literals;
  value.vocabulary = {{1, "pair"},
                      {'t', 0.5, "tuple"},
                      Padded{'o', 1, false},
                      std::nullopt,
                      Padded{'v', 2, true},
                      123ns,
                      std::chrono::system_clock::time_point(5s),
                      "/some/path",
                      Even(21)};
  value.tree = {1, {{2, {}, {}}, {3, {{4, {}, {}}}, {}}}, {{"five", {5, {}, {}}}}};
  value.chain = {1, std::make_unique<Link>(Link{2, std::make_unique<Link>(Link{3, nullptr})})};
  value.owned = std::make_unique<int>(6);
  return value;
}

}  // namespace everything

template <>
struct procpool::codec<everything::Color>
    : procpool::checked_enum<everything::Color, everything::is_color> {};

template <>
struct procpool::codec<everything::Even> {
  static constexpr std::size_t min_wire_size = sizeof(unsigned);
  static void encode(encoder& e, const everything::Even& even) { e.put(even.value()); }
  static everything::Even decode(decoder& d) {
    const auto value = d.get<unsigned>();
    if (value % 2 != 0) d.fail("an odd number");
    return everything::Even(value / 2);
  }
};
