// SPDX-License-Identifier: MIT
// Corners of the pool where a fault was found once: over-aligned results, codecs that inherit one
// of the library's, long tasks behind short ones, and a pool used where it cannot be.
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "support/child.hpp"
#include "support/sanitizers.hpp"

#include <procpool/procpool.hpp>

namespace edges {

struct series : std::vector<double> {
  std::string name;
};
struct fragile {
  int value = 0;
};
std::function<void()> while_decoding;

/// There is none without a number.
class numbered {
 public:
  explicit numbered(int number) : number_(number) {}
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_;
};
/// An empty one may fail.
struct doubtful {
  doubtful() noexcept(false) {}
  int number = 0;
};

}  // namespace edges

template <>
struct procpool::codec<edges::series> : procpool::codec<std::vector<double>> {
  using base = procpool::codec<std::vector<double>>;
  static void encode(encoder& out, const edges::series& value) {
    base::encode(out, value);
    out.put(value.name);
  }
  static edges::series decode(decoder& in) {
    edges::series value;
    static_cast<std::vector<double>&>(value) = base::decode(in);
    value.name = in.get<std::string>();
    return value;
  }
};

template <>
struct procpool::codec<edges::fragile> {
  static void encode(encoder& out, const edges::fragile& value) { out.put(value.value); }
  static edges::fragile decode(decoder& in) {
    const edges::fragile value{in.get<int>()};
    if (edges::while_decoding) edges::while_decoding();
    return value;
  }
};

template <>
struct procpool::codec<edges::numbered> {
  static void encode(encoder& out, const edges::numbered& value) { out.put(value.number()); }
  static edges::numbered decode(decoder& in) { return edges::numbered(in.get<int>()); }
};

template <>
struct procpool::codec<edges::doubtful> {
  static void encode(encoder& out, const edges::doubtful& value) { out.put(value.number); }
  static edges::doubtful decode(decoder& in) {
    edges::doubtful value;
    value.number = in.get<int>();
    return value;
  }
};

namespace {

using namespace std::chrono_literals;

struct alignas(64) wide {
  std::array<double, 8> values;
};
wide make_wide(int first) {
  wide made{};
  for (std::size_t i = 0; i < made.values.size(); ++i) made.values[i] = first + int(i);
  return made;
}

TEST_CASE("a result lies where its alignment wants it", "[edges]") {
  using job = procpool::detail::call_job<wide>;
  const procpool::detail::intrusive_ptr<job> one(new job(nullptr), false);
  const procpool::detail::intrusive_ptr<job> other(new job(nullptr), false);
  CHECK(reinterpret_cast<std::uintptr_t>(one.get()) % alignof(job) == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(other.get()) % alignof(job) == 0);
  procpool::Pool pool{1};
  for (int i = 0; i < 5; ++i) CHECK(pool.apply_async(make_wide, i).get().values[7] == i + 7);
}

edges::series make_series(int size) {
  edges::series made;
  made.resize(std::size_t(size), 1.5);
  made.name = "temperature";
  return made;
}

TEST_CASE("a codec that inherits one of the library's is used for results of any size", "[edges]") {
  procpool::Pool pool{1};
  for (const int size : {0, 10, 100'000, 2'000'000}) {
    const edges::series got = pool.apply(make_series, size);
    CHECK(got.size() == std::size_t(size));
    CHECK(got.name == "temperature");
  }
}

std::string as_text(int i) {
  return std::string(std::size_t(i) % 50, char('a' + i % 26));
}
bool is_third(int i) {
  return i % 3 == 0;
}
edges::numbered as_numbered(int i) {
  return edges::numbered(i);
}
edges::doubtful as_doubtful(int i) {
  edges::doubtful value;
  value.number = i;
  return value;
}
std::unique_ptr<int> as_pointer(int i) {
  return i % 2 == 0 ? std::make_unique<int>(i) : nullptr;
}
std::optional<std::string> as_optional(int i) {
  if (i % 2 == 0) return std::nullopt;
  return as_text(i);
}
std::vector<std::string> as_texts(int i) {
  return {as_text(i), as_text(i + 1)};
}
std::string as_text_but_one(int i) {
  if (i == 700) throw std::runtime_error("not this one");
  return as_text(i);
}

TEST_CASE("a map keeps results of any kind in order", "[edges]") {
  procpool::Pool pool{2};
  std::vector<int> items(1000);
  std::iota(items.begin(), items.end(), 0);
  const auto texts = pool.map(as_text, items);
  const auto thirds = pool.map(is_third, items);
  const auto numbers = pool.map(as_numbered, items);
  const auto doubtful = pool.map(as_doubtful, items);
  const auto pointers = pool.map(as_pointer, items);
  const auto optionals = pool.map(as_optional, items);
  const auto pairs = pool.map(as_texts, items);
  REQUIRE(thirds.size() == items.size());
  bool same = true;
  for (const int i : items) {
    const auto at = std::size_t(i);
    same = same && texts[at] == as_text(i) && thirds[at] == is_third(i);
    same = same && numbers[at].number() == i && doubtful[at].number == i;
    same = same && (pointers[at] != nullptr) == (i % 2 == 0) && optionals[at] == as_optional(i);
    same = same && (i % 2 != 0 || *pointers[at] == i) && pairs[at] == as_texts(i);
  }
  CHECK(same);
  CHECK_THROWS_WITH(pool.map(as_text_but_one, items), "not this one");
  CHECK(pool.map(as_text, items) == texts);
}

double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](timeval time) {
    return double(time.tv_sec) + double(time.tv_usec) * 1e-6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

TEST_CASE("who waits for a long task behind short ones sleeps", "[edges]") {
  const auto quick = [](int i) { return i; };
  const auto slow = [](int i) {
    std::this_thread::sleep_for(700ms);
    return i;
  };
  procpool::Pool pool{1};
  for (int round = 0; round < 3; ++round) {
    std::vector<procpool::AsyncResult<int>> short_ones;
    for (int i = 0; i < 20; ++i) short_ones.push_back(pool.apply_async(quick, i));
    const auto long_one = pool.apply_async(slow, 1);
    for (const auto& each : short_ones) each.wait();
    const double before = cpu_seconds();
    long_one.wait();
    CHECK(cpu_seconds() - before < 0.35);  // of 0.7 s; it was all of them
  }
}

TEST_CASE("a decoder that reads on in an imap of its pool is told so", "[edges]") {
  procpool::Pool pool{1};
  const std::vector<int> numbers(100);
  auto results = pool.imap([](int i) { return i; }, numbers, {.chunksize = 1, .buffersize = 4});
  CHECK(results.next() == 0);
  edges::while_decoding = [&] { static_cast<void>(results.next()); };
  CHECK_THROWS_AS(pool.apply([](int i) { return edges::fragile{i}; }, 1), std::logic_error);
  edges::while_decoding = nullptr;
}

// How many pages the system had to give to a worker for a task that makes 64 MiB, after the first.
long faults_of_large_task(std::optional<std::size_t> keep_memory) {
  const auto faults = [](std::size_t bytes) {
    const auto count = [] {
      rusage used{};
      getrusage(RUSAGE_SELF, &used);
      return used.ru_minflt;
    };
    const long before = count();
    { const std::vector<char> large(bytes, 'x'); }
    return count() - before;
  };
  procpool::Pool pool{{.processes = 1, .keep_memory = keep_memory}};
  constexpr std::size_t size = std::size_t{64} << 20;
  static_cast<void>(pool.apply(faults, size));
  return pool.apply(faults, size);
}

TEST_CASE("keep_memory: a worker keeps what a task has freed", "[edges]") {
  if (!support::address_sanitizer) {  // which has an allocator of its own
    CHECK(faults_of_large_task(std::size_t{256} << 20) < 100);
    CHECK(faults_of_large_task(std::nullopt) > 100);
  }
  CHECK_THROWS_AS(procpool::Pool<>({.keep_memory = std::size_t{0}}), std::invalid_argument);
}

TEST_CASE("results can be compared, hashed and left empty", "[edges]") {
  procpool::Pool pool{1};
  procpool::AsyncResult<int> none;
  std::unordered_map<procpool::AsyncResult<int>, int> what;
  for (int i = 0; i < 10; ++i) what[pool.apply_async([](int x) { return x; }, i)] = i;
  for (const auto& [result, number] : what) {
    CHECK(result.get() == number);
    CHECK(what.at(result) == number);
    CHECK(result != none);
  }
  none = what.begin()->first;
  CHECK(none == what.begin()->first);
  const auto moved = std::move(none);
  CHECK(moved == what.begin()->first);
  CHECK(none == procpool::AsyncResult<int>());  // NOLINT(bugprone-use-after-move): what it is about
  CHECK_THROWS_AS(none.get(), std::invalid_argument);
  CHECK_THROWS_AS(none.wait(), std::invalid_argument);
  CHECK_THROWS_AS(none.ready(), std::invalid_argument);
  CHECK_THROWS_AS(none.cancel(), std::invalid_argument);
  CHECK_THROWS_AS(none.add_done_callback([](auto&) {}), std::invalid_argument);
}

TEST_CASE("a forked child can drop an imap of its parent's", "[edges]") {
  std::vector<int> numbers(60);
  std::iota(numbers.begin(), numbers.end(), 0);
  procpool::Pool pool{2};
  const auto slow = [](int i) {
    std::this_thread::sleep_for(2ms);
    return i;
  };
  auto results = pool.imap(slow, numbers, {.chunksize = 1, .buffersize = 8});
  CHECK(results.next() == 0);
  CHECK(support::run_child([&] {
          { const auto dropped = std::move(results); }
          return 0;
        }) == 0);
  for (int i = 1; i < 60; ++i) CHECK(results.next() == i);
  CHECK_FALSE(results.next());
}

TEST_CASE("a part of a value that was cut off shifts nobody's results", "[edges]") {
  procpool::detail::outcomes_job<double> job(nullptr, 0, 4);
  const std::array<double, 2> values{1, 2};
  const auto bytes = std::as_bytes(std::span(values));
  job.plain(0, 0, bytes.first(3));  // of a worker that died
  job.plain(2, 0, bytes);
  CHECK(job.result()[2].value() == 1);
  CHECK(job.result()[3].value() == 2);
}

}  // namespace
