// SPDX-License-Identifier: MIT
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include <procpool/detail/manager/manager_link.hpp>

#include "support/child.hpp"
#include "support/processes.hpp"
#include "support/sanitizers.hpp"
#include "support/shared.hpp"

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::DictProxy;
using procpool::EOFError;
using procpool::ListProxy;
using procpool::Manager;
using procpool::Pool;
using procpool::Process;
using procpool::Proxy;
using support::eventually;

namespace {

using scores_proxy = DictProxy<std::string, long>;

class poor : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
const bool poor_registered = (procpool::register_exception<poor>(), true);

class account {
 public:
  explicit account(long balance) : balance_(balance) {}
  account(const account&) = delete;
  account& operator=(const account&) = delete;
  virtual ~account() = default;

  long withdraw(long amount) {
    if (amount > balance_) throw poor("only " + std::to_string(balance_));
    return balance_ -= amount;
  }
  [[nodiscard]] virtual long balance() const noexcept { return balance_; }
  long bonus = 5;

 private:
  long balance_;
};

struct point {
  int x;
  int y;
};

void add_one(const scores_proxy& scores, const std::string& key) {
  scores.call([](procpool::Dict<std::string, long>& all, const std::string& k) { ++all[k]; }, key);
}

int add_ones(const scores_proxy& scores, int times) {
  for (int i = 0; i < times; ++i) add_one(scores, "n");
  return times;
}

int length_of(const ListProxy<int>& list, int extra) {
  list.append(extra);
  return static_cast<int>(list.size());
}

/// The link of this process to the manager of @p proxy.
template <class P>
std::shared_ptr<procpool::detail::manager_link> link_of(const P& proxy) {
  using namespace procpool::detail;
  byte_buffer bytes;
  const handle_scope sent(handle_delivery::repeated);
  procpool::encoder(bytes).put(proxy);
  procpool::decoder in(bytes.view());
  static_cast<void>(in.get<object_wire>());
  return manager_link::of(get_object(in, object_kind::manager));
}

/// A child that procpool does not know of: its fork handlers do not run.
pid_t vfork_like(void (*body)()) {
  const auto pid = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
  if (pid == 0) {
    body();
    _exit(0);
  }
  return pid;
}

// ---- objects whose lives are seen from outside

support::common<std::atomic<int>*> living;

struct counted {
  explicit counted(std::size_t size = 0) : data(size) { ++*living.get(); }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --*living.get(); }

  int touch() { return ++touched; }
  std::vector<char> data;
  int touched = 0;
};

Proxy<counted> make_in_task(const Proxy<counted>& same) {
  return same;
}

}  // namespace

TEST_CASE("A manager's dictionary keeps its items in the order of insertion") {
  Manager manager;
  const auto scores = manager.dict<std::string, long>();
  CHECK(scores.size() == 0);
  scores.set("b", 1);
  scores.set("a", 2);
  scores.set("b", 3);
  CHECK(scores.get("b") == 3);
  CHECK(scores.get("c", 7) == 7);
  CHECK(scores.get("a", 7) == 2);
  CHECK(scores.keys() == std::vector<std::string>{"b", "a"});
  CHECK(scores.values() == std::vector<long>{3, 2});
  CHECK(scores.items() == std::vector<std::pair<std::string, long>>{{"b", 3}, {"a", 2}});
  CHECK(scores.contains("a"));
  CHECK_FALSE(scores.contains("c"));
  CHECK(scores.setdefault("a", 9) == 2);
  CHECK(scores.setdefault("c", 9) == 9);
  scores.update({{"d", 4}, {"a", 5}});
  CHECK(scores.pop("b") == 3);
  CHECK(scores.pop("b", 11) == 11);
  CHECK(scores.erase("c"));
  CHECK_FALSE(scores.erase("c"));
  CHECK(scores.popitem() == std::pair<std::string, long>{"d", 4});
  const auto copy = scores.copy();
  CHECK(copy.size() == 1);
  CHECK(copy.at("a") == 5);
  scores.clear();
  CHECK(scores.size() == 0);
  CHECK_THROWS_AS(scores.get("a"), std::out_of_range);
  CHECK_THROWS_AS(scores.pop("a"), std::out_of_range);
  CHECK_THROWS_AS(scores.popitem(), std::out_of_range);
  CHECK(manager.dict<int, int>({{1, 2}, {3, 4}}).get(3) == 4);
}

TEST_CASE("A manager's list has negative indices, and errors for those out of range") {
  Manager manager;
  const auto list = manager.list<int>({1, 2, 3});
  list.append(4);
  list.extend({5, 6});
  CHECK(list.get(0) == 1);
  CHECK(list.get(-1) == 6);
  list.set(-2, 50);
  list.insert(0, 0);
  list.insert(100, 7);
  list.insert(-100, -1);
  CHECK(list.copy() == std::vector<int>{-1, 0, 1, 2, 3, 4, 50, 6, 7});
  CHECK(list.slice(1, 3) == std::vector<int>{0, 1});
  CHECK(list.slice(-2, 100) == std::vector<int>{6, 7});
  CHECK(list.slice(5, 2).empty());
  CHECK(list.pop() == 7);
  CHECK(list.pop(0) == -1);
  list.remove(50);
  CHECK(list.index(4) == 4);
  CHECK(list.count(3) == 1);
  CHECK(list.contains(3));
  CHECK_FALSE(list.contains(50));
  list.reverse();
  CHECK(list.copy() == std::vector<int>{6, 4, 3, 2, 1, 0});
  list.sort();
  CHECK(list.copy() == std::vector<int>{0, 1, 2, 3, 4, 6});
  CHECK_THROWS_AS(list.get(6), std::out_of_range);
  CHECK_THROWS_AS(list.get(-7), std::out_of_range);
  CHECK_THROWS_AS(list.set(6, 1), std::out_of_range);
  CHECK_THROWS_AS(list.remove(99), std::invalid_argument);
  CHECK_THROWS_AS(list.index(99), std::invalid_argument);
  list.clear();
  CHECK_THROWS_AS(list.pop(), std::out_of_range);
  const auto flags = manager.list<bool>({true, false});
  CHECK(flags.get(0));
  CHECK_FALSE(flags.pop());
}

TEST_CASE("A manager's namespace has values of several types, and checks them") {
  Manager manager;
  const auto space = manager.Namespace();
  space.set("x", 1);
  space.set("name", "text");
  space.set("list", std::vector<double>{1.5});
  CHECK(space.get<int>("x") == 1);
  CHECK(space.get<std::string>("name") == "text");
  CHECK(space.get<std::vector<double>>("list") == std::vector<double>{1.5});
  CHECK(space.names() == std::vector<std::string>{"list", "name", "x"});
  CHECK(space.contains("x"));
  CHECK(space.erase("x"));
  CHECK_FALSE(space.erase("x"));
  CHECK_THROWS_AS(space.get<int>("x"), std::out_of_range);
  CHECK_THROWS_AS(space.get<int>("name"), std::invalid_argument);
  space.set("inner", manager.list<int>({7}));
  CHECK(space.get<ListProxy<int>>("inner").get(0) == 7);
}

TEST_CASE("A manager keeps objects of any type, and runs code on them as a whole") {
  Manager manager;
  const auto mine = manager.make<account>(100);
  CHECK(mine.call(&account::withdraw, 30) == 70);
  CHECK(mine.call(&account::balance) == 70);  // virtual
  CHECK(mine.call(&account::bonus) == 5);
  CHECK(mine.call([](account& a, long times) { return a.balance() * times; }, 2) == 140);
  const int captured = 3;
  CHECK(mine.call([captured](auto& a) { return a.balance() + captured; }) == 73);
  CHECK(manager.make<point>(1, 2).call(&point::y) == 2);
  CHECK(manager.make<std::string>("abc").call([](std::string& s) { return s.size(); }) == 3);
  long (*const null)(account&) = nullptr;
  CHECK_THROWS_AS(mine.call(null), std::invalid_argument);
}

TEST_CASE("An exception of a managed object keeps its type and says where it was thrown") {
  Manager manager;
  const auto mine = manager.make<account>(10);
  try {
    mine.call(&account::withdraw, 30);
    FAIL();
  } catch (const poor& error) {
    CHECK(std::string(error.what()) == "only 10");
    try {
      std::rethrow_if_nested(error);
      FAIL();
    } catch (const procpool::RemoteTraceback& trace) {
      CHECK_THAT(trace.what(), ContainsSubstring(std::to_string(manager.pid())));
    }
  }
  struct unknown : std::exception {};
  CHECK_THROWS_AS(mine.call([](account&) { throw unknown(); }), procpool::RemoteError);
  CHECK_THROWS_AS(mine.call([](account&) { throw 7; }), procpool::RemoteError);
  CHECK_THROWS_AS(manager.make<std::vector<int>>(std::size_t{1} << 62), std::length_error);
  CHECK(mine.call(&account::balance) == 10);
}

TEST_CASE("Several threads change one object of a manager") {
  Manager manager;
  const auto scores = manager.dict<std::string, long>();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) threads.emplace_back([&] { add_ones(scores, 100); });
  for (auto& each : threads) each.join();
  CHECK(scores.get("n") == 800);
}

TEST_CASE("Proxies go to the workers of a pool, also of one that was there before the manager") {
  for (const auto method : procpool::get_all_start_methods()) {
    Pool before{{.processes = 2, .start_method = method}};
    before.apply([] {});
    Manager manager({.start_method = method});
    Pool after{{.processes = 2, .start_method = method}};
    const auto scores = manager.dict<std::string, long>();
    for (Pool<>* pool : {&before, &after}) {
      CHECK(pool->apply(add_ones, scores, 10) == 10);
      pool->starmap(add_ones, std::vector<std::pair<scores_proxy, int>>(20, {scores, 5}));
      const auto other = pool->apply([](const scores_proxy& same) { return same; }, scores);
      CHECK(other == scores);
      CHECK(other.contains("n"));
    }
    CHECK(scores.get("n") == 220);
    const auto list = manager.list<int>();
    CHECK(before.apply(length_of, list, 4) == 1);
    CHECK(list.get(0) == 4);
    Process process({.start_method = method}, length_of, list, 5);
    process.start();
    process.join();
    CHECK(process.exitcode() == 0);
    CHECK(list.copy() == std::vector<int>{4, 5});
  }
}

TEST_CASE("Proxies go to workers that are threads, and into closures") {
  Manager manager;
  const auto list = manager.list<int>();
  procpool::ThreadPool threads{2};
  CHECK(threads.apply(length_of, list, 1) == 1);
  CHECK(list.size() == 1);
}

TEST_CASE("Objects of a manager contain proxies of others") {
  Manager manager;
  auto lists = manager.dict<std::string, ListProxy<int>>();
  lists.set("a", manager.list<int>({1, 2}));
  lists.get("a").append(3);
  CHECK(lists.get("a").copy() == std::vector<int>{1, 2, 3});
  auto nested = manager.list<ListProxy<ListProxy<int>>>();
  nested.append(manager.list<ListProxy<int>>({manager.list<int>({5})}));
  CHECK(nested.get(0).get(0).get(0) == 5);
  // Used in the manager's process itself.
  CHECK(lists.call([](auto& all) { return all.at("a").size(); }) == 3);
  std::this_thread::sleep_for(1500ms);  // only the dictionary in the server keeps it
  CHECK(lists.get("a").size() == 3);
}

TEST_CASE("A manager makes the objects that need none, and keeps handles of them") {
  Manager manager;
  const auto numbers = manager.dict<std::string, procpool::Value<int>>();
  auto number = manager.Value(4);
  numbers.set("a", number);
  number.set(5);
  CHECK(numbers.get("a").get() == 5);
  CHECK(manager.Array<int>({1, 2, 3}).size() == 3);
  CHECK(manager.Semaphore(2).acquire(0s));
  CHECK(manager.BoundedSemaphore().acquire(0s));
  CHECK_FALSE(manager.Event().is_set());
  CHECK(manager.Barrier(2).parties() == 2);
  const auto conditions = manager.list<procpool::Condition>();
  conditions.append(manager.Condition());
  manager.shutdown();
  CHECK(number.get() == 5);
}

TEST_CASE("An object of a manager lives as long as any process has a proxy") {
  support::shared<std::atomic<int>> number;
  living = number.get();
  Manager manager;
  Pool pool{2};
  {
    const auto first = manager.make<counted>();
    CHECK(*number == 1);
    auto held = manager.list<Proxy<counted>>();
    held.append(first);
    pool.apply(make_in_task, first);
    {
      const auto second = manager.make<counted>();
      CHECK(*number == 2);
    }
    CHECK(eventually([&] { return *number == 1; }));
    CHECK(held.pop() == first);
    CHECK(first.call(&counted::touch) == 1);
  }
  CHECK(eventually([&] { return *number == 0; }));
}

TEST_CASE("An object is destroyed when the process that had its proxy is killed") {
  support::shared<std::atomic<int>> number;
  living = number.get();
  Manager manager;
  const pid_t child = support::start_child([&] {
    const auto kept = manager.make<counted>();
    kept.call(&counted::touch);
    kill(getpid(), SIGKILL);
    return 0;
  });
  CHECK(support::wait_child(child) == -SIGKILL);
  CHECK(eventually([&] { return *number == 0; }));
}

TEST_CASE("A manager survives clients that are killed in the middle of a call") {
  support::shared<std::atomic<int>> number;
  living = number.get();
  Manager manager;
  const auto scores = manager.dict<std::string, long>();
  const auto big = manager.list<std::string>({std::string(200'000, 'x')});
  std::minstd_rand random(7);
  for (int round = 0; round < 60; ++round) {
    const pid_t child = support::start_child([&] {
      std::thread([&] {
        while (true) static_cast<void>(big.copy());
      }).detach();
      while (true) {
        add_one(scores, "n");
        const auto temporary = manager.make<counted>();
        temporary.call(&counted::touch);
      }
      return 0;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    kill(child, SIGKILL);
    CHECK(support::wait_child(child) == -SIGKILL);
    add_one(scores, "n");
    CHECK(big.get(0).size() == 200'000);
  }
  CHECK(eventually([&] { return *number == 0; }));
}

TEST_CASE("When a manager's process is killed its clients get EOFError, also those that wait") {
  Manager manager;
  const auto list = manager.list<int>({1});
  CHECK(list.size() == 1);
  std::atomic<int> ended = 0;
  std::vector<std::thread> waiting;
  for (int t = 0; t < 3; ++t) {
    waiting.emplace_back([&] {
      try {
        list.call([](std::vector<int>&) { std::this_thread::sleep_for(1h); });
      } catch (const EOFError&) {
        ++ended;
      }
    });
  }
  Pool pool{1};
  auto other = pool.apply_async(length_of, list, 1);
  std::this_thread::sleep_for(100ms);
  kill(manager.pid(), SIGKILL);
  for (auto& each : waiting) each.join();
  CHECK(ended == 3);
  CHECK_THROWS_AS(other.get(), EOFError);
  CHECK_THROWS_AS(list.size(), EOFError);
  CHECK_THROWS_AS(pool.apply(length_of, list, 1), EOFError);
  CHECK_THROWS_AS(manager.list<int>(), EOFError);
  CHECK(eventually([&] { return !manager.is_alive(); }));
  manager.shutdown();
}

TEST_CASE("After shutdown() the objects of a manager are gone") {
  support::shared<std::atomic<int>> number;
  living = number.get();
  Manager manager;
  const auto kept = manager.make<counted>();
  const pid_t server = manager.pid();
  CHECK(support::is_running(server));
  manager.shutdown();
  CHECK_FALSE(support::is_running(server));
  CHECK(*number == 0);  // its destructor has run
  CHECK_THROWS_AS(kept.call(&counted::touch), EOFError);
  CHECK_THROWS_AS(manager.make<counted>(), EOFError);
  manager.shutdown();
  try {
    kept.call(&counted::touch);
  } catch (const EOFError& error) {
    CHECK(std::string(error.what()) == "the manager has ended, and its objects with it");
  }
}

TEST_CASE("shutdown() does not wait for calls that go on for long") {
  Manager manager;
  const auto list = manager.list<int>();
  std::thread waiting([&] {
    CHECK_THROWS_AS(list.call([](std::vector<int>&) { std::this_thread::sleep_for(1h); }),
                    EOFError);
  });
  std::this_thread::sleep_for(50ms);
  const auto begin = std::chrono::steady_clock::now();
  manager.shutdown();
  CHECK(std::chrono::steady_clock::now() - begin < 20s);
  waiting.join();
}

TEST_CASE("Copies of a Manager are one, and the last one ends it") {
  std::optional<Manager> first(std::in_place);
  const auto list = first->list<int>();
  {
    const Manager second = *first;  // NOLINT(performance-unnecessary-copy-initialization)
    CHECK(second.pid() == first->pid());
  }
  CHECK(list.size() == 0);
  first.reset();
  CHECK_THROWS_AS(list.size(), EOFError);
}

TEST_CASE("A forked child uses its parent's manager, but does not end it") {
  Manager manager;
  const auto list = manager.list<int>({1});
  CHECK(list.size() == 1);  // the connection is the parent's
  CHECK(support::run_child([&] {
          Manager same = manager;
          list.append(2);
          const auto own = same.list<int>({4});
          CHILD_REQUIRE(own.get(0) == 4);
          try {
            same.shutdown();
          } catch (const std::logic_error&) {
            return 3;
          }
          return 0;
        }) == 3);
  CHECK(list.copy() == std::vector<int>{1, 2});
}

TEST_CASE("A manager ends when the process that made it is killed") {
  support::shared<std::atomic<pid_t>> server;
  support::shared<std::atomic<int>> stage;
  const pid_t child = support::start_child([&] {
    Manager manager;
    *server = manager.pid();
    *stage = 1;
    while (true) pause();
    return 0;
  });
  CHECK(eventually([&] { return *stage == 1; }));
  CHECK(support::is_running(*server));
  kill(child, SIGKILL);
  CHECK(support::wait_child(child) == -SIGKILL);
  CHECK(eventually([&] { return !support::is_running(*server); }));
}

TEST_CASE("A program that calls exit() does not wait for its manager") {
  CHECK(support::run_named("exits_with_a_manager").exitcode == 5);
}
NAMED_PROGRAM(exits_with_a_manager) {
  Manager manager;
  manager.list<int>().append(1);
  std::exit(5);
}

TEST_CASE("Ctrl-C does not end a manager") {
  Manager manager;
  kill(manager.pid(), SIGINT);
  CHECK(manager.list<int>({1}).size() == 1);
}

TEST_CASE("A client that sends nonsense is disconnected, and nothing else happens") {
  Manager manager;
  const auto list = manager.list<int>({1});
  const auto link = link_of(list);
  std::minstd_rand random(3);
  for (int round = 0; round < 300; ++round) {
    auto connection = link->take();
    std::vector<std::byte> noise(random() % 100);
    for (auto& each : noise) each = static_cast<std::byte>(random());
    if (round % 3 == 0) {
      connection->send(noise);
    } else if (round % 3 == 1) {  // a good head, but for its code
      const procpool::detail::request_head head{procpool::detail::managed_op::run,
                                                static_cast<std::uint32_t>(random()),
                                                1,
                                                static_cast<std::uint32_t>(random() % 2),
                                                random() % 1'000'000,
                                                0};
      noise.insert(noise.begin(), sizeof head, std::byte{});
      std::memcpy(noise.data(), &head, sizeof head);
      connection->send(noise);
    } else {
      static_cast<void>(write(connection->number(), noise.data(), noise.size()));
    }
    link->give_back(std::move(connection), false);
  }
  CHECK(list.size() == 1);
}

TEST_CASE("Code that uses an object of a manager cannot call it through its proxy") {
  Manager manager;
  const auto list = manager.list<int>({1});
  const auto other = manager.list<int>({1, 2});
  const auto call = [](std::vector<int>&, const ListProxy<int>& proxy) { return proxy.size(); };
  CHECK(list.call(call, other) == 2);
  CHECK_THROWS_AS(list.call(call, list), std::logic_error);
}

TEST_CASE("Large values, and Connections, are kept by a manager") {
  Manager manager;
  const auto list = manager.list<std::vector<int>>();
  std::vector<int> large(2'000'000);
  std::iota(large.begin(), large.end(), 0);
  list.append(large);
  CHECK(list.get(0) == large);
  auto [ours, theirs] = procpool::Pipe();
  const auto ends = manager.dict<int, procpool::Connection>();
  ends.set(1, theirs);
  theirs.close();
  {
    auto back = ends.pop(1);
    back.send(std::string("hello"));
  }
  CHECK(ours.recv<std::string>() == "hello");
  CHECK_THROWS_AS(ours.recv<int>(), EOFError);
}

TEST_CASE("A proxy is not decoded as one of another type or from other bytes") {
  Manager manager;
  procpool::detail::byte_buffer bytes;
  procpool::encoder(bytes).put(manager.list<int>());
  procpool::decoder in(bytes.view());
  CHECK_THROWS_AS(in.get<ListProxy<long>>(), procpool::DecodeError);
  std::minstd_rand random(5);
  for (int round = 0; round < 2000; ++round) {
    std::array<std::byte, 48> noise{};
    for (auto& each : noise) each = static_cast<std::byte>(random());
    procpool::decoder noisy(noise);
    CHECK_THROWS_AS(noisy.get<ListProxy<int>>(), procpool::DecodeError);
  }
}

TEST_CASE("A manager without descriptors refuses connections, and goes on with those that it has") {
  if (support::address_sanitizer) SKIP("the sanitizers need descriptors for their checks");
  Manager manager;
  const auto object = manager.make<point>(1, 2);
  const auto limit = [](point&, rlim_t most) {
    rlimit now{};
    getrlimit(RLIMIT_NOFILE, &now);
    now.rlim_cur = std::min(most, now.rlim_max);
    return setrlimit(RLIMIT_NOFILE, &now);
  };
  CHECK(object.call(limit, 0) == 0);
  const auto in_child = [&] {
    return support::run_child([&] {
      try {
        return object.call(&point::y);
      } catch (const procpool::ProcessError&) {
        return 7;
      }
    });
  };
  CHECK(in_child() == 7);
  CHECK(object.call(limit, 256) == 0);
  CHECK(in_child() == 2);
}

TEST_CASE("Clients get EOFError though a child of the manager's process lives on") {
  Manager manager;
  support::shared<std::atomic<pid_t>> child;
  living = reinterpret_cast<std::atomic<int>*>(child.get());
  const auto object = manager.make<point>(1, 2);
  std::thread waiting([&] {
    CHECK_THROWS_AS(object.call([](point&) {
      *living.get() = vfork_like([] { pause(); });
      std::this_thread::sleep_for(1h);
    }),
                    EOFError);
  });
  CHECK(eventually([&] { return *child != 0; }));
  kill(manager.pid(), SIGKILL);
  waiting.join();
  kill(*child, SIGKILL);
}

TEST_CASE("Many connections of killed clients leave nothing behind") {
  Manager manager;
  const auto list = manager.list<int>({1});
  // More than the store of descriptors has room for.
  for (int round = 0; round < 400; ++round) {
    const pid_t child = support::start_child([&] {
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t) threads.emplace_back([&] { static_cast<void>(list.size()); });
      for (auto& each : threads) each.join();
      while (true) pause();
      return 0;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(round * 7));
    kill(child, SIGKILL);
    CHECK(support::wait_child(child) == -SIGKILL);
  }
  CHECK(support::run_child([&] { return static_cast<int>(list.size()); }) == 1);
  CHECK(eventually([&] {
    return support::names_in("/proc/" + std::to_string(manager.pid()) + "/task").size() <= 3;
  }));
}

TEST_CASE("The objects of a manager can have processes and pools") {
  Manager manager;
  const auto object = manager.make<point>(1, 2);
  CHECK(object.call([](point& p) {
    Pool pool{2};
    return pool.apply([](int x) { return x + 1; }, p.x);
  }) == 2);
  CHECK(object.call([](point&) {
    Process process([] {});
    process.start();
    process.join();
    return process.exitcode().value_or(-1);
  }) == 0);
}
