// SPDX-License-Identifier: MIT
// The growing block of bytes under every message.
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <procpool/detail/base/byte_buffer.hpp>
#include <string>
#include <utility>

using procpool::detail::byte_buffer;

namespace {

std::string text(const byte_buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.data()), buffer.size()};
}

}  // namespace

TEST_CASE("a byte_buffer grows by appending and keeps its contents", "[codec]") {
  byte_buffer buffer;
  CHECK(buffer.empty());
  CHECK(buffer.capacity() == 0);
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string piece = std::to_string(i);
    buffer.append(piece.data(), piece.size());
    expected += piece;
  }
  buffer.append(nullptr, 0);
  CHECK(text(buffer) == expected);
  CHECK(buffer.view().size() == expected.size());
}

TEST_CASE("the memory of a byte_buffer is aligned and outlives clear", "[codec]") {
  byte_buffer buffer;
  for (std::size_t n = 1; n < 1 << 20; n *= 3) {
    buffer.resize_uninitialized(n);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % byte_buffer::alignment == 0);
  }
  const auto capacity = buffer.capacity();
  const auto* data = buffer.data();
  buffer.clear();
  CHECK(buffer.empty());
  CHECK(buffer.capacity() == capacity);
  buffer.reserve(10);
  CHECK(buffer.data() == data);
}

TEST_CASE("resizing a byte_buffer keeps the bytes before the new end", "[codec]") {
  byte_buffer buffer;
  buffer.append("abcdef", 6);
  buffer.resize_uninitialized(100'000);
  CHECK(std::memcmp(buffer.data(), "abcdef", 6) == 0);
  buffer.resize_uninitialized(3);
  CHECK(text(buffer) == "abc");
}

TEST_CASE("moving a byte_buffer moves its memory", "[codec]") {
  byte_buffer first;
  first.append("first", 5);
  byte_buffer second(std::move(first));
  CHECK(text(second) == "first");
  CHECK(first.empty());  // NOLINT(bugprone-use-after-move): it is promised to be empty
  byte_buffer third;
  third.append("third", 5);
  third = std::move(second);
  CHECK(text(third) == "first");
}

TEST_CASE("memory that cannot be had is bad_alloc and changes nothing", "[codec]") {
  byte_buffer buffer;
  buffer.append("abc", 3);
  const auto huge = std::numeric_limits<std::size_t>::max();
  CHECK_THROWS_AS(buffer.make_room(huge), std::bad_alloc);
  CHECK_THROWS_AS(buffer.make_room(huge - 1), std::bad_alloc);
  CHECK(text(buffer) == "abc");
}
