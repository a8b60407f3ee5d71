// SPDX-License-Identifier: MIT
// std::string_view and std::span<const T> come out of the codec as views into the message.
#include <array>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <numeric>
#include <optional>
#include <procpool/codec.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "unit/codec_support.hpp"

using namespace codec_test;
using Catch::Matchers::ContainsSubstring;
using procpool::DecodeError;
using procpool::encodable;
using procpool::is_view_v;
using procpool::detail::contains_view_v;

namespace {

struct Point {
  float x, y;
  bool operator==(const Point&) const = default;
};

struct Request {
  char kind;
  std::string_view name;
  std::span<const double> numbers;
};

template <class T>
bool lies_in(std::span<const T> view, const byte_buffer& message) {
  const auto bytes = std::as_bytes(view);
  return bytes.data() >= message.data() &&
         bytes.data() + bytes.size() <= message.data() + message.size();
}

}  // namespace

TEST_CASE("a string_view is sent like a string and borrows from the message", "[codec]") {
  const byte_buffer message = encoded(std::string("some text"));
  CHECK(message.size() == encoded(std::string_view("some text")).size());
  decoder d(message.view());
  const auto view = d.get<std::string_view>();
  d.finish();
  CHECK(view == "some text");
  CHECK(lies_in(std::span(view.data(), view.size()), message));
  CHECK(decoded<std::u16string_view>(encoded(std::u16string(u"wide")).view()) == u"wide");
}

TEMPLATE_TEST_CASE("a span is sent like a vector and borrows aligned elements", "[codec]", char,
                   std::byte, short, int, double, Point, procpool::detail::int128,
                   (std::array<float, 3>)) {
  for (std::size_t before = 0; before < 20; ++before) {
    byte_buffer message;
    encoder e(message);
    for (std::size_t i = 0; i < before; ++i) e.put('x');
    e.put(std::vector<TestType>(5));
    decoder d(message.view());
    static_cast<void>(d.bytes(before));
    const auto view = d.get<std::span<const TestType>>();
    d.finish();
    CHECK(view.size() == 5);
    CHECK(lies_in(view, message));
    CHECK(reinterpret_cast<std::uintptr_t>(view.data()) % alignof(TestType) == 0);
  }
}

TEST_CASE("views of nothing are empty", "[codec]") {
  CHECK(decoded<std::string_view>(encoded(std::string()).view()).empty());
  CHECK(decoded<std::span<const double>>(encoded(std::span<const double>()).view()).empty());
}

TEST_CASE("views inside structs and tuples borrow too", "[codec]") {
  const double numbers[] = {1, 2, 3};
  const byte_buffer message = encoded(Request{'r', "name", numbers});
  decoder d(message.view());
  const auto request = d.get<Request>();
  CHECK(request.name == "name");
  CHECK(std::accumulate(request.numbers.begin(), request.numbers.end(), 0.0) == 6);
  CHECK(lies_in(request.numbers, message));
}

TEST_CASE("a span of fixed size takes exactly as many elements", "[codec]") {
  const byte_buffer message = encoded(std::vector<int>{1, 2, 3});
  CHECK(decoded<std::span<const int, 3>>(message.view())[2] == 3);
  const auto two = [&] { return decoded<std::span<const int, 2>>(message.view())[0]; };
  CHECK_THROWS_AS(two(), DecodeError);
}

TEST_CASE("a message at an address where a view would not be aligned is refused", "[codec]") {
  const byte_buffer message = encoded(std::vector<double>{1, 2});
  const misaligned elsewhere(message.view());
  CHECK_THROWS_WITH(decoded<std::span<const double>>(elsewhere.view()),
                    ContainsSubstring("not aligned"));
  CHECK(decoded<std::vector<double>>(elsewhere.view()) == std::vector<double>{1, 2});
  CHECK(decoded<std::string_view>(misaligned(encoded(std::string("x")).view()).view()) == "x");
}

TEST_CASE("which types are views, contain views, or cannot be views", "[codec]") {
  STATIC_REQUIRE(is_view_v<std::string_view>);
  STATIC_REQUIRE(is_view_v<const std::wstring_view>);
  STATIC_REQUIRE(is_view_v<std::span<const std::byte>>);
  STATIC_REQUIRE(is_view_v<std::span<const Point, 2>>);
  STATIC_REQUIRE_FALSE(is_view_v<std::string>);
  STATIC_REQUIRE_FALSE(is_view_v<std::vector<std::string_view>>);
  STATIC_REQUIRE_FALSE(is_view_v<Request>);

  STATIC_REQUIRE(contains_view_v<std::string_view>);
  STATIC_REQUIRE(contains_view_v<std::vector<std::string_view>>);
  STATIC_REQUIRE(contains_view_v<Request>);
  STATIC_REQUIRE(contains_view_v<std::tuple<int, std::optional<Request>>>);
  STATIC_REQUIRE_FALSE(contains_view_v<std::vector<std::string>>);

  STATIC_REQUIRE_FALSE(encodable<std::span<int>>);                // would have to be writable
  STATIC_REQUIRE_FALSE(encodable<std::span<const std::string>>);  // no bytes to look at
  STATIC_REQUIRE_FALSE(encodable<std::span<const bool>>);         // any byte could be there
}
