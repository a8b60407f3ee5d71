// SPDX-License-Identifier: MIT
// CPython's tests of multiprocessing.shared_memory.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/named_memory.hpp"

namespace {

using procpool::ShareableList;
using procpool::SharedMemory;
using support::memory_exists;
using support::memory_name;

/// Removes the name at the end of a test.
struct unlinked {
  std::string name;
  ~unlinked() { unlink(("/dev/shm/" + name).c_str()); }
};

void put(const SharedMemory& memory, const std::string& text) {
  std::memcpy(memory.buf().data(), text.data(), text.size());
}

std::string got(const SharedMemory& memory, std::size_t length) {
  return {reinterpret_cast<const char*>(memory.buf().data()), length};
}

std::error_code error_of(const procpool::shared_memory_options& options) {
  try {
    const SharedMemory memory(options);
  } catch (const procpool::ProcessError& error) {
    return error.code();
  }
  return {};
}

// Tasks.
std::string read_and_answer(SharedMemory memory) {
  const std::string seen = got(memory, 5);
  put(memory, "world");
  return seen + " " + std::to_string(memory.size());
}

void write_by_name(const std::string& name, const std::string& text) {
  put(SharedMemory({.name = name}), text);
}

SharedMemory make_in_worker(const std::string& name) {
  SharedMemory memory{{.name = name, .create = true, .size = 10}};
  put(memory, "made there");
  return memory;
}

long sum_and_reset(ShareableList list) {
  long sum = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    sum += list.get<long>(i);
    list.set(i, 0L);
  }
  return sum;
}

}  // namespace

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_name_with_embedded_null: a name with a NUL is "
    "refused",
    "[conformance][shared_memory]") {
  CHECK_THROWS_AS(SharedMemory({.name = std::string("name\0with null", 14)}),
                  std::invalid_argument);
  CHECK_THROWS_AS(SharedMemory({.name = std::string("\0", 1), .create = true, .size = 1}),
                  std::invalid_argument);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_basics: create, attach, write, close, unlink",
          "[conformance][shared_memory]") {
  support::need_named_memory();
  const std::string name = memory_name("basics");
  SharedMemory memory{{.name = name, .create = true, .size = 512}};
  const unlinked guard{name};
  CHECK(memory.name() == name);
  CHECK(memory.size() >= 512);
  CHECK(memory.buf().size() >= 512);
  memory.buf()[0] = std::byte{42};
  CHECK(memory.buf()[0] == std::byte{42});

  SharedMemory also{{.name = name, .size = 100'000}};  // the size is ignored
  CHECK(also.size() == memory.size());
  CHECK(also.buf()[0] == std::byte{42});
  also.buf()[0] = std::byte{22};
  CHECK(memory.buf()[0] == std::byte{22});

  CHECK_THROWS_AS(SharedMemory({.name = name, .create = true, .size = -1}), std::invalid_argument);
  CHECK_THROWS_AS(SharedMemory({}), std::invalid_argument);
  CHECK(error_of({.name = name, .create = true, .size = 512}) == std::errc::file_exists);
  CHECK(error_of({.name = name + "-missing"}) == std::errc::no_such_file_or_directory);

  also.close();
  memory.unlink();
  memory.close();
  try {
    memory.unlink();
    FAIL("it was unlinked already");
  } catch (const procpool::ProcessError& error) {
    CHECK(error.code() == std::errc::no_such_file_or_directory);
  }
}

TEST_CASE("_TestSharedMemory.test_shared_memory_recreate: a random name that exists is not taken",
          "[conformance][shared_memory]") {
  support::need_named_memory();
  const std::string taken = memory_name("taken");
  const std::string next = memory_name("next");
  const SharedMemory first{{.name = taken, .create = true, .size = 1}};
  const unlinked guard{taken};
  std::vector<std::string> names{next, taken, taken};
  std::string name;
  const auto memory = procpool::detail::create_named_memory(name, 1, [&] {
    auto made = names.back();
    names.pop_back();
    return made;
  });
  const unlinked guard_of_next{next};
  CHECK(name == next);
  CHECK(names.empty());
  CHECK(memory->bytes().size() == 1);

  SharedMemory unnamed{{.create = true, .size = 1}};
  CHECK(unnamed.name().starts_with("psm_"));
  CHECK(unnamed.name().size() == 12);
  unnamed.unlink();
}

TEST_CASE("_TestSharedMemory.test_invalid_shared_memory_creation: the size must be positive",
          "[conformance][shared_memory]") {
  CHECK_THROWS_AS(SharedMemory({.create = true, .size = -1}), std::invalid_argument);
  CHECK_THROWS_AS(SharedMemory({.create = true, .size = 0}), std::invalid_argument);
  CHECK_THROWS_AS(SharedMemory({.create = true}), std::invalid_argument);
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_pickle_unpickle: a task gets the memory, not a copy",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("task"), .create = true, .size = 10}};
  const unlinked guard{memory.name()};
  put(memory, "hello");
  procpool::Pool pool{2};
  CHECK(pool.apply(read_and_answer, memory) == "hello 10");
  CHECK(got(memory, 5) == "world");

  const auto made = pool.apply(make_in_worker, memory_name("made"));
  const unlinked guard_of_made{made.name()};
  CHECK(got(made, 10) == "made there");
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_pickle_unpickle_dead_object: a name that is gone "
    "is the task's failure",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("dead"), .create = true, .size = 10}};
  memory.unlink();
  procpool::Pool pool{1};
  try {
    static_cast<void>(pool.apply(read_and_answer, memory));
    FAIL("the name is gone");
  } catch (const procpool::ProcessError& error) {
    CHECK(error.code() == std::errc::no_such_file_or_directory);
  }
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_across_processes: a child writes by name and by "
    "handle",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("across"), .create = true, .size = 10}};
  const unlinked guard{memory.name()};
  procpool::Process by_name(write_by_name, memory.name(), std::string("howdy"));
  by_name.start();
  by_name.join();
  CHECK(by_name.exitcode() == 0);
  CHECK(got(memory, 5) == "howdy");
  procpool::Process by_handle(read_and_answer, memory);
  by_handle.start();
  by_handle.join();
  CHECK(by_handle.exitcode() == 0);
  CHECK(got(memory, 5) == "world");
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_SharedMemoryManager_basics: what it made is gone "
    "after shutdown",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  std::string left;
  {
    procpool::SharedMemoryManager manager;
    auto memory = manager.SharedMemory(32);
    const auto list = manager.ShareableList({1L, 2L, 3L});
    CHECK(memory.size() == 32);
    CHECK(list.get<int>(2) == 3);
    CHECK(memory_exists(memory.name()));
    CHECK(memory_exists(list.shm().name()));
    memory.unlink();  // by hand: no error later
    manager.shutdown();
    manager.shutdown();
    CHECK_FALSE(memory_exists(memory.name()));
    CHECK_FALSE(memory_exists(list.shm().name()));
    CHECK(list.get<int>(0) == 1);
    CHECK_THROWS_AS(manager.SharedMemory(32), std::logic_error);

    procpool::SharedMemoryManager another;
    left = another.SharedMemory(8).name();
    CHECK(support::run_child([&] {
            another.shutdown();  // does nothing here
            return 0;
          }) == 0);
    CHECK(memory_exists(left));
  }
  CHECK_FALSE(memory_exists(left));
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_untracking: a process that only attached leaves the "
    "memory",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  const SharedMemory memory{{.name = memory_name("untracked"), .create = true, .size = 10}};
  const unlinked guard{memory.name()};
  CHECK(support::run_child([&] {
          SharedMemory attached{{.name = memory.name()}};
          attached.close();
          return 0;
        }) == 0);
  CHECK(memory_exists(memory.name()));
  procpool::Process killed(write_by_name, memory.name(), std::string("x"));
  killed.start();
  killed.kill();
  killed.join();
  CHECK(memory_exists(memory.name()));
}

TEST_CASE("_TestSharedMemory.test_shared_memory_ShareableList_basics: items of all types",
          "[conformance][shared_memory]") {
  support::need_named_memory();
  const std::vector<std::byte> howdy{std::byte{'H'}, std::byte{'Y'}};
  ShareableList list{{"howdy", howdy, -273.154, 100L, nullptr, true, 42L},
                     {.name = memory_name("list")}};
  const unlinked guard{list.shm().name()};
  CHECK(list.size() == 7);
  CHECK(list.format() == "8s8sdqxxxxxx?xxxxxxxx?q");
  CHECK(list.get<std::string>(0) == "howdy");
  CHECK(list.get<double>(2) == -273.154);
  CHECK(list[4] == procpool::shareable_value(nullptr));
  CHECK(list.count(42L) == 1);
  CHECK(list.index(100L) == 3);
  CHECK_THROWS_AS(list[7], std::out_of_range);
  CHECK_THROWS_AS(list.set(7, 1L), std::out_of_range);

  list.set(3, 42L);
  CHECK(list.count(42L) == 2);
  list.set(4, std::string("some"));  // another type
  CHECK(list.get<std::string>(4) == "some");
  CHECK_THROWS_AS(list.set(4, std::string("far too long")), std::invalid_argument);
  CHECK(list.get<std::string>(4) == "some");
  CHECK(list.get<bool>(5));  // its neighbour

  const ShareableList duplicate(std::vector<procpool::shareable_value>(list.begin(), list.end()),
                                {.name = memory_name("duplicate")});
  const unlinked guard_of_duplicate{duplicate.shm().name()};
  CHECK(duplicate.shm().name() != list.shm().name());
  CHECK(std::ranges::equal(duplicate, list));
  list.set(0, std::string("here"));
  CHECK(duplicate.get<std::string>(0) == "howdy");
  ShareableList handle{{.name = list.shm().name()}};
  CHECK(handle.get<std::string>(0) == "here");
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_ShareableList_pickling: a task gets the list, not a "
    "copy",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  std::vector<procpool::shareable_value> values(1000);
  for (long i = 0; i < 1000; ++i) values[static_cast<std::size_t>(i)] = i;
  const ShareableList list(values, {.name = memory_name("items")});
  const unlinked guard{list.shm().name()};
  procpool::Pool pool{2};
  CHECK(pool.apply(sum_and_reset, list) == 499500);
  CHECK(list.count(0L) == 1000);
  procpool::detail::byte_buffer sent;
  procpool::encoder(sent).put(list);
  CHECK(sent.size() < 100);  // whatever the length
}

TEST_CASE(
    "_TestSharedMemory.test_shared_memory_ShareableList_pickling_dead_object: a name that is "
    "gone is the task's failure",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  ShareableList list{{1L, 2L}, {.name = memory_name("dead-list")}};
  list.shm().unlink();
  procpool::Pool pool{1};
  CHECK_THROWS_AS(pool.apply(sum_and_reset, list), procpool::ProcessError);
}

TEST_CASE(
    "TestSharedMemoryNames."
    "test_that_shared_memory_name_with_colons_has_no_resource_tracker_errors: any character "
    "but a slash",
    "[conformance][shared_memory]") {
  support::need_named_memory();
  constexpr std::array<const char*, 11> shapes{"a:b",  ":a",  "a:",       "::",    "a\nb", "\n",
                                               ":\n:", "a b", "\xC3\xBC", "\"a\"", "a%sb"};
  for (const std::string shape : shapes) {
    SharedMemory memory{{.name = memory_name(shape), .create = true, .size = 10}};
    put(memory, "0123456789");
    CHECK(got(SharedMemory({.name = memory.name()}), 10) == "0123456789");
    memory.close();
    memory.unlink();
    CHECK_FALSE(memory_exists(memory.name()));
  }
}
