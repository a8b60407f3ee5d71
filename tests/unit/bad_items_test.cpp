// SPDX-License-Identifier: MIT
/// @file
/// One item of a chunk fails, in any way: the others have their results.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cstddef>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/codec/vocabulary.hpp>
#include <procpool/procpool.hpp>

namespace {

enum class color : int { red, green, blue };
constexpr bool is_color(color c) {
  return c <= color::blue;
}

// Its decoder refuses what is below absolute zero, after it has read it.
struct degrees {
  double value;
};

// Its decoder takes so many bytes too few, or too many.
struct crooked {
  int number;
  int off;
};

// An exception that cannot be encoded.
struct sick : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A result that cannot be encoded, or decoded.
struct fragile {
  int number;
};

}  // namespace

template <>
struct procpool::codec<color> : procpool::checked_enum<color, is_color> {};
template <>
struct procpool::codec<degrees> {
  static void encode(encoder& out, const degrees& value) { out.put(value.value); }
  static degrees decode(decoder& in) {
    const auto value = in.get<double>();
    if (value < -273.15) in.fail("colder than possible");
    return {value};
  }
};
template <>
struct procpool::codec<crooked> {
  static void encode(encoder& out, const crooked& value) {
    out.put(value.off);
    for (int i = 0; i < 4; ++i) out.put(value.number);
  }
  static crooked decode(decoder& in) {
    const int off = in.get<int>();
    int number = 0;
    for (int i = 0; i < 4 + off; ++i) number = in.get<int>();
    return {number, off};
  }
};
template <>
struct procpool::codec<sick> {
  static void encode(encoder& /*out*/, const sick& /*value*/) { throw std::range_error("sick"); }
  static sick decode(decoder& /*in*/) { return sick(""); }
};
template <>
struct procpool::codec<fragile> {
  static void encode(encoder& out, const fragile& value) {
    if (value.number == 3) throw std::range_error("not three");
    out.put(value.number);
  }
  static fragile decode(decoder& in) {
    const int number = in.get<int>();
    if (number == 5) in.fail("not five");
    return {number};
  }
};

namespace {

int number_of(color c) {
  return static_cast<int>(c);
}
double value_of(const degrees& d) {
  return d.value;
}
int number_in(const crooked& c) {
  return c.number;
}
int throws_sick(int i) {
  if (i == 3) throw sick("x");
  return i;
}
fragile make_fragile(int i) {
  return {i};
}
std::size_t length_of(std::string_view text, const degrees& d) {
  return d.value > 0 ? text.size() : 0;
}

template <class Backend>
procpool::Pool<Backend> make_pool() {
  return procpool::Pool<Backend>({.processes = 1});
}
template <>
procpool::Pool<procpool::Serial> make_pool() {
  return {};
}

// The indices of items without result.
template <class Outcomes>
std::vector<std::size_t> failed(const Outcomes& outcomes) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (!outcomes[i]) found.push_back(i);
  }
  return found;
}

using list = std::vector<std::size_t>;

}  // namespace

TEMPLATE_TEST_CASE("an item that cannot be decoded fails alone", "[codec]", procpool::Processes,
                   procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  const std::vector<color> colors{color::red, color(9), color::blue, color(-1), color::green};
  const std::vector<degrees> temperatures{{1}, {2}, {-300}, {4}, {5}, {6}};
  const std::vector<crooked> numbers{{1, 0}, {2, -1}, {3, 0}, {4, 1}, {5, 0}, {6, 5}, {7, 0}};
  for (const std::ptrdiff_t chunksize : {1, 2, 100}) {
    CAPTURE(chunksize);
    const auto named = pool.map_outcomes(number_of, colors, {.chunksize = chunksize});
    CHECK(failed(named) == list{1});  // -1 is below blue
    CHECK(named[4].value() == 1);
    CHECK_THROWS_AS(named[1].value(), procpool::DecodeError);

    const auto measured = pool.map_outcomes(value_of, temperatures, {.chunksize = chunksize});
    CHECK(failed(measured) == list{2});
    CHECK(measured[5].value() == 6);

    const auto odd = pool.map_outcomes(number_in, numbers, {.chunksize = chunksize});
    CHECK(failed(odd) == list{1, 3, 5});
    CHECK(odd[6].value() == 7);
    CHECK_THROWS_AS(odd[3].value(), procpool::DecodeError);
  }
}

TEMPLATE_TEST_CASE("all kinds of maps go on behind an item that cannot be decoded", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  const std::vector<degrees> temperatures{{1}, {2}, {-300}, {4}, {5}, {6}};
  CHECK_THROWS_AS(pool.map(value_of, temperatures, {.chunksize = 100}), procpool::DecodeError);

  double sum = 0;
  int failures = 0;
  auto lazy = pool.imap(value_of, temperatures, {.chunksize = 100});
  for (std::size_t i = 0; i < temperatures.size(); ++i) {
    try {
      sum += lazy.next().value();
    } catch (const procpool::DecodeError&) {
      ++failures;
    }
  }
  CHECK(sum == 18);
  CHECK(failures == 1);

  // Views look into the message: they must be where their alignment demands.
  const std::vector<std::pair<std::string, degrees>> pairs{
      {"a", {1}}, {"bc", {-300}}, {"def", {3}}, {std::string(300'000, 'x'), {4}}};
  CHECK_THROWS_AS(pool.starmap(length_of, pairs, {.chunksize = 100}), procpool::DecodeError);
  const auto spans = pool.map(
      [](std::span<const double> values) { return values.size(); },
      std::vector<std::vector<double>>{{1}, {2, 3}, {}, std::vector<double>(100'000, 1.0)});
  CHECK(spans == list{1, 2, 0, 100'000});

  // In a reduction the first failure is that of the whole: nothing of the others remains.
  const auto add = [](double a, double b) { return a + b; };
  CHECK_THROWS_AS(pool.map_reduce(value_of, temperatures, add, {.chunksize = 100}),
                  procpool::DecodeError);
  CHECK(pool.apply(value_of, degrees{7}) == 7);
  CHECK_THROWS_AS(pool.apply(value_of, degrees{-300}), procpool::DecodeError);
  CHECK_THROWS_AS(pool.apply(number_in, crooked{1, -1}), procpool::DecodeError);
}

TEMPLATE_TEST_CASE("an item whose result cannot be sent fails alone", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  const std::vector<int> numbers{0, 1, 2, 3, 4, 5, 6, 7};
  const auto made = pool.map_outcomes(make_fragile, numbers, {.chunksize = 100});
  CHECK(failed(made) == list{3, 5});
  CHECK_THROWS_AS(made[3].value(), std::range_error);
  CHECK_THROWS_AS(made[5].value(), procpool::DecodeError);
  CHECK(made[7].value().number == 7);
}

TEMPLATE_TEST_CASE("an item whose exception cannot be sent fails alone", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  procpool::register_exception<sick>();
  auto pool = make_pool<TestType>();
  const std::vector<int> numbers{0, 1, 2, 3, 4, 5, 6, 7};
  const auto outcomes = pool.map_outcomes(throws_sick, numbers, {.chunksize = 100});
  CHECK(failed(outcomes) == list{3});
  CHECK_THROWS_AS(outcomes[3].value(), std::exception);
  CHECK(outcomes[7].value() == 7);
}
