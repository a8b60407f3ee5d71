// SPDX-License-Identifier: MIT
// Handles of shared objects go wherever values go: arguments, captures, items, results, struct
// members and initializers, to workers that were there before the object and to their replacements.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <procpool/procpool.hpp>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "support/shared_number.hpp"

namespace {

using namespace std::chrono_literals;
using support::is_free;
using support::shared_number;

long add(const shared_number& sum, long amount) {
  return sum.number() += amount;
}

struct job {
  std::string name;
  std::vector<shared_number> sums;
  std::optional<shared_number> other;
};
long add_all(const job& work) {
  for (const shared_number& each : work.sums) ++each.number();
  if (work.other) work.other->number() += 100;
  return static_cast<long>(work.name.size());
}

struct adder {
  shared_number sum;
  long operator()(long amount) const { return sum.number() += amount; }
};

shared_number make_number(long value) {
  return shared_number(value);
}

std::optional<shared_number> kept;
void keep(shared_number number) {
  kept.emplace(std::move(number));
}
long add_to_kept(long amount) {
  return kept->number() += amount;
}

/// Waits until nobody holds the object of a record any more.
bool becomes_free(const procpool::detail::object_record& record) {
  for (int i = 0; i < 500 && !is_free(record); ++i) {
    procpool::detail::collect_dead_processes();
    std::this_thread::sleep_for(10ms);
  }
  return is_free(record);
}

}  // namespace

TEST_CASE("a task gets a handle of an object that is younger than its worker") {
  procpool::Pool pool{2};
  CHECK(pool.apply([] { return 1; }) == 1);
  const shared_number sum(40);
  CHECK(pool.apply(add, sum, 2L) == 42);
  CHECK(sum.number() == 42);
}

TEST_CASE("handles are items, members, elements and captures") {
  procpool::Pool pool{2};
  const shared_number sum;
  const shared_number other;
  std::vector<std::tuple<shared_number, long>> items;
  for (long i = 1; i <= 100; ++i) items.emplace_back(sum, i);
  CHECK(pool.starmap(add, items).size() == 100);
  CHECK(sum.number() == 5050);
  CHECK(pool.apply(add_all, job{"abc", {sum, sum, other}, other}) == 3);
  CHECK(sum.number() == 5052);
  CHECK(other.number() == 101);
  CHECK(pool.map(adder{sum}, std::vector<long>{1, 2, 3}).size() == 3);
  CHECK(sum.number() == 5058);
  long last = 0;
  for (const long each : pool.imap(adder{sum}, std::vector<long>{1, 1})) last = each;
  CHECK(last >= 5059);
}

TEST_CASE("the sender may give its handle up before the task runs") {
  procpool::Pool pool{1};
  std::vector<procpool::AsyncResult<long>> results;
  results.reserve(50);
  for (long i = 0; i < 50; ++i) results.push_back(pool.apply_async(add, shared_number(i), 1L));
  for (long i = 0; i < 50; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i + 1);
}

TEST_CASE("a task's result is a handle of an object that it has made") {
  procpool::Pool pool{2};
  const shared_number made = pool.apply(make_number, 7L);
  CHECK(made.number() == 7);
  CHECK(pool.apply(add, made, 1L) == 8);
  const std::vector<shared_number> several = pool.map(make_number, std::vector<long>{1, 2, 3});
  CHECK(several.at(2).number() == 3);
}

TEST_CASE("an initializer gets a handle, and workers keep it") {
  const shared_number sum;
  {
    procpool::Pool pool{{.processes = 2, .initializer = {keep, sum}}};
    CHECK(pool.map(add_to_kept, std::vector<long>{1, 2, 3, 4}).size() == 4);
  }
  CHECK(sum.number() == 10);
  kept.reset();
}

TEST_CASE("an object is freed when nobody holds it any more") {
  procpool::Pool pool{2};
  auto number = std::make_unique<shared_number>(1);
  const auto heap = number->object()->heap();
  const procpool::detail::object_record& record = number->object()->record();
  CHECK(pool.apply(add, *number, 1L) == 2);
  CHECK_FALSE(is_free(record));
  number.reset();
  CHECK(becomes_free(record));
}

TEST_CASE("a killed worker gives up what it holds", "[processes]") {
  procpool::Pool pool{{.processes = 1, .initializer = {keep, shared_number(5)}}};
  auto number = std::make_unique<shared_number>(1);
  const auto heap = number->object()->heap();
  const procpool::detail::object_record& record = number->object()->record();
  auto stuck = pool.apply_async(
      [](const shared_number& held) {
        ++held.number();
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      *number);
  CHECK_THROWS_AS(stuck.get(), procpool::WorkerDied);
  CHECK(number->number() == 2);
  CHECK(pool.apply(add, *number, 1L) == 3);  // by its replacement
  CHECK(pool.apply(add_to_kept, 1L) == 6);   // the initializer's object is still there
  number.reset();
  CHECK(becomes_free(record));
}

TEST_CASE("a task that is tried again gets its handles again", "[processes]") {
  procpool::Pool pool{1};
  const shared_number attempts;
  auto result = pool.apply_async(
      {.retries = 3},
      [](const shared_number& count) {
        if (++count.number() < 3) ::kill(::getpid(), SIGKILL);
        return count.number().load();
      },
      attempts);
  CHECK(result.get() == 3);
}

TEST_CASE("a process gets handles with fork and with spawn", "[processes]") {
  for (const auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    const shared_number sum(1);
    procpool::Process process{
        {.start_method = method},
        [](const shared_number& number, long amount) { number.number() += amount; },
        sum,
        4L};
    process.start();
    process.join();
    CHECK(process.exitcode() == 0);
    CHECK(sum.number() == 5);
  }
}

TEST_CASE("a nested pool's workers use the objects of its parents", "[processes]") {
  procpool::Pool pool{1};
  const shared_number sum;
  const long result = pool.apply(
      [](const shared_number& number) {
        procpool::Pool inner{2};
        const shared_number own(10);
        inner.map(adder{number}, std::vector<long>{1, 2, 3});
        return inner.apply(add, own, number.number().load());
      },
      sum);
  CHECK(result == 16);
  CHECK(sum.number() == 6);
}
