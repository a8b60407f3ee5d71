// SPDX-License-Identifier: MIT
/// @file
/// Arguments and results that take a good part of a stack by themselves: they are on it where a
/// plain call has them, and not once more for every function they pass through.
#include <pthread.h>
#include <unistd.h>

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <array>
#include <cstddef>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/codec/list.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/procpool.hpp>

#include "support/sanitizers.hpp"

namespace {

template <std::size_t Size>
using block = std::array<char, Size>;

template <std::size_t Size>
struct named {
  std::string name;
  block<Size> bytes;
};

template <std::size_t Size>
struct failure : std::runtime_error {
  failure() : std::runtime_error("large") {}
  block<Size> bytes{};
};

}  // namespace

template <std::size_t Size>
struct procpool::codec<failure<Size>> {
  static void encode(encoder& out, const failure<Size>& value) { out.put(value.bytes); }
  static failure<Size> decode(decoder& in) {
    failure<Size> value;
    in.get_to(value.bytes);
    return value;
  }
};

namespace {

// ---- tasks ---

template <std::size_t Size>
block<Size> fill(int c) {
  block<Size> made;
  made.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
named<Size> make_named(int c) {
  named<Size> made;
  made.bytes.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::optional<block<Size>> make_optional(int c) {
  std::optional<block<Size>> made;
  made.emplace().fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::tuple<int, block<Size>> make_tuple(int c) {
  std::tuple<int, block<Size>> made;
  std::get<1>(made).fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::pair<std::string, block<Size>> make_pair(int c) {
  std::pair<std::string, block<Size>> made;
  made.second.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::variant<int, block<Size>> make_variant(int c) {
  std::variant<int, block<Size>> made;
  made.template emplace<1>().fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::unique_ptr<named<Size>> make_pointer(int c) {
  auto made = std::make_unique<named<Size>>();
  made->bytes.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::list<named<Size>> make_list(int c) {
  std::list<named<Size>> made;
  made.emplace_back().bytes.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
std::vector<named<Size>> make_vector(int c) {
  std::vector<named<Size>> made;
  made.emplace_back().bytes.fill(static_cast<char>(c));
  return made;
}
template <std::size_t Size>
int last_of(const block<Size>& bytes) {
  return bytes.back();
}
template <std::size_t Size>
int last_of_copy(block<Size> bytes) {
  return bytes.back();
}
template <std::size_t Size>
int last_of_named(const named<Size>& value, const std::string& /*text*/) {
  return value.bytes.back();
}
template <std::size_t Size>
void fail(int c) {
  failure<Size> thrown;
  thrown.bytes.fill(static_cast<char>(c));
  throw thrown;
}

// ---- steps, each with a frame of its own ---

template <std::size_t Size>
struct kept {
  block<Size> bytes{};
  named<Size> value{};
};

template <std::size_t Size, class Pool>
std::vector<std::function<int()>> steps_of(Pool& pool, kept<Size>& at) {
  const std::vector<int> two{1, 2};
  std::vector<std::function<int()>> all;
  all.push_back([&] { return (at.bytes = pool.apply(fill<Size>, 2)).back(); });
  all.push_back([&] {
    const auto result = pool.apply_async(fill<Size>, 2);
    return (at.bytes = result.get()).back();
  });
  all.push_back([&] { return (at.bytes = pool.apply_async(fill<Size>, 2).get()).back(); });
  all.push_back([&] { return (at.value = pool.apply(make_named<Size>, 2)).bytes.back(); });
  all.push_back([&, two] { return pool.map(fill<Size>, two, {.chunksize = 2})[1].back(); });
  all.push_back([&, two] { return pool.map(make_named<Size>, two)[1].bytes.back(); });
  all.push_back([&, two] { return pool.map_outcomes(fill<Size>, two)[1]->back(); });
  all.push_back([&, two] { return pool.map_outcomes(make_named<Size>, two)[1]->bytes.back(); });
  all.push_back([&, two] {
    int last = 0;
    for (const auto& each : pool.imap(fill<Size>, two)) last = each.back();
    return last;
  });
  all.push_back([&] {
    auto results = pool.imap(make_named<Size>, std::vector<int>{2});
    return static_cast<int>(results.next()->bytes.back());
  });
  all.push_back([&, two] { return pool.map(make_optional<Size>, two)[1]->back(); });
  all.push_back([&, two] { return std::get<1>(pool.map(make_tuple<Size>, two)[1]).back(); });
  all.push_back([&, two] { return pool.map(make_pair<Size>, two)[1].second.back(); });
  all.push_back([&, two] { return std::get<1>(pool.map(make_variant<Size>, two)[1]).back(); });
  all.push_back([&, two] { return pool.map(make_pointer<Size>, two)[1]->bytes.back(); });
  all.push_back([&, two] { return pool.map(make_list<Size>, two)[1].front().bytes.back(); });
  all.push_back([&, two] { return pool.map(make_vector<Size>, two)[1].front().bytes.back(); });
  all.push_back([&] { return pool.apply(last_of<Size>, at.bytes); });
  all.push_back([&] { return pool.apply(last_of_copy<Size>, at.bytes); });
  all.push_back([&] { return pool.apply(last_of_named<Size>, at.value, std::string("x")); });
  all.push_back([&] {
    const std::vector<block<Size>> all_same(2, at.bytes);
    return pool.map(last_of<Size>, all_same)[1];
  });
  all.push_back([&] {
    const auto second = [](const block<Size>&, const block<Size>& b) { return b; };
    return (at.bytes = pool.map_reduce(fill<Size>, {0, 1, 2}, second, {.chunksize = 2})).back();
  });
  all.push_back([&] {
    try {
      pool.apply(fail<Size>, 2);
    } catch (const failure<Size>& caught) {
      return static_cast<int>(caught.bytes.back());
    }
    return 0;
  });
  return all;
}

// Runs @p work on a stack of so many bytes; what it throws is thrown.
void on_stack_of(std::size_t bytes, const std::function<void()>& work) {
  struct job {
    const std::function<void()>* work;
    std::exception_ptr failure;
  };
  job what{&work, nullptr};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, bytes);
  pthread_t thread{};
  const int refused = pthread_create(
      &thread, &attributes,
      [](void* given) -> void* {
        auto& mine = *static_cast<job*>(given);
        try {
          (*mine.work)();
        } catch (...) {
          mine.failure = std::current_exception();
        }
        return nullptr;
      },
      &what);
  pthread_attr_destroy(&attributes);
  REQUIRE(refused == 0);
  pthread_join(thread, nullptr);
  if (what.failure) std::rethrow_exception(what.failure);
}

template <std::size_t Size, class Pool>
void check_all(Pool& pool, std::size_t stack) {
  const auto at = std::make_unique<kept<Size>>();
  const auto steps = steps_of<Size>(pool, *at);
  for (std::size_t step = 0; step < steps.size(); ++step) {
    INFO("step " << step);
    int last = 0;
    on_stack_of(stack, [&] { last = steps[step](); });
    CHECK(last == 2);
  }
}

constexpr std::size_t kilo = 1024;
constexpr std::size_t room = support::address_sanitizer ? 8 : 1;  // its frames are larger

}  // namespace

TEMPLATE_TEST_CASE("objects of megabytes need no more of the stack than in a plain call",
                   "[large][limit:120]", procpool::Processes, procpool::Threads, procpool::Serial) {
  constexpr std::size_t size = 3 * kilo * kilo;
  procpool::register_exception<failure<size>>();
  procpool::register_exception<failure<100 * kilo>>();
  auto pool = [] {
    if constexpr (std::is_same_v<TestType, procpool::Serial>) {
      return procpool::Pool<TestType>();
    } else {
      return procpool::Pool<TestType>(1);
    }
  }();
  check_all<size>(pool, room * 8 * kilo * kilo);
  check_all<100 * kilo>(pool, room * 320 * kilo);
}

TEST_CASE("arguments of megabytes of a Process are on the stack once", "[large]") {
  constexpr std::size_t size = 3 * kilo * kilo;
  const auto bytes = std::make_unique<block<size>>(fill<size>(3));
  on_stack_of(room * 8 * kilo * kilo, [&] {
    procpool::Process process{[](const block<size>& given) { _exit(given.back()); }, *bytes};
    process.start();
    process.join();
    CHECK(process.exitcode() == 3);
  });
}
