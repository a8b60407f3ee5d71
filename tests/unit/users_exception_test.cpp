// SPDX-License-Identifier: MIT
// Exceptions that are hard to look at: an empty std::nested_exception, a what() that is null, long
// and circular chains, destructors and copy constructors that throw. On every backend.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <chrono>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"

namespace {

using procpool::start_method;

// ---- hard exceptions ---------------------------------------------------------------------------

int no_cause(int) {
  std::throw_with_nested(std::runtime_error("no cause"));
}

struct null_text : std::runtime_error {
  null_text() : std::runtime_error("never seen") {}
  const char* what() const noexcept override { return nullptr; }
};
int throw_null_text(int) {
  throw null_text();
}

struct null_text_in_it : std::exception {
  explicit null_text_in_it(const std::string& /*text*/) {}
  const char* what() const noexcept override { return nullptr; }
};

// Its destructor throws, and what that throws does, too.
struct throws_on {
  explicit throws_on(int lives) : left(lives) {}
  throws_on(const throws_on&) = default;
  throws_on& operator=(const throws_on&) = default;
  ~throws_on() noexcept(false) {
    if (left > 0) throw throws_on(left - 1);
  }
  int left;
};
int even_only(int number) {
  if (number % 2 != 0) throw throws_on(number);
  return number;
}
std::string short_only(const std::string& text) {
  if (text.size() > 3) throw throws_on(1);
  return text;
}

// Destructors that throw once, behind the call that armed them.
thread_local bool armed = false;
void fire_once() {
  if (std::exchange(armed, false)) throw std::runtime_error("behind the call");
}
struct fires {
  std::string text;
  bool hot = false;
  fires() = default;
  explicit fires(std::string from) : text(std::move(from)), hot(true) {}
  fires(const fires&) = default;
  fires& operator=(const fires&) = default;
  ~fires() noexcept(false) {
    if (hot) fire_once();
  }
};
fires armed_text(const std::string& text) {
  armed = true;
  return fires(text);
}
struct one_shot {
  std::string text;
  int operator()(int x) const { return x; }
  ~one_shot() noexcept(false) { fire_once(); }
};
struct armed_counter {
  one_shot inner;
  int calls;
  int operator()(int x) {
    armed = ++calls == 1 && x == 2;
    return x;
  }
};
int arming_sum(int a, int b) {
  armed = true;
  return a + b;
}

struct circle : std::runtime_error, std::nested_exception {
  using std::runtime_error::runtime_error;
};
// Each is nested in the one behind it, and the last one in the first.
int throw_circle(int length) {
  std::vector<std::exception_ptr> ring;
  std::vector<circle*> objects;
  for (int i = 0; i < length; ++i) {
    try {
      throw circle("ring " + std::to_string(i));
    } catch (circle& each) {
      ring.push_back(std::current_exception());
      objects.push_back(&each);
    }
  }
  for (std::size_t i = 0; i < ring.size(); ++i) {
    try {
      std::rethrow_exception(ring[(i + 1) % ring.size()]);
    } catch (...) {
      static_cast<std::nested_exception&>(*objects[i]) = std::nested_exception();
    }
  }
  std::rethrow_exception(ring.front());
}

int throw_chain(int levels) {
  std::exception_ptr last = std::make_exception_ptr(std::invalid_argument("the root"));
  for (int i = 1; i < levels; ++i) {
    try {
      try {
        std::rethrow_exception(last);
      } catch (...) {
        std::throw_with_nested(std::runtime_error("level " + std::to_string(i)));
      }
    } catch (...) {
      last = std::current_exception();
    }
  }
  std::rethrow_exception(last);
}

struct plain {};
int throw_around_others(int) {
  try {
    try {
      throw 42;
    } catch (...) {
      std::throw_with_nested(plain{});
    }
  } catch (...) {
    std::throw_with_nested(std::runtime_error("outer"));
  }
}

// Made again, it cannot be copied.
struct copied_badly : std::runtime_error {
  explicit copied_badly(const std::string& text) : std::runtime_error(text) {}
  copied_badly(const copied_badly& other) : std::runtime_error(other) {
    throw std::domain_error("no copies");
  }
};
int throw_copied_badly(int) {
  throw copied_badly("mine");
}

// Cannot be taken apart; not even the exception that says so is harmless.
struct encoded_badly : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct carries_cause : std::exception, std::nested_exception {
  explicit carries_cause(const std::string& /*text*/) {}
};
int throw_carries_cause(int) {
  throw carries_cause("with nothing inside");
}

struct bad_category : std::error_category {
  const char* name() const noexcept override { return "bad"; }
  std::string message(int) const override { throw throws_on(1); }
};

}  // namespace

template <>
struct procpool::codec<fires> {  // those in the caller are harmless
  static void encode(encoder& out, const fires& value) { out.put(value.text); }
  static fires decode(decoder& in) {
    fires value;
    value.text = in.get<std::string>();
    return value;
  }
};

template <>
struct procpool::codec<encoded_badly> {
  static void encode(encoder& out, const encoded_badly&) {
    out.put(1);
    throw throws_on(1);
  }
  static encoded_badly decode(decoder& in) { return encoded_badly(std::to_string(in.get<int>())); }
};

namespace {

int throw_encoded_badly(int number) {
  if (number == 1) throw encoded_badly("text of its own");
  return number;
}

// What a call ends with: type as it is caught, text, and the trace.
struct ending {
  std::string type;
  std::string text;
  std::string trace;
};
ending of(const std::exception_ptr& failure) {
  ending seen;
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    seen.type = procpool::detail::exception_type(error);
    seen.text = procpool::detail::what_of(error);
    try {
      std::rethrow_if_nested(error);
    } catch (const procpool::RemoteTraceback& trace) {
      seen.trace = trace.what();
    }
  }
  return seen;
}
template <class Call>
ending ending_of(Call call) {
  try {
    call();
  } catch (...) {
    return of(std::current_exception());
  }
  return {};
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

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

#define ON_EVERY_BACKEND(name) \
  TEMPLATE_TEST_CASE(name, "[exception]", forked, spawned, threads, serial)

ON_EVERY_BACKEND("an exception with an empty nested_exception arrives") {
  TestType pool;
  const ending seen = ending_of([&] { pool.apply(no_cause, 1); });
  CHECK(seen.type == "std::runtime_error");
  CHECK(seen.text == "no cause");
  CHECK(has(seen.trace, "std::runtime_error: no cause\n"));
  CHECK_FALSE(has(seen.trace, "caused by"));
}

ON_EVERY_BACKEND("an exception whose what() is null arrives") {
  TestType pool;
  const ending seen = ending_of([&] { pool.apply(throw_null_text, 1); });
  CHECK(seen.type == "procpool::RemoteError");
  CHECK(has(seen.text, "null_text: (its what() is a null pointer)"));
  CHECK(has(seen.trace, "null_text: (its what() is a null pointer)"));
}

ON_EVERY_BACKEND("an exception whose destructor throws costs its own item only") {
  TestType pool;
  const auto numbers =
      pool.map_outcomes(even_only, std::vector<int>{2, 3, 4, 5, 6}, {.chunksize = 5});
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    CHECK(static_cast<bool>(numbers[i]) == (i % 2 == 0));
    if (!numbers[i]) CHECK(has(of(numbers[i].error()).text, "throws_on"));
  }
  const auto texts =
      pool.map_outcomes(short_only, std::vector<std::string>{"a", "long", "b"}, {.chunksize = 3});
  CHECK(texts[0].value() == "a");
  CHECK(has(of(texts[1].error()).text, "throws_on"));
  CHECK(texts[2].value() == "b");
  const auto sum = [](int a, int b) { return a + b; };
  CHECK(has(ending_of([&] {
              pool.map_reduce(even_only, std::vector<int>{2, 3}, sum);
            }).text,
            "throws_on"));
  CHECK(pool.apply(even_only, 8) == 8);
}

ON_EVERY_BACKEND("what destructors throw in a worker once the item has its outcome is dropped") {
  TestType pool;
  const auto texts =
      pool.map_outcomes(armed_text, std::vector<std::string>{"a", "b", "c"}, {.chunksize = 3});
  CHECK(texts.size() == 3);
  for (const auto& each : texts) CHECK(each.value().text.size() == 1);
  for (int round = 0; round < 20; ++round) {  // more outcomes than items would fail others
    const std::vector<int> numbers{1, 2, 3, 4};
    CHECK(pool.map_reduce(one_shot{"x"}, numbers, arming_sum, {.chunksize = 4}) == 10);
    CHECK(pool.map(one_shot{"x"}, numbers) == numbers);
    const auto kept =
        pool.map_outcomes(armed_counter{{"x"}, 0}, std::vector<int>{1, 2, 3}, {.chunksize = 3});
    for (std::size_t i = 0; i < kept.size(); ++i) CHECK(kept[i].value() == static_cast<int>(i) + 1);
    CHECK(pool.apply(even_only, 8) == 8);
  }
}

ON_EVERY_BACKEND("of a chain of 3,000 exceptions 20 are told, and how many more there are") {
  TestType pool;
  const ending seen = ending_of([&] { pool.apply(throw_chain, 3000); });
  CHECK(seen.text == "level 2999");
  CHECK(has(seen.trace, "  caused by std::runtime_error: level 2980\n    ... 2,980 more\n"));
  CHECK_FALSE(has(seen.trace, "level 2979"));
  CHECK(seen.trace.size() < 2000);
  CHECK(has(ending_of([&] { pool.apply(throw_chain, 20); }).trace, "the root\n"));
  CHECK(has(ending_of([&] { pool.apply(throw_chain, 21); }).trace, "level 1\n    ... 1 more\n"));
}

ON_EVERY_BACKEND("a circle of exceptions has an end") {
  TestType pool;
  CHECK(has(ending_of([&] { pool.apply(throw_circle, 1); }).trace,
            "circle: ring 0\n    ... and so on in a circle\n"));
  CHECK(has(ending_of([&] { pool.apply(throw_circle, 3); }).trace,
            "circle: ring 2\n    ... and so on in a circle\n"));
  CHECK(has(ending_of([&] { pool.apply(throw_circle, 50); }).trace,
            "circle: ring 19\n    ... more than 10,000 more\n"));
}

ON_EVERY_BACKEND("a chain goes on through exceptions that are no std::exception") {
  TestType pool;
  const ending seen = ending_of([&] { pool.apply(throw_around_others, 1); });
  CHECK(has(seen.trace, "std::runtime_error: outer\n    caused by "));
  CHECK(has(seen.trace, "plain\n    caused by int\n"));
}

ON_EVERY_BACKEND("an exception that cannot be copied, or encoded, arrives as RemoteError") {
  TestType pool;
  const ending copied = ending_of([&] { pool.apply(throw_copied_badly, 1); });
  CHECK(copied.type == "procpool::RemoteError");
  CHECK(has(copied.text, "std::domain_error: no copies"));
  CHECK(has(copied.trace, "copied_badly: mine"));
  const auto encoded =
      pool.map_outcomes(throw_encoded_badly, std::vector<int>{0, 1, 2}, {.chunksize = 3});
  CHECK(encoded[0].value() == 0);
  CHECK(has(of(encoded[1].error()).text, "text of its own (encoding it failed: "));
  CHECK(encoded[2].value() == 2);
  const auto throw_category = [](int) -> int {
    static const bad_category category;
    throw std::system_error(std::error_code(1, category), "x");
  };
  // Its constructor asks the category for a text.
  CHECK(has(ending_of([&] { pool.apply(throw_category, 1); }).text, "throws_on"));
}

ON_EVERY_BACKEND("an exception that is a nested_exception has the trace nested inside") {
  TestType pool;
  const ending seen = ending_of([&] { pool.apply(throw_carries_cause, 1); });
  CHECK(has(seen.type, "carries_cause"));
  CHECK(has(seen.trace, "carries_cause: std::exception\n"));
}

ON_EVERY_BACKEND("callbacks may throw anything") {
  const auto result = support::capture_child([] {
    TestType pool;
    const auto call = [&](auto fail) {
      pool.apply_async({.callback = [fail](int) { fail(); }}, even_only, 2).wait();
      auto later = pool.apply_async(even_only, 2);
      later.add_done_callback([fail](const auto&) { fail(); });
      later.wait();
    };
    call([] { throw throws_on(2); });
    call([] { throw_null_text(1); });
    call([] { no_cause(1); });
    call([] { throw 42; });
    if (pool.apply(even_only, 2) != 2) return 1;
    pool.close();
    pool.join();
    return 0;
  });
  CHECK(result.exitcode == 0);
  CHECK(has(result.err, "a callback failed: "));
  CHECK(has(result.err, "throws_on: an exception that is no std::exception\n"));
  CHECK(has(result.err, "null_text: (its what() is a null pointer)\n"));
  CHECK(has(result.err, "std::runtime_error: no cause\n"));
  CHECK(has(result.err, "int: an exception that is no std::exception\n"));
}

template <class Pool, class Fail>
std::string why_broken(Fail fail) {
  return ending_of([&] {
           Pool pool({.processes = 1, .initializer = fail});
           pool.apply(even_only, 2);
         })
      .text;
}

TEST_CASE("initializers may throw anything", "[exception]") {
  const auto all = [](auto fail, const std::string& text) {
    CHECK(has(why_broken<procpool::Pool<>>(fail), text));
    CHECK(has(why_broken<procpool::ThreadPool>(fail), text));
    CHECK(has(why_broken<procpool::Pool<procpool::Serial>>(fail), text));
  };
  all([] { throw throws_on(2); }, "throws_on");
  all([] { throw_null_text(1); }, "null_text: (its what() is a null pointer)");
  all([] { no_cause(1); }, "no cause");
}

TEST_CASE("targets of processes may throw anything", "[exception]") {
  const auto run = [](start_method method, void (*target)()) {
    return support::capture_child([=] {
      procpool::Process process({.name = "p", .start_method = method}, target);
      process.start();
      process.join();
      return process.exitcode().value_or(99);
    });
  };
  for (const auto method : procpool::get_all_start_methods()) {
    const auto destroyed = run(method, [] { throw throws_on(2); });
    CHECK(destroyed.exitcode == 1);
    CHECK(has(destroyed.err, "throws_on\n"));
    const auto null = run(method, [] { throw_null_text(1); });
    CHECK(null.exitcode == 1);
    CHECK(has(null.err, "null_text: (its what() is a null pointer)\n"));
    const auto empty = run(method, [] { no_cause(1); });
    CHECK(empty.exitcode == 1);
    CHECK(empty.err == "Process p:\nstd::runtime_error: no cause\n");
    const auto round = run(method, [] { throw_circle(1); });
    CHECK(round.exitcode == 1);
    CHECK(has(round.err, "circle: ring 0\n  ... and so on in a circle\n"));
  }
}

TEST_CASE("texts that no program writes do no harm", "[exception]") {
  using procpool::detail::byte_buffer;
  // The name of a type with a null in it.
  byte_buffer bytes;
  try {
    throw procpool::RemoteError(std::string("a\0bcdefgh", 9), "text");
  } catch (...) {
    procpool::encoder out(bytes);
    procpool::detail::encode_current_exception(out, "");
  }
  CHECK(of(procpool::detail::decode_exception(bytes.view())).type == "procpool::RemoteError");
  // An exit code that cannot be negated.
  byte_buffer died;
  try {
    throw procpool::WorkerDied("gone", {{.exitcode = std::numeric_limits<int>::min()}});
  } catch (...) {
    procpool::encoder out(died);
    procpool::detail::encode_current_exception(out, "");
  }
  CHECK_THROWS_AS(procpool::detail::decode_exception(died.view()), procpool::DecodeError);
  // Registered, and its what() is null.
  byte_buffer null;
  try {
    throw null_text_in_it("");
  } catch (...) {
    procpool::encoder out(null);
    procpool::detail::encode_current_exception(out, "");
  }
  CHECK(has(of(procpool::detail::decode_exception(null.view())).type, "null_text_in_it"));
  CHECK(procpool::detail::concat({static_cast<const char*>(nullptr), "x"}) == "(null)x");
}

// Before any pool is made, in spawned workers, too.
const bool registered = [] {
  procpool::register_exception<copied_badly>();
  procpool::register_exception<encoded_badly>();
  procpool::register_exception<carries_cause>();
  procpool::register_exception<null_text_in_it>();
  return true;
}();

}  // namespace
