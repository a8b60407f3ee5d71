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
