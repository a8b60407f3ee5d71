// SPDX-License-Identifier: MIT
// Decoding is total: whatever the bytes are, the result is a value or a DecodeError, and no
// message makes a decoder allocate more than its own length justifies.
#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <procpool/codec.hpp>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fuzz/everything.hpp"
#include "unit/codec_support.hpp"

using namespace codec_test;
using Catch::Matchers::ContainsSubstring;
using procpool::decode_limits;
using procpool::DecodeError;

namespace {

constexpr std::uint64_t all_ones = ~std::uint64_t{0};

// ---------------------------------------------------------------------------- a watched memory

/// What went through recording allocators since the last start().
struct allocations {
  static inline std::size_t largest = 0;
  static inline std::size_t total = 0;
  static void start() { largest = total = 0; }
};

template <class T>
struct recording {
  using value_type = T;
  recording() = default;
  template <class U>
  recording(const recording<U>&) {}  // NOLINT(google-explicit-constructor)
  T* allocate(std::size_t n) {
    allocations::largest = std::max(allocations::largest, n * sizeof(T));
    allocations::total += n * sizeof(T);
    if (n > (std::size_t{1} << 30) / sizeof(T)) throw std::bad_alloc();
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) { std::allocator<T>().deallocate(p, n); }
  bool operator==(const recording&) const = default;
};

template <class T>
using rvector = std::vector<T, recording<T>>;
template <class T>
using rlist = std::list<T, recording<T>>;
template <class T>
using rdeque = std::deque<T, recording<T>>;
template <class T>
using rset = std::set<T, std::less<>, recording<T>>;
template <class T>
using rhashset = std::unordered_set<T, std::hash<T>, std::equal_to<>, recording<T>>;
template <class K, class V>
using rmap = std::map<K, V, std::less<>, recording<std::pair<const K, V>>>;
template <class K, class V>
using rhashmap =
    std::unordered_map<K, V, std::hash<K>, std::equal_to<>, recording<std::pair<const K, V>>>;
using rstring = std::basic_string<char, std::char_traits<char>, recording<char>>;
using rwstring = std::basic_string<char32_t, std::char_traits<char32_t>, recording<char32_t>>;

struct Empty {};
struct Big {
  std::array<char, 1000> bytes;
};
using MaybeBig = std::optional<Big>;  // one byte in a message, 1001 in memory

struct Chain {
  std::unique_ptr<Chain> next;
};

/// What is allocated for a message of `size` bytes: its length times the largest ratio of memory
/// to message among these types, a pointer and a header for each byte, and some fixed blocks.
std::size_t allowance(std::size_t size) {
  return 4096 + 64 * size;
}

/// Decodes, and demands that the answer is a value or a DecodeError and the memory in proportion.
template <class T>
bool decodes(const byte_buffer& message) {
  allocations::start();
  bool good = true;
  try {
    static_cast<void>(decoded<T>(message.view()));
  } catch (const DecodeError& error) {
    good = false;
    REQUIRE(error.offset() <= message.size());
  }
  REQUIRE(allocations::total <= allowance(message.size()));
  return good;
}

byte_buffer copy_of(const byte_buffer& original) {
  byte_buffer copy;
  copy.append(original.data(), original.size());
  return copy;
}

/// A message for `T` that ends with the last byte of its memory, so that a sanitizer sees more.
byte_buffer prefix_of(const byte_buffer& original, std::size_t size) {
  byte_buffer prefix;
  prefix.reserve(size == 0 ? 1 : size);
  prefix.append(original.data(), size);
  return prefix;
}

/// All that can happen to a message that loses its end or one of its bytes.
template <class T>
void check_damaged(const byte_buffer& good) {
  for (std::size_t size = 0; size < good.size(); ++size) {
    REQUIRE_FALSE(decodes<T>(prefix_of(good, size)));
  }
  byte_buffer damaged = copy_of(good);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (unsigned flip = 1; flip < 256; ++flip) {
      damaged.data()[at] = good.data()[at] ^ static_cast<std::byte>(flip);
      decodes<T>(damaged);
    }
    damaged.data()[at] = good.data()[at];
  }
}

}  // namespace

// ---------------------------------------------------------------------------- damaged messages

TEST_CASE("every truncation and every changed byte of a message is a value or a DecodeError",
          "[codec][limit:120]") {
  check_damaged<everything::Everything>(encoded(everything::sample()));
}

TEST_CASE("every truncation and every changed byte of a message with views, too", "[codec]") {
  const double numbers[] = {1, 2};
  const std::byte bytes[] = {std::byte{1}, std::byte{2}};
  const std::uint16_t three[] = {1, 2, 3};
  check_damaged<everything::Views>(encoded(everything::Views{"text", numbers, bytes, three}));
}

TEST_CASE("random bytes are a value or a DecodeError", "[codec]") {
  generator random(99);
  for (int i = 0; i < 20'000; ++i) {
    byte_buffer message;
    message.resize_uninitialized(random() % 200);
    for (std::size_t at = 0; at < message.size(); ++at) {
      // Zeros and ones often: they are counts and flags.
      message.data()[at] = static_cast<std::byte>(random() % 3 == 0 ? random() : random() % 2);
    }
    decodes<everything::Everything>(message);
    decodes<everything::Node>(message);
    decodes<rvector<rmap<rstring, rvector<MaybeBig>>>>(message);
  }
}

// ---------------------------------------------------------------------------- counts that lie

TEMPLATE_TEST_CASE("a count beyond the end of the message is refused before memory is taken",
                   "[codec]", rstring, rwstring, rvector<int>, rvector<Big>, rvector<MaybeBig>,
                   rvector<rstring>, rvector<bool>, rdeque<int>, rlist<rstring>, rset<int>,
                   rhashset<int>, (rmap<char, double>), (rhashmap<int, rstring>),
                   rvector<rvector<int>>, rvector<Empty>) {
  const std::uint64_t counts[] = {7,
                                  1000,
                                  std::uint64_t{1} << 31,
                                  std::uint64_t{1} << 32,
                                  std::uint64_t{1} << 40,
                                  std::uint64_t{1} << 61,
                                  std::uint64_t{1} << 62,
                                  std::uint64_t{1} << 63,
                                  all_ones / sizeof(typename TestType::value_type) + 1,
                                  all_ones - 7,
                                  all_ones};
  for (const std::uint64_t count : counts) {
    if (count < 2'000'000 && procpool::detail::min_wire_size_v<typename TestType::value_type> == 0)
      continue;  // so many empty elements are fine
    CAPTURE(count);
    const byte_buffer message = message_of(count, short{0});
    allocations::start();
    CHECK_THROWS_AS(decoded<TestType>(message.view()), DecodeError);
    // A deque or hash table may take its first block when it is made.
    CHECK(allocations::largest <= 1024);
  }
}

TEST_CASE("a count that the message just might hold takes no more memory than the message",
          "[codec]") {
  byte_buffer message;
  encoder e(message);
  e.count(10'000);
  for (int i = 0; i < 10'000; ++i) e.put(static_cast<unsigned char>(i < 10 ? 0 : 9));  // no flags
  allocations::start();
  CHECK_THROWS_AS(decoded<rvector<MaybeBig>>(message.view()), DecodeError);
  CHECK(allocations::total <= 2 * message.size() + 16 * sizeof(MaybeBig));
}

TEST_CASE("elements that are small in the message and large in memory still arrive", "[codec]") {
  const std::vector<MaybeBig> many(5000);
  CHECK(decoded<std::vector<MaybeBig>>(encoded(many).view()).size() == many.size());
}

TEST_CASE("empty elements are limited over the whole message", "[codec]") {
  const std::size_t limit = decode_limits{}.max_elements;
  CHECK(decoded<std::vector<Empty>>(message_of(std::uint64_t{limit}).view()).size() == limit);
  CHECK_THROWS_AS(decoded<std::vector<Empty>>(message_of(std::uint64_t{limit + 1}).view()),
                  DecodeError);
  CHECK_THROWS_AS(decoded<std::set<std::tuple<>>>(message_of(all_ones).view()), DecodeError);

  using nested = rvector<rvector<Empty>>;
  const std::uint64_t half = limit / 2;
  CHECK(decoded<nested>(message_of(std::uint64_t{2}, half, half).view()).size() == 2);
  CHECK_THROWS_AS(decoded<nested>(message_of(std::uint64_t{3}, half, half, half).view()),
                  DecodeError);
  using large = rvector<std::array<Empty, 1 << 16>>;  // takes no bytes either
  CHECK_THROWS_AS(decoded<large>(message_of(std::uint64_t{1000}).view()), DecodeError);
  CHECK_THROWS_AS(
      decoded<std::vector<Empty>>(message_of(std::uint64_t{5}).view(), {.max_elements = 4}),
      DecodeError);
}

TEST_CASE("what a decoder would refuse for its empty elements is not sent", "[codec]") {
  const std::vector<Empty> many(decode_limits{}.max_elements);
  CHECK_NOTHROW(encoded(many));
  CHECK_THROWS_AS(encoded(std::vector<std::vector<Empty>>{many, std::vector<Empty>(1)}),
                  std::length_error);
}

// ---------------------------------------------------------------------------- values that cannot
// be

TEST_CASE("bytes that are no value of their type are refused, with the place", "[codec]") {
  const auto byte = [](int value) { return static_cast<unsigned char>(value); };
  for (int value = 2; value < 256; ++value) {
    CHECK_THROWS_AS(decoded<bool>(message_of(byte(value)).view()), DecodeError);
    CHECK_THROWS_AS(decoded<std::optional<std::monostate>>(message_of(byte(value)).view()),
                    DecodeError);
    CHECK_THROWS_AS(decoded<std::unique_ptr<Empty>>(message_of(byte(value)).view()), DecodeError);
  }
  using two = std::variant<std::monostate, std::monostate>;
  CHECK(decoded<two>(message_of(byte(1)).view()).index() == 1);
  CHECK_THROWS_WITH(decoded<two>(message_of(byte(2)).view()), ContainsSubstring("alternative 2"));
  CHECK_THROWS_WITH(decoded<std::bitset<3>>(message_of(byte(8)).view()),
                    ContainsSubstring("beyond the last at byte 1"));
  CHECK_THROWS_AS(decoded<std::vector<bool>>(message_of(std::uint64_t{3}, byte(8)).view()),
                  DecodeError);
  try {
    static_cast<void>(decoded<std::pair<int, bool>>(message_of(1, byte(7)).view()));
    FAIL("a bool of 7");
  } catch (const DecodeError& error) {
    CHECK(error.offset() == 5);
  }
}

TEST_CASE("the same key twice is refused where there can be one only", "[codec]") {
  const std::uint64_t two = 2;
  const byte_buffer keys = message_of(two, 5, 5);
  CHECK_THROWS_WITH(decoded<std::set<int>>(keys.view()), ContainsSubstring("key twice"));
  CHECK_THROWS_AS(decoded<std::unordered_set<int>>(keys.view()), DecodeError);
  CHECK(decoded<std::multiset<int>>(keys.view()).size() == 2);
  CHECK(decoded<std::unordered_multiset<int>>(keys.view()).size() == 2);
  const byte_buffer pairs = message_of(two, 5, 1, 5, 2);
  CHECK_THROWS_AS((decoded<std::map<int, int>>(pairs.view())), DecodeError);
  CHECK_THROWS_AS((decoded<std::unordered_map<int, int>>(pairs.view())), DecodeError);
  CHECK((decoded<std::multimap<int, int>>(pairs.view()).size()) == 2);
  CHECK((decoded<std::map<int, int>>(message_of(two, 5, 1, 4, 2).view()).at(4)) == 2);  // unsorted
}

TEST_CASE("trailing bytes are refused", "[codec]") {
  CHECK_THROWS_WITH(decoded<int>(message_of(1, 'x').view()),
                    ContainsSubstring("1 bytes too many at byte 4"));
}

// ---------------------------------------------------------------------------- depth

TEST_CASE("a message that nests without end does not overflow the stack", "[codec]") {
  byte_buffer ones;  // each byte is a pointer to one more
  ones.resize_uninitialized(1 << 20);
  std::memset(ones.data(), 1, ones.size());
  CHECK_THROWS_WITH(decoded<Chain>(ones.view()), ContainsSubstring("deep"));

  byte_buffer nodes;  // each count is one more
  encoder e(nodes);
  for (int i = 0; i < 100'000; ++i) {
    e.put(0);
    e.count(1);
  }
  CHECK_THROWS_WITH(decoded<everything::Node>(nodes.view()), ContainsSubstring("deep"));
}

namespace {
struct Endless {};  // its codec asks for another one
struct EndlessInPlace {};
}  // namespace

template <>
struct procpool::codec<Endless> {
  static void encode(encoder& e, const Endless& value) { e.put(value); }
  static Endless decode(decoder& d) { return d.get<Endless>(); }
};
template <>
struct procpool::codec<EndlessInPlace> {
  static void encode(encoder& e, const EndlessInPlace& value) { e.put(value); }
  static void decode_into(decoder& d, EndlessInPlace& value) { d.get_to(value); }
  static EndlessInPlace decode(decoder& d) {
    EndlessInPlace value;
    d.get_to(value);
    return value;
  }
};

TEST_CASE("a codec that asks for itself without end is stopped", "[codec]") {
  CHECK_THROWS_AS(decoded<Endless>(message_of(1).view()), DecodeError);
  CHECK_THROWS_AS(decoded<EndlessInPlace>(message_of(1).view()), DecodeError);
  CHECK_THROWS_AS(encoded(Endless()), std::length_error);
}

// ---------------------------------------------------------------------------- a changing message

TEST_CASE("a message that changes while it is read yields a value or a DecodeError", "[codec]") {
  byte_buffer message = encoded(std::vector<int>(100, 7));
  std::uint64_t* count = reinterpret_cast<std::uint64_t*>(message.data());
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    while (!done) {
      for (const std::uint64_t n : {std::uint64_t{100}, std::uint64_t{3}, all_ones}) {
        std::atomic_ref(*count).store(n, std::memory_order_relaxed);
      }
    }
  });
  std::size_t values = 0;
  for (int i = 0; i < 50'000; ++i) {
    decoder d(message.view());
    try {
      const auto numbers = d.get<std::vector<int>>();
      REQUIRE((numbers.size() == 100 || numbers.size() == 3));
      REQUIRE(d.offset() == 8 + numbers.size() * sizeof(int));
      ++values;
    } catch (const DecodeError&) {
    }
  }
  done = true;
  CHECK(values > 0);
}
