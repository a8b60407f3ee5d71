// SPDX-License-Identifier: MIT
// The tour of the API: what user code looks like, as a program that compiles and runs.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <map>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include <procpool/pickle.hpp>
#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

namespace {

long square(long x) {
  return x * x;
}
int parse(const std::string& text) {
  return std::stoi(text);
}

struct Scale {
  std::vector<double> w;
  double operator()(std::size_t i) const { return 2 * w[i]; }
};

struct Row {
  std::string name;
  std::optional<double> score;
  std::map<std::string, int> tags;
  friend bool operator==(const Row&, const Row&) = default;
};

Row parse_row(const std::string& line) {
  return {line, 0.5, {{line, 1}}};
}

void print_number(int number) {
  fmt::print("Process ID: {} - Number: {}\n", procpool::current_process().pid(), number);
}

void produce(procpool::Queue<std::string> out, int n) {
  for (int i = 0; i < n; ++i) out.put(fmt::format("line {}", i));
}

std::string opened;
void open_database(const std::string& name) {
  opened = name;
}

TEST_CASE("tour: four processes, one of them with options", "[tour]") {
  std::vector<procpool::Process> processes;
  for (int number : {10, 20, 30, 40}) {
    auto& process = processes.emplace_back(print_number, number);
    process.start();
  }
  for (auto& process : processes) process.join();
  for (auto& process : processes) CHECK(process.exitcode() == 0);

  procpool::Process p{{.name = "Process-1", .daemon = true}, print_number, 10};
  CHECK(p.name() == "Process-1");
  CHECK(p.daemon());
  CHECK_FALSE(p.pid());
  p.start();
  const int fd = p.sentinel();
  CHECK(fd >= 0);
  p.join();
  CHECK(p.join(500ms));
  CHECK_FALSE(p.is_alive());
  CHECK(p.exitcode() == 0);
  p.close();
  CHECK(procpool::current_process().name() == "MainProcess");
  CHECK_FALSE(procpool::parent_process());
  CHECK(procpool::active_children().empty());
  CHECK(procpool::cpu_count() >= 1);
}

TEST_CASE("tour: a pool, its maps and its results", "[tour]") {
  procpool::Pool pool{4};
  std::vector<long> r = pool.map(square, std::vector<long>{1, 2, 3, 4, 5});
  CHECK(r == std::vector<long>{1, 4, 9, 16, 25});
  r = pool.map(square, std::views::iota(0L, 1000L), {.chunksize = 20});
  CHECK(r.at(999) == 998'001);
  auto powers = pool.starmap([](int b, int e) { return std::pow(b, e); },
                             std::vector<std::tuple<int, int>>{{2, 3}, {3, 2}});
  CHECK(powers == std::vector<double>{8, 9});
  long one = pool.apply(square, 7);
  CHECK(one == 49);

  procpool::AsyncResult<long> a = pool.apply_async(square, 7);
  a.wait(1s);
  CHECK(a.get(1s) == 49);
  CHECK(a.get() == 49);
  CHECK(a.ready());
  CHECK(a.successful());
  CHECK_FALSE(a.cancel());

  const std::vector<long> numbers{3, 2, 1};
  procpool::AsyncResult<std::vector<long>> m = pool.map_async(square, numbers);
  CHECK(m.get() == std::vector<long>{9, 4, 1});
  long last = 0;
  for (long v : pool.imap(square, std::views::iota(0L))) {
    last = v;
    if (v > 100) break;
  }
  CHECK(last == 121);
  long total = 0;
  for (long v : pool.imap_unordered(square, numbers, {.chunksize = 16})) total += v;
  CHECK(total == 14);

  std::vector<procpool::AsyncResult<long>> results{a, pool.apply_async(square, 8)};
  for (auto& done : procpool::as_completed(results)) total += done.get();
  CHECK(total == 14 + 49 + 64);
  auto [done, pending] = procpool::wait(results, procpool::FIRST_COMPLETED, 1s);
  CHECK(done.size() == 2);
  CHECK(pending.empty());
  pool.close();
  pool.join();
  pool.terminate();
}

TEST_CASE("tour: callables and data", "[tour]") {
  procpool::Pool pool{2};
  const std::vector<int> numbers{1, 2};
  int factor = 3;
  CHECK(pool.map([factor](int x) { return factor * x; }, numbers) == std::vector<int>{3, 6});
  const std::vector<double> weights{1, 2, 3};
  const std::vector<std::size_t> indices{2, 0};
  CHECK(pool.map(Scale{weights}, indices) == std::vector<double>{6, 2});
  const std::vector<std::string> lines{"a", "b"};
  std::vector<Row> rows = pool.map(parse_row, lines);
  CHECK(rows == std::vector{parse_row("a"), parse_row("b")});
  const std::vector<double> big_vector(100'000, 0.5);
  double sum = pool.apply([](std::span<const double> v) { return std::reduce(v.begin(), v.end()); },
                          big_vector);
  CHECK(sum == 50'000);
}

TEST_CASE("tour: failure", "[tour]") {
  procpool::Pool pool{2};
  CHECK_THROWS_AS(pool.apply(parse, "not a number"), std::invalid_argument);
  try {
    pool.map([](int i) { return i == 3 ? std::raise(SIGKILL) : i; }, {0, 1, 2, 3, 4});
    FAIL("it should have thrown");
  } catch (const procpool::WorkerDied& e) {
    CHECK(e.signal() == SIGKILL);
    CHECK(e.exitcode() == -SIGKILL);
    CHECK(e.pid() > 0);
    CHECK(e.item() == 3U);
  }
}

TEST_CASE("tour: options of a pool", "[tour]") {
  procpool::Pool pool{{.processes = 2,
                       .initializer = {open_database, std::string{"users.db"}},
                       .maxtasksperchild = 100}};
  CHECK(pool.apply([] { return opened; }) == "users.db");
  CHECK(opened.empty());
  procpool::Pool usual;
  CHECK(usual.apply(square, 2) == 4);
}

void print_nothing() {}

TEST_CASE("tour: queues", "[tour]") {
  procpool::Queue<std::string> queue;
  procpool::Process producer(produce, queue, 10);
  producer.start();
  procpool::Pool pool{2};
  const auto produced = pool.apply_async(produce, queue, 10);
  queue.put("x");
  queue.put("x", 1s);
  queue.put_nowait("x");
  std::string s = queue.get();
  s = queue.get(1s);
  s = queue.get_nowait();
  if (auto item = queue.try_get(1s)) s = *item;
  const std::vector<std::string> lines{"a", "b"};
  queue.put_many(lines);
  std::vector<std::string> some = queue.get_many(64);
  CHECK((!some.empty() && some.size() <= 64));
  producer.join();
  produced.get();
  queue.close();
  std::size_t count = 4 + some.size();
  for (const std::string& line : queue) count += line.empty() ? 0U : 1U;
  CHECK(count == 25);

  procpool::JoinableQueue<int> jobs;
  jobs.put(1);
  jobs.get();
  jobs.task_done();
  jobs.join();
  procpool::SimpleQueue<int> simple;
  CHECK(simple.empty());
  procpool::Queue<int> bounded{{.maxsize = 100}};
  CHECK((bounded.qsize() == 0 && bounded.empty() && !bounded.full()));
  CHECK(bounded.try_put(1));
}

TEST_CASE("tour: Pipe, Connection, Listener and Client", "[tour]") {
  procpool::Process process(print_nothing);
  process.start();
  const std::vector<std::byte> bytes(3);
  auto [ours, theirs] = procpool::Pipe();
  theirs.send(std::string("hello"));
  auto text = ours.recv<std::string>();
  CHECK(text == "hello");
  theirs.send_bytes(bytes);
  CHECK(ours.poll(1s));
  CHECK(ours.recv_bytes() == bytes);
  ours.send_bytes(bytes);
  CHECK(ours.fileno() >= 0);
  process.join();
  auto ready = procpool::wait({ours, process.sentinel()}, 1s);
  CHECK(ready.size() == 1);
  ours.close();
  auto [reader, writer] = procpool::Pipe({.duplex = false});
  CHECK(writer.writable());
  procpool::Listener listener{
      {.address = std::string("\0procpool-tour-", 15) + std::to_string(getpid())}};
  procpool::Connection client = procpool::Client({.address = listener.address()});
  procpool::Connection peer = listener.accept();
  const std::vector<long> value{1, 2};
  client.send_pickle(value);
  auto list = peer.recv_pickle<std::vector<long>>();
  CHECK(list == value);
}

}  // namespace
