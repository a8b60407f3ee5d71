// SPDX-License-Identifier: MIT
// After _TestContainers, _TestMyManager, _TestManagerRestart, TestSyncManagerTypes and
// TestManagerExceptions.
#include <catch2/catch_test_macros.hpp>
#include <mutex>
#include <optional>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/processes.hpp"

namespace {

using procpool::DictProxy;
using procpool::ListProxy;
using procpool::Manager;
using procpool::NamespaceProxy;
using procpool::Pool;
using procpool::Process;

class foo_bar {
 public:
  std::string f() { return "f()"; }
  std::string g() { throw std::invalid_argument("g()"); }
  std::string h() { return "_h()"; }
};

/// Runs a target in a process of each start method, with a manager of the same one.
template <class Test>
void on_each_start_method(Test test) {
  for (const auto method : procpool::get_all_start_methods()) {
    Manager manager({.start_method = method});
    test(manager, [method](auto target, auto... arguments) {
      Process process({.start_method = method}, target, arguments...);
      process.start();
      process.join();
      CHECK(process.exitcode() == 0);
    });
  }
}

void change_list(const ListProxy<int>& list) {
  list.append(4);
  list.set(0, 10);
  list.reverse();
}
void change_dict(const DictProxy<std::string, int>& dict) {
  dict.set("foo", 123);
  dict.erase("gone");
}
void change_namespace(const NamespaceProxy& space) {
  space.set("x", space.get<int>("x") + 1);
  space.set("y", "text");
}

}  // namespace

TEST_CASE("_TestContainers.test_list: a list has Python's operations", "[fork]") {
  Manager manager;
  const auto a = manager.list<int>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(a.copy() == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const auto b = manager.list<int>();
  CHECK(b.copy().empty());
  b.extend({0, 1, 2, 3, 4});
  CHECK(b.copy() == std::vector<int>{0, 1, 2, 3, 4});
  CHECK(b.get(2) == 2);
  CHECK(b.slice(2, 10) == std::vector<int>{2, 3, 4});
  b.extend(b.copy());
  CHECK(b.copy() == std::vector<int>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
  const auto e = manager.list<ListProxy<int>>({a, b});
  CHECK(e.get(0).copy() == a.copy());
  CHECK(e.get(1).copy() == b.copy());
  const auto f = manager.list<ListProxy<int>>({a});
  a.append(100);
  CHECK(f.get(0).get(-1) == 100);
}

TEST_CASE("_TestContainers.test_list_iter: a copy of a list is iterated", "[fork]") {
  Manager manager;
  const auto a = manager.list<int>({0, 1, 2});
  int sum = 0;
  for (const int each : a.copy()) sum += each;
  CHECK(sum == 3);
}

TEST_CASE("_TestContainers.test_list_proxy_in_list: lists of lists are the same lists", "[fork]") {
  Manager manager;
  const auto a = manager.list<ListProxy<int>>();
  for (int i = 0; i < 3; ++i) a.append(manager.list<int>({0, 1, 2}));
  a.get(0).set(-1, 55);
  CHECK(a.get(0).copy() == std::vector<int>{0, 1, 55});
  for (int i = 1; i < 3; ++i) CHECK(a.get(i).copy() == std::vector<int>{0, 1, 2});
  CHECK(a.get(1).pop() == 2);
  CHECK(a.get(1).size() == 2);
  CHECK(a.size() == 3);
}

TEST_CASE("_TestContainers.test_dict: a dictionary has Python's operations", "[fork]") {
  Manager manager;
  const auto d = manager.dict<int, std::string>();
  std::vector<int> keys;
  std::vector<std::string> values;
  for (int i = 65; i < 70; ++i) {
    keys.push_back(i);
    values.emplace_back(1, static_cast<char>(i));
    d.set(i, values.back());
  }
  CHECK(d.copy().at(65) == "A");
  CHECK(d.keys() == keys);
  CHECK(d.values() == values);
  CHECK(d.items().front() == std::pair<int, std::string>{65, "A"});
  CHECK(d.size() == 5);
}

TEST_CASE("_TestContainers.test_dict_iter: a copy of the keys is iterated", "[fork]") {
  Manager manager;
  const auto d = manager.dict<int, int>({{65, 1}, {66, 2}});
  std::vector<int> keys;
  for (const int each : d.keys()) keys.push_back(each);
  CHECK(keys == std::vector<int>{65, 66});
}

TEST_CASE("_TestContainers.test_dict_proxy_nested: dictionaries in dictionaries", "[fork]") {
  Manager manager;
  using pets = DictProxy<std::string, int>;
  const auto owners = manager.dict<std::string, pets>();
  owners.set("a", manager.dict<std::string, int>({{"ferrets", 2}}));
  owners.set("b", manager.dict<std::string, int>({{"hamsters", 3}}));
  CHECK(owners.get("a").get("ferrets") == 2);
  const auto inner = owners.get("a");
  inner.set("ferrets", 5);
  CHECK(owners.get("a").get("ferrets") == 5);
  owners.get("b").set("blanket", 7);
  CHECK(owners.get("b").get("blanket") == 7);
  CHECK(owners.pop("a") == inner);
  CHECK(inner.get("ferrets") == 5);
}

TEST_CASE("_TestContainers.test_nested_queue: queues in lists and dictionaries", "[fork]") {
  {
    Manager manager;
    const auto a = manager.list<procpool::Queue<int>>();
    a.append(manager.Queue<int>());
    a.get(0).put(123);
    CHECK(a.get(0).get() == 123);
    const auto b = manager.dict<int, procpool::Queue<int>>();
    b.set(0, manager.Queue<int>());
    b.get(0).put(456);
    CHECK(b.get(0).get() == 456);
  }
  // A forked process keeps the segments of queues that others hold until it uses another queue.
  const procpool::Queue<int> another;
}

TEST_CASE("_TestContainers.test_namespace: values are set, read and removed by name", "[fork]") {
  Manager manager;
  const auto n = manager.Namespace();
  n.set("name", "Bob");
  n.set("job", "Builder");
  n.set("_hidden", "hidden");
  CHECK(n.get<std::string>("name") == "Bob");
  n.erase("job");
  CHECK(n.names() == std::vector<std::string>{"_hidden", "name"});
  CHECK(n.contains("name"));
  CHECK_FALSE(n.contains("job"));
}

TEST_CASE("_TestMyManager.test_mymanager: a type of the user, and the type of its exception",
          "[fork]") {
  std::optional<Manager> manager(std::in_place);
  const auto foo = manager->make<foo_bar>();
  CHECK(foo.call(&foo_bar::f) == "f()");
  CHECK_THROWS_AS(foo.call(&foo_bar::g), std::invalid_argument);
  CHECK(foo.call(&foo_bar::h) == "_h()");
  manager->shutdown();
  CHECK_FALSE(manager->is_alive());
}

TEST_CASE("_TestMyManager.test_mymanager_context: the end of the scope shuts it down", "[fork]") {
  pid_t pid = 0;
  {
    Manager manager;
    pid = manager.pid();
    CHECK(manager.make<foo_bar>().call(&foo_bar::f) == "f()");
  }
  CHECK_FALSE(support::is_running(pid));
}

TEST_CASE("_TestManagerRestart.test_rapid_restart: a manager right after another", "[fork]") {
  for (int i = 0; i < 10; ++i) {
    Manager manager;
    const auto list = manager.list<std::string>({"hello", "world"});
    CHECK(list.pop() == "world");
    manager.shutdown();
  }
}

TEST_CASE("TestSyncManagerTypes.test_list: another process changes it", "[fork]") {
  on_each_start_method([](Manager& manager, auto run) {
    const auto list = manager.list<int>({1, 2, 3});
    run(change_list, list);
    CHECK(list.copy() == std::vector<int>{4, 3, 2, 10});
  });
}

TEST_CASE("TestSyncManagerTypes.test_dict: another process changes it", "[fork]") {
  on_each_start_method([](Manager& manager, auto run) {
    const auto dict = manager.dict<std::string, int>({{"gone", 1}});
    run(change_dict, dict);
    CHECK(dict.items() == std::vector<std::pair<std::string, int>>{{"foo", 123}});
  });
}

TEST_CASE("TestSyncManagerTypes.test_namespace: another process changes it", "[fork]") {
  on_each_start_method([](Manager& manager, auto run) {
    const auto space = manager.Namespace();
    space.set("x", 1);
    run(change_namespace, space);
    CHECK(space.get<int>("x") == 2);
    CHECK(space.get<std::string>("y") == "text");
  });
}

TEST_CASE("_TestContainers.test_list: workers of a pool change a list and a dictionary", "") {
  Manager manager;
  Pool pool{2};
  const auto list = manager.list<int>();
  const auto dict = manager.dict<int, int>();
  pool.starmap(
      [](const ListProxy<int>& l, const DictProxy<int, int>& d, int i) {
        l.append(i);
        d.set(i, i * i);
      },
      [&] {
        std::vector<std::tuple<ListProxy<int>, DictProxy<int, int>, int>> items;
        for (int i = 0; i < 20; ++i) items.emplace_back(list, dict, i);
        return items;
      }());
  list.sort();
  CHECK(list.size() == 20);
  CHECK(list.get(19) == 19);
  CHECK(dict.get(7) == 49);
}

TEST_CASE("TestSyncManagerTypes.test_lock: another process takes it", "[fork]") {
  on_each_start_method([](Manager& manager, auto run) {
    const auto lock = manager.Lock();
    const auto list = manager.list<int>({1, 2, 3});
    run(
        +[](const procpool::Lock& mutex, const ListProxy<int>& changed) {
          procpool::Lock mine = mutex;
          const std::lock_guard guard(mine);
          change_list(changed);
        },
        lock, list);
    CHECK(list.size() == 4);
  });
}

TEST_CASE("TestManagerExceptions.test_dispatch: errors of the object are thrown in the client",
          "[fork]") {
  Manager manager;
  CHECK_THROWS_AS(manager.list<int>().pop(), std::out_of_range);
  CHECK_THROWS_AS(manager.Namespace().get<int>("x"), std::out_of_range);
}
