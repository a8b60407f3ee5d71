// SPDX-License-Identifier: MIT
// Queue, JoinableQueue, SimpleQueue: order, sizes, bounds, closing, waiting, what items can be,
// what happens to the memory and to what a dead process has begun.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/codec/associative.hpp>
#include <procpool/codec/list.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/queue/segments.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"
#include "support/shared_number.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using procpool::Empty;
using procpool::Full;
using procpool::JoinableQueue;
using procpool::Queue;
using procpool::QueueClosed;
using procpool::SimpleQueue;
using namespace std::chrono_literals;

/// Bytes of memory that the shared heap of this program takes.
std::int64_t heap_bytes() {
  const auto heap = procpool::detail::use_heap();
  struct stat about {};
  ::fstat(heap->file().get(), &about);
  return about.st_blocks * 512;
}

int reap(pid_t child) {
  const int code = support::wait_child(child);
  procpool::detail::process_was_reaped(child);
  return code;
}

struct point {
  long x = 0;
  long y = 0;
  bool operator==(const point&) const = default;
};
struct person {
  std::string name;
  std::vector<std::string> children;
  std::map<std::string, long> ages;
  std::optional<long> age;
  point home;
  bool operator==(const person&) const = default;
};
enum class color : std::uint8_t { red, green };

/// Can be moved only.
struct unique {
  std::unique_ptr<long> value;
};
/// Throws while it is encoded or decoded, if it is bad.
struct fragile {
  int how = 0;
};

}  // namespace

template <>
struct procpool::codec<unique> {
  static void encode(encoder& e, const unique& value) { e.put(*value.value); }
  static unique decode(decoder& d) { return {std::make_unique<long>(d.get<long>())}; }
};
template <>
struct procpool::codec<fragile> {
  static void encode(encoder& e, const fragile& value) {
    if (value.how == 1) throw std::range_error("not to be encoded");
    e.put(value.how);
  }
  static fragile decode(decoder& d) {
    const fragile value{d.get<int>()};
    if (value.how == 2) d.fail("not to be decoded");
    return value;
  }
};

TEST_CASE("a queue gives values back in order") {
  const Queue<long> queue;
  CHECK(queue.empty());
  CHECK(queue.qsize() == 0);
  for (long i = 0; i < 1000; ++i) queue.put(i);
  CHECK(queue.qsize() == 1000);
  CHECK_FALSE(queue.full());
  for (long i = 0; i < 1000; ++i) CHECK(queue.get() == i);
  CHECK(queue.empty());
}

TEST_CASE("a queue takes values of all kinds") {
  const auto passes = [](const auto& value) {
    const Queue<std::remove_cvref_t<decltype(value)>> queue;
    queue.put(value);
    queue.put_many(std::vector(3, value));
    CHECK(queue.get() == value);
    CHECK(queue.get_many(2) == std::vector(2, value));
    CHECK(queue.get_nowait() == value);
  };
  passes(7);
  passes('x');
  passes(1.5);
  passes(color::green);
  passes(std::string("text"));
  passes(std::string());
  passes(std::u16string(u"text"));
  passes(std::vector<int>{1, 2, 3});
  passes(std::vector<std::string>{"a", "", "ccc"});
  passes(std::array<std::uint8_t, 3>{1, 2, 3});
  passes(point{1, 2});
  passes(std::optional<long>(3));
  passes(std::tuple(1, std::string("two"), 3.0));
  passes(std::list<int>{4, 5});
  passes(person{"Ann", {"Bob", "Cy"}, {{"Bob", 3}, {"Cy", 5}}, 33, point{1, 2}});
  passes(procpool::detail::int128{5});
  passes(std::vector<procpool::detail::int128>{5, 6});
}

TEST_CASE("a queue takes values of all kinds: bool, and those that can only be moved") {
  const Queue<bool> flags;
  flags.put(true);
  flags.put(false);
  CHECK(flags.get());
  CHECK_FALSE(flags.get());
  const Queue<unique> queue;
  queue.put(unique{std::make_unique<long>(5)});
  CHECK(*queue.get().value == 5);
  queue.put(unique{std::make_unique<long>(6)});
  CHECK(*queue.get_many(5).at(0).value == 6);
  queue.put(unique{std::make_unique<long>(7)});
  CHECK(*queue.try_get().value().value == 7);
}

TEST_CASE("a queue takes values of any size, from several segments") {
  const Queue<std::string> queue;
  const std::vector<std::size_t> sizes{0,     1,       8,         100,     70'000,     3,
                                       1'000, 300'000, 5'000'000, 100'000, 20'000'000, 10};
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t size : sizes) queue.put(std::string(size, 'a'));
    for (const std::size_t size : sizes) {
      const std::string got = queue.get();
      REQUIRE(got.size() == size);
      REQUIRE(got.find_first_not_of('a') == std::string::npos);
    }
  }
}

TEST_CASE("a value of 100 MB passes through a queue to another process") {
  const Queue<std::vector<std::uint64_t>> queue;
  std::vector<std::uint64_t> large(100'000'000 / 8);
  std::iota(large.begin(), large.end(), 0U);
  const pid_t child = support::start_child([&] {
    for (int i = 0; i < 2; ++i) {
      const auto got = queue.get();
      CHILD_REQUIRE(got == large);
    }
    return 0;
  });
  queue.put(large);
  queue.put(large);
  CHECK(reap(child) == 0);
  CHECK(queue.empty());
}

TEST_CASE("values that wait take as much memory as they need, and it is given back") {
  const Queue<long> queue;
  queue.put(1);
  const std::int64_t before = heap_bytes();
  constexpr long count = 3'000'000;
  for (long i = 0; i < count; ++i) queue.put(i);
  CHECK(heap_bytes() - before > count * 15);
  CHECK(heap_bytes() - before < count * 16 + (16 << 20));
  CHECK(queue.get() == 1);
  for (long i = 0; i < count; ++i) {
    const long got = queue.get();
    if (got != i) FAIL("value " << got << " at " << i);
  }
  CHECK(heap_bytes() - before <= 9 << 20);
  CHECK_THROWS_AS(queue.get(150ms), Empty);  // nothing comes: the rest is given back, too
  CHECK(heap_bytes() - before <= 0);
  queue.put(5);
  CHECK(queue.get() == 5);
  CHECK(heap_bytes() - before <= 256 << 10);
}

TEST_CASE("a queue that was used for one large value returns to a small segment") {
  const Queue<std::string> queue;
  const std::int64_t before = heap_bytes();
  queue.put(std::string(30'000'000, 'x'));
  CHECK(queue.get().size() == 30'000'000);
  CHECK_THROWS_AS(queue.get(150ms), Empty);
  CHECK(heap_bytes() - before <= 256 << 10);
  for (int i = 0; i < 100'000; ++i) {
    queue.put("short");
    REQUIRE(queue.get() == "short");
  }
  CHECK(heap_bytes() - before <= 256 << 10);
}

TEST_CASE("many segments come and go, and a reader that is far behind sees all values") {
  const Queue<std::vector<std::uint32_t>> queue;
  std::uint32_t put = 0;
  std::uint32_t got = 0;
  const auto length = [](std::uint32_t i) { return i * 7919 % 20'000; };
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 400; ++i, ++put) queue.put(std::vector<std::uint32_t>(length(put), put));
    const std::uint32_t until = round % 4 == 3 ? put : put - 150;
    for (; got < until; ++got) {
      const auto value = queue.get();
      REQUIRE(value.size() == length(got));
      if (!value.empty()) REQUIRE((value.front() == got && value.back() == got));
    }
  }
}

TEST_CASE("a bounded queue has no room for more") {
  const Queue<int> queue{{.maxsize = 3}};
  for (int i = 0; i < 3; ++i) queue.put(i);
  CHECK(queue.full());
  CHECK_FALSE(queue.try_put(3));
  CHECK_FALSE(queue.try_put(3, 20ms));
  CHECK_FALSE(queue.try_put(3, -1s));
  CHECK_THROWS_AS(queue.put_nowait(3), Full);
  CHECK_THROWS_AS(queue.put(3, 20ms), Full);
  CHECK_THROWS_WITH(queue.put(3, 0s), ContainsSubstring("full"));
  CHECK(queue.get() == 0);
  CHECK_FALSE(queue.full());
  CHECK(queue.try_put(3));
  CHECK(queue.get_many(10) == std::vector{1, 2, 3});
}

TEST_CASE("a bound of bytes: one larger value goes into an empty queue") {
  const Queue<std::string> queue{{.max_bytes = 1000}};
  CHECK(queue.try_put(std::string(5000, 'x')));
  CHECK_FALSE(queue.try_put("y"));
  CHECK(queue.full());
  CHECK(queue.get().size() == 5000);
  int count = 0;
  while (queue.try_put(std::string(80, 'z'))) ++count;
  CHECK(count == 10);  // of 96 bytes
  CHECK(queue.qsize() == 10);
}

TEST_CASE("sizes of zero or less mean no limit, as in Python") {
  const Queue<int> queue{{.maxsize = -1}};
  for (int i = 0; i < 1000; ++i) queue.put(i);
  CHECK_FALSE(queue.full());
}

TEST_CASE("an empty queue has nothing, and says so in time") {
  const Queue<int> queue;
  CHECK_FALSE(queue.try_get().has_value());
  CHECK_FALSE(queue.try_get(20ms).has_value());
  CHECK_THROWS_AS(queue.get_nowait(), Empty);
  CHECK_THROWS_AS(queue.get(-1s), Empty);
  CHECK_THROWS_AS(queue.get_many(3, 20ms), Empty);
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THROWS_WITH(queue.get(100ms), ContainsSubstring("empty"));
  CHECK(std::chrono::steady_clock::now() - begin >= 100ms);
}

TEST_CASE("a closed queue takes nothing more, and ends when it is empty") {
  const Queue<int> queue;
  queue.put_many(std::vector{1, 2, 3});
  queue.close();
  queue.close();
  CHECK(queue.closed());
  CHECK_THROWS_WITH(queue.put(4), ContainsSubstring("closed"));
  CHECK_THROWS_AS(queue.try_put(4), QueueClosed);
  CHECK_THROWS_AS(queue.put_many(std::vector{4, 5}), QueueClosed);
  int sum = 0;
  for (const int& each : queue) sum += each;
  CHECK(sum == 6);
  CHECK_THROWS_WITH(queue.get(), ContainsSubstring("closed"));
  CHECK_THROWS_AS(queue.get_nowait(), QueueClosed);
  CHECK_THROWS_AS(queue.get_many(3), QueueClosed);
  CHECK_FALSE(queue.try_get().has_value());
  CHECK_FALSE(queue.try_get(1s).has_value());
  for (const int& each : queue) FAIL("there is " << each);
}

TEST_CASE("closing wakes those who wait") {
  const Queue<int> empty;
  const Queue<int> full{{.maxsize = 1}};
  full.put(1);
  const pid_t consumer = support::start_child([&] {
    try {
      empty.get();
    } catch (const QueueClosed&) {
      return 7;
    }
    return 0;
  });
  const pid_t producer = support::start_child([&] {
    try {
      full.put(2);
    } catch (const QueueClosed&) {
      return 8;
    }
    return 0;
  });
  std::this_thread::sleep_for(50ms);
  empty.close();
  full.close();
  CHECK(reap(consumer) == 7);
  CHECK(reap(producer) == 8);
  CHECK(full.get() == 1);
}

TEST_CASE("all items of many producers reach many consumers, in each producer's order") {
  constexpr int producers = 4;
  constexpr int consumers = 4;
  constexpr long each = 5'000;
  for (const std::int64_t maxsize : {0, 1, 7}) {
    const Queue<std::pair<int, long>> queue{{.maxsize = maxsize}};
    const Queue<long> counts;
    std::vector<pid_t> children;
    for (int producer = 0; producer < producers; ++producer) {
      children.push_back(support::start_child([&queue, producer] {
        for (long i = 0; i < each; ++i) queue.put({producer, i});
        return 0;
      }));
    }
    std::vector<pid_t> readers;
    for (int consumer = 0; consumer < consumers; ++consumer) {
      readers.push_back(support::start_child([&] {
        std::array<long, producers> last;
        last.fill(-1);
        long count = 0;
        for (const auto& [producer, number] : queue) {
          long& before = last.at(static_cast<std::size_t>(producer));
          CHILD_REQUIRE(number > before);
          before = number;
          ++count;
        }
        counts.put(count);
        return 0;
      }));
    }
    for (const pid_t child : children) CHECK(reap(child) == 0);
    queue.close();
    for (const pid_t child : readers) CHECK(reap(child) == 0);
    long total = 0;
    for (int i = 0; i < consumers; ++i) total += counts.get();
    CHECK(total == producers * each);
  }
}

TEST_CASE("threads use a queue as processes do") {
  const Queue<std::string> queue{{.maxsize = 10}};
  std::atomic<long> sum = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([queue] {
      for (int n = 1; n <= 1000; ++n) queue.put(std::to_string(n));
    });
  }
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([queue, &sum] {
      for (const std::string& text : queue) sum += std::stol(text);
    });
  }
  for (auto& thread : threads) thread.join();
  queue.close();
  for (auto& thread : readers) thread.join();
  CHECK(sum == 3 * 500'500);
}

TEST_CASE("put_many puts all, whatever the range is, and get_many takes several at a time") {
  const Queue<int> queue{{.maxsize = 10}};
  const pid_t child = support::start_child([&] {
    queue.put_many(std::views::iota(0, 100));
    queue.put_many(std::list{100, 101});
    std::vector<int> more(1000);
    std::iota(more.begin(), more.end(), 102);
    queue.put_many(more);
    queue.close();
    return 0;
  });
  std::vector<int> all;
  try {
    while (true) {
      const auto some = queue.get_many(4);
      REQUIRE((!some.empty() && some.size() <= 4));
      all.insert(all.end(), some.begin(), some.end());
    }
  } catch (const QueueClosed&) {
  }
  CHECK(reap(child) == 0);
  std::vector<int> wanted(1102);
  std::iota(wanted.begin(), wanted.end(), 0);
  CHECK(all == wanted);
  const Queue<int> nothing;
  nothing.put_many(std::vector<int>{});
  CHECK(nothing.empty());
}

TEST_CASE("a value that cannot be encoded leaves the queue as it was") {
  const Queue<fragile> queue{{.maxsize = 2}};
  queue.put({0});
  CHECK_THROWS_AS(queue.put({1}), std::range_error);
  CHECK(queue.qsize() == 1);
  queue.put({3});
  CHECK(queue.get().how == 0);
  CHECK(queue.get().how == 3);
}

TEST_CASE("an item that cannot be decoded is removed, others are not") {
  const JoinableQueue<fragile> queue;
  queue.put({0});
  queue.put({2});
  queue.put({3});
  CHECK(queue.get_many(10).size() == 1);
  CHECK_THROWS_WITH(queue.get_many(10), ContainsSubstring("not to be decoded"));
  queue.put({2});
  CHECK(queue.get().how == 3);
  CHECK_THROWS_AS(queue.get(), procpool::DecodeError);
  CHECK(queue.empty());
  queue.task_done();
  queue.task_done();
  CHECK(queue.join(1s));
  CHECK_THROWS_AS(queue.task_done(), std::logic_error);
}

TEST_CASE("queues travel through queues, and an object that waits in a queue stays alive") {
  const SimpleQueue<Queue<std::string>> queues;
  {
    const Queue<std::string> inner;
    inner.put("hello");
    queues.put(inner);
  }
  const pid_t child = support::start_child([&] {
    const auto inner = queues.get();
    CHILD_REQUIRE(inner.get() == "hello");
    queues.put(inner);
    inner.put("answer");
    return 0;
  });
  CHECK(reap(child) == 0);
  CHECK(queues.get().get() == "answer");
}

TEST_CASE("handles that nobody took end with their queue") {
  const support::shared_number number(5);
  procpool::detail::object_record& record = number.object()->record();
  {
    const Queue<std::vector<support::shared_number>> queue;
    queue.put({number, number});
    queue.put({number});
    CHECK(record.in_transit == 3);
    CHECK(queue.get().size() == 2);
    CHECK(record.in_transit == 1);
    const auto same = queue;
  }
  CHECK(record.in_transit == 0);
  CHECK(number.object().use_count() == 1);
}

TEST_CASE("queues are arguments of processes and tasks") {
  const Queue<long> numbers;
  const JoinableQueue<std::string> texts;
  const SimpleQueue<long> results;
  procpool::Process process(
      [](Queue<long> in, JoinableQueue<std::string> out) {
        for (const long& each : in) out.put(std::to_string(each));
      },
      numbers, texts);
  process.start();
  procpool::Pool pool{2};
  const auto done = pool.apply_async(
      [](JoinableQueue<std::string> in, SimpleQueue<long> out) {
        for (int i = 0; i < 10; ++i) {
          out.put(std::stol(in.get()));
          in.task_done();
        }
      },
      texts, results);
  numbers.put_many(std::views::iota(0L, 10L));
  numbers.close();
  process.join();
  done.wait();
  texts.join();
  long sum = 0;
  for (int i = 0; i < 10; ++i) sum += results.get();
  CHECK(sum == 45);
}

TEST_CASE("join waits until all that was taken is finished") {
  const JoinableQueue<int> queue;
  queue.join();
  queue.put_many(std::vector{1, 2, 3});
  CHECK_FALSE(queue.join(20ms));
  const pid_t child = support::start_child([&] {
    for (int i = 0; i < 3; ++i) {
      queue.get();
      ::usleep(20'000);
      queue.task_done();
    }
    return 0;
  });
  queue.join();
  CHECK(queue.empty());
  CHECK_THROWS_WITH(queue.task_done(), ContainsSubstring("task_done"));
  CHECK(reap(child) == 0);
}

TEST_CASE("what a dead process has not finished counts as finished") {
  const JoinableQueue<int> queue;
  queue.put_many(std::vector{1, 2, 3, 4});
  const pid_t child = support::start_child([&] {
    queue.get_many(2);
    queue.task_done();
    ::raise(SIGKILL);
    return 0;
  });
  CHECK(reap(child) == -SIGKILL);
  CHECK(queue.qsize() == 2);
  queue.get();
  queue.get();
  CHECK_FALSE(queue.join(20ms));
  queue.task_done();
  queue.task_done();
  CHECK(queue.join(10s));
}

TEST_CASE("what a dead process has not finished goes back") {
  using procpool::detail::object_record;
  const auto heap = procpool::detail::use_heap();
  const auto used = [&] {
    procpool::detail::collect_dead_processes();
    int count = 0;
    for (std::uint32_t number = 0; number < heap->record_end(); ++number) {
      if (!support::is_free(heap->record(number))) ++count;
    }
    return count;
  };
  const int before = used();
  {
    const JoinableQueue<std::string> queue{{.maxsize = 4, .redeliver = true}};
    queue.put_many(std::vector<std::string>{"a", "b", "c", "d"});
    const pid_t child = support::start_child([&] {
      queue.get_many(2);
      queue.task_done();
      queue.get();
      ::raise(SIGKILL);
      return 0;
    });
    CHECK(reap(child) == -SIGKILL);
    CHECK(queue.get() == "d");
    CHECK(queue.get() == "b");  // looks for what has not come back
    CHECK(queue.get_nowait() == "c");
    CHECK_FALSE(queue.join(20ms));
    for (int i = 0; i < 3; ++i) queue.task_done();
    CHECK(queue.join(10s));
    CHECK_THROWS_AS(queue.task_done(), std::logic_error);
    // Also what a process has taken that dies after all values were finished.
    queue.put("e");
    CHECK(support::run_child([&] {
            queue.get();
            queue.task_done();
            return 0;
          }) == 0);
    CHECK(queue.join(10s));
    queue.put("f");
    queue.close();
    CHECK(support::run_child([&] { return queue.get() == "f" ? 0 : 1; }) == 0);
    std::vector<std::string> rest;
    for (const std::string& each : queue) rest.push_back(each);
    CHECK(rest == std::vector<std::string>{"f"});
  }
  CHECK(used() == before);
}

TEST_CASE("one process can finish what another one has taken") {
  const JoinableQueue<int> queue;
  queue.put(1);
  queue.get();
  CHECK(support::run_child([&] {
          queue.task_done();
          return 0;
        }) == 0);
  CHECK(queue.join(0s));
}

TEST_CASE("a SimpleQueue") {
  const SimpleQueue<std::string> queue;
  CHECK(queue.empty());
  queue.put("x");
  CHECK_FALSE(queue.empty());
  CHECK(queue.get() == "x");
  queue.put("last");
  queue.close();
  queue.close();
  CHECK_THROWS_AS(queue.empty(), QueueClosed);
  CHECK_THROWS_AS(queue.put("more"), QueueClosed);
  CHECK(queue.get() == "last");
  CHECK_THROWS_AS(queue.get(), QueueClosed);
}

TEST_CASE("a handle of another queue's type is refused") {
  using procpool::detail::handle_delivery;
  const Queue<int> ints;
  procpool::detail::byte_buffer bytes;
  procpool::detail::handle_scope scope(handle_delivery::repeated);
  procpool::encoder(bytes).put(ints);
  const auto kept = scope.take();
  const auto read = [&]<class Handle>(std::type_identity<Handle>) {
    procpool::decoder d(bytes.view());
    return d.get<Handle>();
  };
  read(std::type_identity<Queue<int>>()).put(3);
  CHECK(ints.get() == 3);
  CHECK_THROWS_AS(read(std::type_identity<Queue<long>>()), procpool::DecodeError);
  CHECK_THROWS_AS(read(std::type_identity<SimpleQueue<int>>()), procpool::DecodeError);
  CHECK_THROWS_AS(read(std::type_identity<procpool::SharedArray<int>>()), procpool::DecodeError);
}

TEST_CASE("an item that is too large for the machine is an error, and nothing was put") {
  const Queue<std::string> queue;
  queue.put("before");
  // A string that claims to be large cannot be made: the lower layer is asked.
  procpool::detail::shared_queue bytes({}, 1);
  {
    procpool::detail::put_turn turn(bytes, std::nullopt);
    CHECK_THROWS_AS(turn.add(std::uint64_t{1} << 39U), procpool::ProcessError);
    CHECK_THROWS_AS(turn.add(std::uint64_t{1} << 37U), procpool::ProcessError);
  }
  CHECK(bytes.is_empty());
  {
    procpool::detail::put_turn turn(bytes, std::nullopt);
    CHECK(turn.add(8) != nullptr);
    turn.publish();
  }
  CHECK(bytes.size() == 1);
}

TEST_CASE("the lock of a producer or consumer that was killed with it is taken over") {
  procpool::detail::shared_queue queue({}, 1);
  const auto put_one = [&] {
    procpool::detail::put_turn turn(queue, std::nullopt);
    REQUIRE(turn.add(8) != nullptr);
    turn.publish();
  };
  put_one();
  CHECK(support::run_child([&] {
          procpool::detail::put_turn put(queue, std::nullopt);
          procpool::detail::get_turn get(queue, std::nullopt);
          CHILD_REQUIRE(put.add(100'000) != nullptr);
          CHILD_REQUIRE(get.next().has_value());
          get.take();
          ::raise(SIGKILL);
          return 0;
        }) == -SIGKILL);
  CHECK(queue.size() == 1);
  put_one();
  CHECK(queue.size() == 2);
  procpool::detail::get_turn get(queue, std::nullopt);
  CHECK(get.next().value().size() == 8);
  get.take();
  CHECK(get.next().value().size() == 8);
  get.take();
  get.publish();
  CHECK(queue.is_empty());
}
