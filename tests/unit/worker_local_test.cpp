// SPDX-License-Identifier: MIT
// worker_local: when its values are made and destroyed, and by whom.
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using namespace std::chrono_literals;
using procpool::worker_local;
using support::eventually;
using support::gate;
using support::shared;

/// What values have told of themselves, in memory that all processes see.
struct diary {
  std::atomic<int> made{0};
  std::atomic<int> destroyed{0};
  std::atomic<int> length{0};
  std::array<std::atomic<char>, 64> letters{};

  void note(char letter) { letters[static_cast<std::size_t>(length++)] = letter; }
  [[nodiscard]] std::string text() const {
    std::string all;
    for (int i = 0; i < length; ++i) all += letters[static_cast<std::size_t>(i)];
    return all;
  }
};

/// Set by tests before they make a pool.
diary* told = nullptr;

/// Neither copied nor moved.
class counted {
 public:
  counted() { ++told->made; }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { ++told->destroyed; }

  int uses = 0;
};

worker_local<counted> a_counted;

int use(int) {
  return ++a_counted->uses;
}

/// A shared diary for one test.
class reading {
 public:
  reading() { told = memory_.get(); }
  reading(const reading&) = delete;
  reading& operator=(const reading&) = delete;
  ~reading() { told = nullptr; }
  diary* operator->() const { return memory_.get(); }

 private:
  shared<diary> memory_;
};

void drain(procpool::Pool<>& pool) {
  pool.close();
  pool.join();
}

template <class Call>
std::string complaint(Call call) {
  try {
    call();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

// ---- construction ------------------------------------------------------------------------------

TEST_CASE("a value is made once in each worker that uses it, on first use", "[worker_local]") {
  reading diary;
  procpool::Pool pool{1};
  pool.apply([] {});
  CHECK(diary->made == 0);
  CHECK(pool.map(use, {0, 0, 0, 0}, {.chunksize = 2}) == std::vector<int>{1, 2, 3, 4});
  CHECK(pool.apply(use, 0) == 5);
  CHECK(diary->made == 1);

  procpool::Pool others{3};
  const auto slowly = [](int) {
    std::this_thread::sleep_for(1ms);
    use(0);
    return getpid();
  };
  const auto pids = others.map(slowly, std::vector<int>(60), {.chunksize = 1});
  CHECK(diary->made == 1 + static_cast<int>(std::set<pid_t>(pids.begin(), pids.end()).size()));
}

namespace {

worker_local<int> a_number;
const worker_local lines{[] { return std::vector<std::string>{"first"}; }};
worker_local<std::unique_ptr<int>> a_pointer{[] { return std::make_unique<int>(7); }};
worker_local<std::string> from_literal{[] { return "text"; }};
worker_local<int> one{[] { return 1; }};
worker_local<int> two{[next = 1]() mutable { return ++next; }};

}  // namespace

TEST_CASE("values of all kinds, by *, -> and get()", "[worker_local]") {
  static_assert(!std::is_copy_constructible_v<worker_local<int>>);
  static_assert(!std::is_move_constructible_v<worker_local<int>>);
  static_assert(std::is_same_v<decltype(lines), const worker_local<std::vector<std::string>>>);
  procpool::Pool pool{1};
  CHECK(pool.apply([] { return *a_number; }) == 0);
  CHECK(pool.apply([] { return ++*a_number; }) == 1);
  CHECK(pool.apply([] { return ++a_number.get(); }) == 2);
  pool.apply([] { lines->push_back("second"); });
  CHECK(pool.apply([] { return *lines; }) == std::vector<std::string>{"first", "second"});
  CHECK(pool.apply([] { return **a_pointer; }) == 7);
  CHECK(pool.apply([] { return *from_literal; }) == "text");
  CHECK(pool.apply([] { return std::pair(*one, *two); }) == std::pair(1, 2));
  CHECK(pool.apply([] { return &*one == one.operator->() && &*one == &one.get(); }));
}

namespace {

int moods = 0;
worker_local<int> moody{[] {
  if (++moods < 3) throw std::range_error("mood " + std::to_string(moods));
  return moods;
}};

struct outer_value {
  outer_value();
  ~outer_value();
};
struct inner_value {
  inner_value() { told->note('b'); }
  ~inner_value() { told->note('B'); }
  void touch() const { told->note('.'); }
};
worker_local<inner_value> inner;
worker_local<outer_value> outer;
worker_local<int> third{[] {
  told->note('c');
  return 3;
}};
outer_value::outer_value() {
  inner->touch();
  told->note('a');
}
outer_value::~outer_value() {
  inner->touch();  // still there
  told->note('A');
}

}  // namespace

TEST_CASE("an exception of the constructor is the task's; the next use tries again",
          "[worker_local]") {
  procpool::Pool pool{1};
  const auto mood = [](int) { return *moody; };
  CHECK_THROWS_AS(pool.apply(mood, 0), std::range_error);
  const auto rest = pool.map_outcomes(mood, {0, 0, 0}, {.chunksize = 3});
  CHECK_THROWS_AS(rest[0].value(), std::range_error);
  CHECK(rest[1].value() == 3);
  CHECK(rest[2].value() == 3);
}

TEST_CASE("a value that uses another is made after it, and destroyed before it", "[worker_local]") {
  reading diary;
  procpool::Pool pool{1};
  pool.apply([] { outer.get(); });
  CHECK(diary->text() == "b.a");
  CHECK(pool.apply([] { return *third; }) == 3);
  drain(pool);
  CHECK(diary->text() == "b.ac.AB");
}

namespace {

struct snake {
  snake();
};
worker_local<snake> first_snake;
worker_local<int> second_snake{[] { return first_snake.get(), 1; }};
snake::snake() {
  static_cast<void>(*second_snake);
}

}  // namespace

TEST_CASE("a value that needs itself is an error that says so, each time", "[worker_local]") {
  procpool::Pool pool{1};
  const auto bite = [] { return complaint([] { first_snake.get(); }); };
  for (int i = 0; i < 2; ++i) {
    const std::string text = pool.apply(bite);
    INFO(text);
    CHECK(text.find("snake") != std::string::npos);
    CHECK(text.find("needs that very value") != std::string::npos);
  }
  CHECK(!pool.apply([] { return complaint([] { static_cast<void>(*second_snake); }); }).empty());
}

namespace {

std::optional<worker_local<int>> renewed;
int renew(int value) {
  renewed.emplace([value] { return value; });
  return **renewed;
}

}  // namespace

TEST_CASE("another worker_local at the same address has a value of its own", "[worker_local]") {
  procpool::Pool pool{1};
  CHECK(pool.map(renew, {1, 2, 3}) == std::vector<int>{1, 2, 3});
}

TEST_CASE("one made in a task, static in a function, serves as well", "[worker_local]") {
  procpool::Pool pool{1};
  const auto count = [](int) {
    static worker_local<int> calls;
    return ++*calls;
  };
  CHECK(pool.map(count, {0, 0, 0}) == std::vector<int>{1, 2, 3});
}

TEST_CASE("an initializer can prepare a value", "[worker_local]") {
  reading diary;
  procpool::Pool pool{{.processes = 1, .initializer = {[] { a_counted->uses = 10; }}}};
  CHECK(pool.apply(use, 0) == 11);
  CHECK(diary->made == 1);
}

// ---- who has one -------------------------------------------------------------------------------

TEST_CASE("outside of a task a worker_local has no value, and says so", "[worker_local]") {
  const auto outside = [] { return complaint([] { static_cast<void>(*a_number); }); };
  const std::string text = outside();
  INFO(text);
  CHECK(text.find("worker_local<int>") != std::string::npos);
  CHECK(text.find("outside of a task") != std::string::npos);

  procpool::Pool pool{1};
  CHECK(pool.apply([outside] {
    std::string in_thread;
    std::jthread([&] { in_thread = outside(); }).join();
    return in_thread;
  }) == text);
  const auto in_process = [] {
    procpool::Process process([] { ++*a_number; });
    process.start();
    process.join();
    return process.exitcode();
  };
  CHECK(pool.apply(in_process) == std::optional(1));
}

TEST_CASE("workers that are threads of one process have a value each", "[worker_local]") {
  reading diary;
  const std::atomic<std::uint64_t> started{0};
  procpool::WorkerContext left("left", 0, 0, started);
  procpool::WorkerContext right("right", 1, 0, started);
  const auto work = [](procpool::WorkerContext& worker, int uses) {
    procpool::detail::running_worker = &worker;
    int last = 0;
    for (int i = 0; i < uses; ++i) last = use(0);
    procpool::detail::running_worker = nullptr;
    return last;
  };
  std::jthread([&] { CHECK(work(left, 3) == 3); }).join();
  std::jthread([&] { CHECK(work(right, 2) == 2); }).join();
  CHECK(diary->made == 2);
  left.leave();
  CHECK(diary->destroyed == 1);
  std::jthread([&] { CHECK(work(right, 1) == 3); }).join();
}

// ---- the end -----------------------------------------------------------------------------------

TEST_CASE("values are destroyed when their workers leave in order", "[worker_local]") {
  reading diary;
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 3}};
  CHECK(pool.map(use, std::vector<int>(12), {.chunksize = 1}).size() == 12);
  drain(pool);
  CHECK(diary->made >= 4);
  CHECK(diary->destroyed == diary->made);
}

TEST_CASE("values are destroyed when their worker leaves because it has grown", "[worker_local]") {
  reading diary;
  procpool::Pool pool{{.processes = 1, .max_resident = 1}};
  for (int i = 0; i < 3; ++i) {
    CHECK(pool.apply(use, 0) >= 1);
    std::this_thread::sleep_for(2ms);  // it looks at its size once a millisecond
  }
  drain(pool);
  CHECK(diary->made >= 2);
  CHECK(diary->destroyed == diary->made);
}

TEST_CASE("values of workers that are killed, crash or exit are not destroyed", "[worker_local]") {
  reading diary;
  {
    procpool::Pool pool{1};
    for (const int way : {SIGKILL, SIGSEGV, 0}) {
      CHECK_THROWS_AS(pool.apply(
                          [](int signal) {
                            use(0);
                            if (signal == 0) std::exit(3);
                            std::signal(signal, SIG_DFL);
                            raise(signal);
                          },
                          way),
                      procpool::WorkerDied);
    }
    CHECK(pool.apply(use, 0) == 1);  // the replacement has a new one
  }                                  // terminates
  CHECK(diary->made == 4);
  CHECK(diary->destroyed == 0);
}

namespace {

gate* door = nullptr;
struct slow_to_go {
  ~slow_to_go() { door->pass(); }
};
worker_local<slow_to_go> slow;

struct talker {
  ~talker() { std::fputs("goodbye;", stdout); }
};
worker_local<talker> talking;

struct stumbler {
  int how = 0;
  ~stumbler() {
    if (how == 0) std::_Exit(3);
    raise(how);
  }
};
worker_local<stumbler> stumbling;

struct latecomer {
  ~latecomer() {
    told->note(complaint([] { use(0); }).empty() ? 'n' : 'y');
  }
};
worker_local<latecomer> late;

}  // namespace

TEST_CASE("nobody waits for a result until a value is destroyed", "[worker_local][limit:60]") {
  shared<gate> waiting;
  door = waiting.get();
  procpool::Pool pool{{.processes = 1, .maxtasksperchild = 1}};
  CHECK(pool.apply([] { return slow.get(), 5; }) == 5);
  CHECK(waiting->wait_for(1));
  waiting->open();
  drain(pool);
}

TEST_CASE("what a destructor prints is not lost", "[worker_local]") {
  const auto run = support::capture_child([] {
    procpool::Pool pool{{.processes = 1, .maxtasksperchild = 1}};
    for (int i = 0; i < 2; ++i) pool.apply([] { talking.get(); });
    drain(pool);
    return 0;
  });
  CHECK(run.exitcode == 0);
  CHECK(run.out == "goodbye;goodbye;");
}

TEST_CASE("a destructor that kills its worker costs no task", "[worker_local]") {
  procpool::Pool pool{{.processes = 2, .maxtasksperchild = 2}};
  const auto task = [](int x) {
    stumbling->how = x % 2 == 0 ? 0 : SIGKILL;
    return 2 * x;
  };
  std::vector<int> items;
  std::vector<int> doubled;
  for (int i = 0; i < 40; ++i) {
    items.push_back(i);
    doubled.push_back(2 * i);
  }
  CHECK(pool.map(task, items, {.chunksize = 1}) == doubled);
  drain(pool);
}

TEST_CASE("a destructor that wants another value for the first time gets std::logic_error",
          "[worker_local]") {
  reading diary;
  procpool::Pool pool{1};
  pool.apply([] { late.get(); });
  drain(pool);
  CHECK(diary->text() == "y");
  CHECK(diary->made == 0);
}
