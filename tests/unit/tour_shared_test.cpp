// SPDX-License-Identifier: MIT
// The tour of the API, second part: objects that processes share, as user code has them.
#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <procpool/pickle.hpp>
#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

namespace {

void produce(procpool::Queue<std::string> out, int n) {
  for (int i = 0; i < n; ++i) out.put(fmt::format("line {}", i));
}

class Account {
 public:
  explicit Account(long balance) : balance_(balance) {}
  long withdraw(long amount) { return balance_ -= amount; }

 private:
  long balance_;
};

procpool::shared_vector<double> make(std::size_t n) {
  return procpool::shared_vector<double>(n, 0.5);
}

}  // namespace

TEST_CASE("tour of shared objects: queues", "[tour]") {
  procpool::Pool pool{2};
  const std::vector<std::string> lines{"a", "b", "c"};
  procpool::Queue<std::string> queue;
  const procpool::Queue<std::string> bounded{{.maxsize = 100}};
  procpool::Process producer(produce, queue, 10);
  producer.start();
  producer.join();
  pool.apply_async(produce, queue, 10).get();
  queue.put("x");
  queue.put("x", 1s);
  queue.put_nowait("x");
  std::string s = queue.get();
  s = queue.get(1s);
  s = queue.get_nowait();
  CHECK(s == "line 2");
  if (auto item = queue.try_get(1s)) CHECK(*item == "line 3");
  CHECK(queue.try_put("y"));
  queue.put_many(lines);
  const std::vector<std::string> some = queue.get_many(64);
  CHECK(some.size() == 23);
  queue.put("last");
  queue.close();
  int left = 0;
  for (const std::string& line : queue) left += line == "last" ? 1 : 100;
  CHECK(left == 1);
  CHECK_THROWS_AS(bounded.get_nowait(), procpool::Empty);
  procpool::JoinableQueue<int> jobs;
  jobs.put(1);
  CHECK(jobs.get() == 1);
  jobs.task_done();
  jobs.join();
  procpool::SimpleQueue<int> simple;
  simple.put(3);
  CHECK(simple.get() == 3);
  CHECK(bounded.qsize() == 0);
  CHECK(bounded.empty());
  CHECK_FALSE(bounded.full());
}

TEST_CASE("tour of shared objects: locks and their kin", "[tour]") {
  procpool::Lock lock;
  { std::scoped_lock guard(lock); }
  procpool::RLock recursive;
  { std::scoped_lock guard(recursive); }
  procpool::Semaphore two{2};
  CHECK(two.acquire(1s));
  two.release();
  procpool::BoundedSemaphore bounded{2};
  CHECK(bounded.acquire(1s));
  bounded.release();
  lock.acquire();
  CHECK_FALSE(lock.acquire(10ms));
  CHECK_FALSE(lock.try_lock());
  lock.release();
  CHECK_FALSE(lock.locked());
  CHECK_FALSE(lock.owner_died());
  procpool::Event event;
  event.set();
  CHECK(event.is_set());
  CHECK(event.wait(1s));
  event.clear();
  procpool::Condition condition;
  bool is_ready = true;
  {
    std::unique_lock held(condition);
    CHECK(condition.wait(
        held, [&] { return is_ready; }, 1s));
    condition.notify(2);
    condition.notify_all();
  }
  procpool::Barrier barrier{1};
  const int place = barrier.wait();
  CHECK(place == 0);
}

TEST_CASE("tour of shared objects: values and arrays", "[tour]") {
  procpool::Value<long> counter{0};
  {
    std::scoped_lock guard(counter.get_lock());
    counter.value() += 1;
  }
  counter.update([](long& v) { ++v; });
  counter.atomic().fetch_add(1);
  CHECK(counter.value() == 3);
  procpool::Array<double> array(1000);
  array[3] = 1.5;
  const std::span<double> all = array;
  CHECK(all[3] == 1.5);
  procpool::RawValue<int> raw{5};
  CHECK(raw.value() == 5);
  procpool::RawArray<int> numbers(3);
  CHECK(numbers.size() == 3);
}

TEST_CASE("tour of shared objects: pipes, connections, listeners", "[tour]") {
  auto [ours, theirs] = procpool::Pipe();
  theirs.send(std::string("hello"));
  const auto text = ours.recv<std::string>();
  CHECK(text == "hello");
  CHECK_FALSE(ours.poll(10ms));
  const std::vector<std::byte> bytes(3);
  theirs.send_bytes(bytes);
  CHECK(ours.recv_bytes() == bytes);
  CHECK(ours.fileno() >= 0);
  procpool::Process process([](procpool::Connection to) { to.send(7L); }, theirs);
  process.start();
  CHECK(ours.recv<long>() == 7);
  auto ready = procpool::wait({ours, process.sentinel()}, 5s);
  CHECK(ready.size() == 1);
  process.join();
  theirs.close();
  CHECK_THROWS_AS(ours.recv<long>(), procpool::EOFError);
  ours.close();

  procpool::Listener listener;
  procpool::Process server(
      [](procpool::Listener serving) {
        procpool::Connection peer = serving.accept();
        peer.send_pickle(std::vector<long>{1, 2, 3});
      },
      listener);
  server.start();
  procpool::Connection client = procpool::Client({.address = listener.address()});
  auto list = client.recv_pickle<std::vector<long>>();
  CHECK(list == std::vector<long>{1, 2, 3});
  server.join();
}

TEST_CASE("tour of shared objects: large arrays", "[tour]") {
  procpool::Pool pool{2};
  procpool::SharedArray<double> data(1 << 16);
  for (double& x : data) x = 1;
  pool.map(
      [](procpool::SharedArray<double> part) {
        for (double& x : part) x *= 2;
      },
      data.slices(64));
  CHECK(data[12345] == 2);
  const auto result = pool.apply(make, std::size_t{1000});
  CHECK(result.size() == 1000);
  CHECK(result[999] == 0.5);
}

TEST_CASE("tour of shared objects: a manager", "[tour]") {
  procpool::Manager manager;
  auto scores = manager.dict<std::string, long>();
  scores.set("a", 1);
  CHECK(scores.get("a") == 1);
  CHECK(scores.items().size() == 1);
  auto names = manager.list<std::string>();
  names.append("x");
  CHECK(names.size() == 1);
  auto account = manager.make<Account>(100);
  CHECK(account.call(&Account::withdraw, 30) == 70);
}
