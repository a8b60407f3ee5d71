// SPDX-License-Identifier: MIT
/// @file
/// Codecs that do not write the same each time, or throw, or use the pool: only their own call may
/// suffer.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

constexpr std::size_t arena_bytes = std::size_t{256} << 10;

// A text whose codec adds so much to it as this says: given the how-manieth encoding it is.
struct note {
  std::string text;

  static inline std::function<std::string(int)> addition;
  static inline int encodings = 0;
};
std::size_t length(const note& text) {
  return text.text.size();
}
note same(const note& text) {
  return text;
}

long square(long x) {
  return x * x;
}

template <class Backend>
procpool::Pool<Backend> make_pool() {
  return procpool::Pool<Backend>({.processes = 1, .arena_bytes = arena_bytes});
}
template <>
procpool::Pool<procpool::Serial> make_pool() {
  return {};
}

// A callable whose codec puts so many bytes more than it gets, or gets more than it puts.
struct uneven {
  static inline int surplus = 0;
  int factor = 1;

  uneven() = default;
  explicit uneven(int by) : factor(by) {}
  long operator()(long x) const { return factor * x; }
};
struct uneven_holder {  // the same, one level down
  uneven inner;
  std::string text;
  long operator()(long x) { return inner(x); }
};
long add(long a, long b) {
  return a + b;
}
struct uneven_sum {
  uneven inner;
  long operator()(long a, long b) const { return inner(a) + b; }
};

// The second time it is longer, and its codec keeps to itself what the encoder throws then.
struct deaf {
  std::string text;
  bool rethrows = false;
};
std::size_t deaf_length(const deaf& value) {
  return value.text.size();
}

// In line, in the arena, streamed.
constexpr std::size_t sizes[] = {100, std::size_t{200} << 10, std::size_t{3} << 20};

}  // namespace

template <>
struct procpool::codec<note> {
  static void encode(encoder& out, const note& value) {
    const std::string more = note::addition ? note::addition(note::encodings++) : std::string();
    out.put(value.text + more);
  }
  static note decode(decoder& in) { return {in.get<std::string>()}; }
};

template <>
struct procpool::codec<uneven> {
  static void encode(encoder& out, const uneven& value) {
    out.put(value.factor);
    for (int i = 0; i < uneven::surplus; ++i) out.put(std::byte{7});
  }
  static uneven decode(decoder& in) {
    const uneven value(in.get<int>());
    for (int i = uneven::surplus; i < 0; ++i) static_cast<void>(in.get<std::byte>());
    return value;
  }
};

template <>
struct procpool::codec<deaf> {
  static void encode(encoder& out, const deaf& value) {
    out.put(value.rethrows);
    try {
      out.put(value.text + std::string(note::encodings++ == 0 ? 0 : 40'000, '+'));
    } catch (const std::length_error&) {
      if (value.rethrows) throw std::domain_error("something else");
    }
  }
  static deaf decode(decoder& in) {
    const bool rethrows = in.get<bool>();
    return {in.get<std::string>(), rethrows};
  }
};

TEMPLATE_TEST_CASE("a callable that is decoded in another length than it was encoded is an error",
                   "[codec]", procpool::Processes, procpool::Threads, procpool::Serial) {
  const std::vector<long> numbers{1, 2, 3, 4, 5};
  for (const int surplus : {32, 3, -3, -32}) {
    CAPTURE(surplus);
    uneven::surplus = surplus;
    auto pool = make_pool<TestType>();                                      // its workers know it
    for (const std::size_t length : {std::size_t{1}, std::size_t{5000}}) {  // shared when large
      const uneven_holder holder{uneven(3), std::string(length, 't')};
      CHECK_THROWS_AS(pool.apply(holder, 5L), procpool::DecodeError);
      CHECK_THROWS_AS(pool.map(holder, numbers), procpool::DecodeError);
      CHECK_THROWS_AS(pool.map_reduce(holder, numbers, add), procpool::DecodeError);
    }
    CHECK_THROWS_AS(pool.map_reduce(square, numbers, uneven_sum{uneven(3)}), procpool::DecodeError);
    CHECK(pool.apply(square, 3L) == 9);
  }
  uneven::surplus = 0;
  auto pool = make_pool<TestType>();
  CHECK(pool.map(uneven_holder{uneven(3), "t"}, numbers) == std::vector<long>{3, 6, 9, 12, 15});
}

TEMPLATE_TEST_CASE("an encoder may keep to itself that something did not fit", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  for (const bool rethrows : {false, true}) {
    for (const std::size_t size : sizes) {
      CAPTURE(rethrows, size);
      note::encodings = 0;
      CHECK(pool.apply(deaf_length, deaf{std::string(size, 'x'), rethrows}) >= size);
      CHECK(pool.apply(square, 3L) == 9);
    }
  }
}

TEMPLATE_TEST_CASE("an argument that is encoded in another length the second time arrives",
                   "[codec]", procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  for (const std::size_t size : sizes) {
    for (const int growth : {1, -1, 20'000, -20'000}) {
      CAPTURE(size, growth);
      note::encodings = 0;
      note::addition = [&](int before) {
        return std::string(static_cast<std::size_t>(std::max(0, 40'000 + growth * before)), '+');
      };
      const std::size_t there = pool.apply(length, note{std::string(size, 'x')});
      CHECK(there >= size + 20'000);
      CHECK(there <= size + 80'000);
      CHECK(pool.apply(square, 3L) == 9);
      // A map encodes each once: it cannot be seen, but nor may it harm.
      const std::vector<note> notes(5, note{std::string(size, 'y')});
      CHECK(pool.map(length, notes, {.chunksize = 3}).size() == 5);
      CHECK(pool.map(square, std::vector<long>{1, 2, 3}) == std::vector<long>{1, 4, 9});
    }
  }
  note::addition = nullptr;
}

TEMPLATE_TEST_CASE("an encoder that throws the second time takes nobody with it", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    for (int round = 0; round < 5; ++round) {  // what it had must not be lost to the pool
      note::encodings = 0;
      note::addition = [](int before) {
        if (before == 1) throw std::domain_error("no more");
        return std::string();
      };
      CHECK_THROWS_AS(pool.apply(length, note{std::string(size, 'x')}), std::domain_error);
      CHECK(pool.apply(square, 3L) == 9);
      note::encodings = 0;
      const std::vector<note> notes(3, note{std::string(size, 'y')});
      CHECK_THROWS_AS(pool.map(length, notes), std::domain_error);
      note::addition = nullptr;
      CHECK(pool.apply(length, note{std::string(size, 'x')}) == size);
    }
  }
}

TEMPLATE_TEST_CASE("an encoder may use the pool that it encodes for", "[codec]",
                   procpool::Processes, procpool::Threads, procpool::Serial) {
  auto pool = make_pool<TestType>();
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    note::addition = [&](int) {
      const auto inner = pool.map(square, std::vector<long>(100, 7));
      CHECK(inner == std::vector<long>(100, 49));
      CHECK(pool.apply(square, 5L) == 25);
      return std::string();
    };
    CHECK(pool.apply(length, note{std::string(size, 'x')}) == size);
    const std::vector<note> notes(3, note{std::string(size, 'y')});
    CHECK(pool.map(length, notes) == std::vector<std::size_t>(3, size));
    std::size_t sum = 0;
    for (const std::size_t each : pool.imap(length, notes)) sum += each;
    CHECK(sum == 3 * size);
  }
  note::addition = nullptr;
}

TEST_CASE("a result that is encoded in other lengths arrives", "[codec]") {
  note::encodings = 0;
  note::addition = [](int before) { return std::string(static_cast<std::size_t>(before), '+'); };
  auto pool = make_pool<procpool::Processes>();
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    const std::vector<note> notes(4, note{std::string(size, 'y')});
    for (const note& each : pool.map(same, notes, {.chunksize = 2})) {
      CHECK(each.text.size() >= size);
    }
    CHECK(pool.apply(square, 3L) == 9);
  }
  note::addition = nullptr;
}
