// SPDX-License-Identifier: MIT
// What CPython's own tests of Pipe, Connection and multiprocessing.connection.wait assert.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/processes.hpp"

using namespace std::chrono_literals;
using procpool::BufferTooShort;
using procpool::Connection;
using procpool::EOFError;
using procpool::Pipe;
using procpool::ProcessError;

namespace {

using bytes = std::vector<std::byte>;

bytes bytes_of(std::string_view text) {
  const auto content = std::as_bytes(std::span(text.data(), text.size()));
  return {content.begin(), content.end()};
}

std::string text_of(std::span<const std::byte> content) {
  return {reinterpret_cast<const char*>(content.data()), content.size()};
}

/// Sends every message back until an empty one comes.
void echo(Connection connection) {
  while (true) {
    const bytes message = connection.recv_bytes();
    if (message.empty()) return;
    connection.send_bytes(message);
  }
}

struct Point {
  int x = 0;
  std::string name;
  bool operator==(const Point&) const = default;
};

/// Ten numbered messages, after random pauses if it is slow.
void send_ten(Connection to, int number, bool slow) {
  unsigned random = static_cast<unsigned>(number) * 2654435761U;
  for (int i = 0; i < 10; ++i) {
    random = random * 1664525U + 1013904223U;
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(random >> 16 & 15));
    to.send(std::pair(i, number));
  }
  to.close();
}

void write_to_handle(Connection from, std::string_view text) {
  const int handle = from.recv_handle();
  const auto written = write(handle, text.data(), text.size());
  close(handle);
  if (written != static_cast<ssize_t>(text.size())) throw std::runtime_error("not written");
}

void write_foo(Connection from) {
  write_to_handle(std::move(from), "foo");
}

std::string read_file(const char* name) {
  std::string content(100, '\0');
  const int file = open(name, O_RDONLY | O_CLOEXEC);
  const auto size = read(file, content.data(), content.size());
  close(file);
  content.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return content;
}

/// An empty file, with its name, removed at the end.
struct temporary_file {
  std::array<char, 32> name{"/tmp/procpool-test-XXXXXX"};
  int number = mkostemp(name.data(), O_CLOEXEC);
  temporary_file() { REQUIRE(number >= 0); }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() {
    close(number);
    unlink(name.data());
  }
};

}  // namespace

// ---------------------------------------------------------------------------- _TestConnection

TEST_CASE("_TestConnection.test_connection: values and bytes come back from another process",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  auto done = pool.apply_async(echo, theirs);
  const Point point{3, "three"};
  ours.send(point);
  CHECK(ours.recv<Point>() == point);
  ours.send_bytes(bytes_of("hello world"));
  CHECK(text_of(ours.recv_bytes()) == "hello world");

  std::array<int, 10> numbers{};
  std::iota(numbers.begin(), numbers.end(), 0);
  std::array<int, 20> room{};
  ours.send_bytes(std::as_bytes(std::span(numbers)));
  CHECK(ours.recv_bytes_into(std::as_writable_bytes(std::span(room))) == sizeof numbers);
  CHECK(std::equal(numbers.begin(), numbers.end(), room.begin()));
  ours.send_bytes(std::as_bytes(std::span(numbers)));
  CHECK(ours.recv_bytes_into(std::as_writable_bytes(std::span(room).subspan(3))) == sizeof numbers);
  CHECK(std::equal(numbers.begin(), numbers.end(), room.begin() + 3));
  ours.send_bytes(std::string(40, ' '));
  try {
    static_cast<void>(ours.recv_bytes_into(std::as_writable_bytes(std::span(room).first(2))));
    FAIL("received");
  } catch (const BufferTooShort& error) {
    CHECK(text_of(error.message()) == std::string(40, ' '));
  }

  CHECK_FALSE(ours.poll());
  CHECK_FALSE(ours.poll(0s));
  CHECK_FALSE(ours.poll(50ms));
  ours.send(std::string("more"));
  CHECK(ours.poll(1min));
  CHECK(ours.recv<std::string>() == "more");

  const bytes large(16 << 20, std::byte{'X'});
  std::thread sender([&ours = ours, &large] { ours.send_bytes(large); });
  CHECK(ours.recv_bytes() == large);
  sender.join();
  ours.send_bytes(bytes());
  theirs.close();
  done.get();
  CHECK_THROWS_AS(ours.recv<int>(), EOFError);
  CHECK_THROWS_AS(ours.recv_bytes(), EOFError);
}

TEST_CASE("_TestConnection.test_duplex_false: one end receives, the other sends",
          "[conformance][connection]") {
  auto [reader, writer] = Pipe({.duplex = false});
  writer.send(1);
  CHECK(reader.recv<int>() == 1);
  CHECK(reader.readable());
  CHECK_FALSE(reader.writable());
  CHECK_FALSE(writer.readable());
  CHECK(writer.writable());
  CHECK_THROWS_AS(reader.send(2), std::logic_error);
  CHECK_THROWS_AS(writer.recv<int>(), std::logic_error);
  CHECK_THROWS_AS(writer.poll(), std::logic_error);
}

TEST_CASE("_TestConnection.test_spawn_close: the parent closes its copy right after the start",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  auto done = pool.apply_async(echo, theirs);
  theirs.close();
  ours.send_bytes(bytes_of("hello"));
  CHECK(text_of(ours.recv_bytes()) == "hello");
  ours.send_bytes(bytes());
  done.get();
}

TEST_CASE("_TestConnection.test_spawn_close: the same with a Process",
          "[conformance][connection][processes]") {
  auto [ours, theirs] = Pipe();
  procpool::Process child(echo, theirs);
  child.start();
  theirs.close();
  ours.send_bytes(bytes_of("hello"));
  CHECK(text_of(ours.recv_bytes()) == "hello");
  ours.send_bytes(bytes());
  child.join();
  CHECK(child.exitcode() == 0);
}

TEST_CASE("_TestConnection.test_sendbytes: parts of bytes are sent as spans",
          "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  const bytes message = bytes_of("abcdefghijklmnopqrstuvwxyz");
  const std::span all(message);
  for (const auto part :
       {all, all.subspan(5), all.subspan(7, 8), all.subspan(26), all.subspan(26, 0)}) {
    ours.send_bytes(part);
    CHECK(text_of(theirs.recv_bytes()) == text_of(part));
  }
}

TEST_CASE("_TestConnection.test_fd_transfer: a file is written to by another process",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  const temporary_file file;
  auto done = pool.apply_async(write_foo, theirs);
  ours.send_handle(file.number);
  done.get();
  CHECK(read_file(file.name.data()) == "foo");
}

TEST_CASE("_TestConnection.test_large_fd_transfer: a descriptor of a large number",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  const temporary_file file;
  const int large = fcntl(file.number, F_DUPFD_CLOEXEC, 300);
  REQUIRE(large >= 300);
  auto done = pool.apply_async(write_foo, theirs);
  ours.send_handle(large);
  close(large);
  done.get();
  CHECK(read_file(file.name.data()) == "foo");
}

TEST_CASE("_TestConnection.test_missing_fd_transfer: a byte without a descriptor",
          "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  REQUIRE(write(ours.fileno(), "\1", 1) == 1);
  CHECK_THROWS_AS(theirs.recv_handle(), ProcessError);
}

TEST_CASE("_TestConnection.test_context: the end of scope closes both ends",
          "[conformance][connection]") {
  int numbers[2] = {};
  {
    auto [ours, theirs] = Pipe();
    numbers[0] = ours.fileno();
    numbers[1] = theirs.fileno();
    ours.send(1729);
    CHECK(theirs.recv<int>() == 1729);
  }
  CHECK(fcntl(numbers[0], F_GETFD) == -1);
  CHECK(fcntl(numbers[1], F_GETFD) == -1);
  auto [ours, theirs] = Pipe();
  ours.close();
  CHECK(ours.closed());
  CHECK_THROWS_AS(ours.recv<int>(), std::logic_error);
}

TEST_CASE("_TestConnection.test_wait_empty: nothing to wait for takes the time that is given",
          "[conformance][connection]") {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(procpool::wait(std::vector<Connection>{}, 100ms).empty());
  CHECK(std::chrono::steady_clock::now() - begin >= 100ms);
}

// ---------------------------------------------------------------------------- _TestPoll

TEST_CASE("_TestPoll.test_empty_string: polling does not take an empty message",
          "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  CHECK_FALSE(ours.poll());
  theirs.send_bytes(bytes());
  CHECK(ours.poll());
  CHECK(ours.poll());
  CHECK(ours.recv_bytes().empty());
  CHECK_FALSE(ours.poll());
}

namespace {

const std::vector<std::string> strings{"hello", "", "a", "b", "", "bye", "", "lop"};

void send_strings(Connection to) {
  for (const std::string& each : strings) {
    std::this_thread::sleep_for(2ms);
    to.send_bytes(each);
  }
}

}  // namespace

TEST_CASE("_TestPoll.test_strings: messages arrive whole and in order, with polling between",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  auto done = pool.apply_async(send_strings, theirs);
  for (const std::string& each : strings) {
    for (int i = 0; i < 2000 && !ours.poll(10ms); ++i) {
    }
    CHECK(text_of(ours.recv_bytes()) == each);
  }
  done.get();
}

namespace {

/// Polls, as another reader of the same end.
void poll_beside(Connection same, Connection tell) {
  static_cast<void>(same.poll(50ms));
  tell.send(same.poll(0s));
}

}  // namespace

TEST_CASE("_TestPoll.test_boundaries: a poll elsewhere takes no part of a message",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  auto [told, tell] = Pipe();
  theirs.send_bytes(bytes_of("first"));
  theirs.send_bytes(bytes_of("second"));
  pool.apply_async(poll_beside, ours, tell).get();
  CHECK(told.recv<bool>());
  CHECK(text_of(ours.recv_bytes()) == "first");
  CHECK(text_of(ours.recv_bytes()) == "second");
}

TEST_CASE("_TestPoll.test_dont_merge: three messages stay three", "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  CHECK_FALSE(ours.poll());
  theirs.send_bytes(bytes_of("a"));
  theirs.send_bytes(bytes_of("b"));
  theirs.send_bytes(bytes_of("c"));
  for (const char* each : {"a", "b", "c"}) {
    CHECK(ours.poll(1s));
    CHECK(ours.poll(1s));
    CHECK(text_of(ours.recv_bytes()) == each);
  }
  CHECK_FALSE(ours.poll());
}

// ---------------------------------------------------------------------------- pickling

namespace {

/// Makes connections of its own and hands one end to the parent.
void give_connection(Connection to) {
  auto [mine, yours] = Pipe();
  to.send(yours);
  yours.close();
  mine.send(mine.recv<std::string>() + " and back");
}

Connection returned_connection() {
  auto [mine, yours] = Pipe();
  mine.send(std::string("from a result"));
  return yours;
}

void try_both_directions(Connection reader, Connection writer) {
  if (reader.writable() || writer.readable()) throw std::runtime_error("directions were lost");
  writer.send(reader.recv<int>() * 2);
}

}  // namespace

TEST_CASE("_TestPicklingConnections.test_pickling: a Connection made elsewhere works here",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [ours, theirs] = Pipe();
  auto done = pool.apply_async(give_connection, theirs);
  auto given = ours.recv<Connection>();
  given.send(std::string("there"));
  CHECK(given.recv<std::string>() == "there and back");
  done.get();
  CHECK(pool.apply(returned_connection).recv<std::string>() == "from a result");
}

TEST_CASE("_TestPicklingConnections.test_access: an end keeps its direction",
          "[conformance][connection][workers]") {
  procpool::Pool pool{1};
  auto [reader, writer] = Pipe({.duplex = false});
  auto [result, to] = Pipe({.duplex = false});
  auto done = pool.apply_async(try_both_directions, reader, to);
  writer.send(21);
  CHECK(result.recv<int>() == 42);
  done.get();
}

// ---------------------------------------------------------------------------- TestWait

namespace {

void collect_from_four(bool slow) {
  procpool::Pool pool{4};
  std::vector<Connection> readers;
  std::vector<procpool::AsyncResult<void>> done;
  for (int i = 0; i < 4; ++i) {
    auto [reader, writer] = Pipe({.duplex = false});
    done.push_back(pool.apply_async(send_ten, writer, i, slow));
    writer.close();
    readers.push_back(reader);
  }
  for (auto& each : done) each.wait();  // a frame's copy of an end is closed when its task is done
  std::vector<std::pair<int, int>> messages;
  while (!readers.empty()) {
    for (Connection& each : procpool::wait(readers)) {
      try {
        messages.push_back(each.recv<std::pair<int, int>>());
      } catch (const EOFError&) {
        std::erase(readers, each);
      }
    }
  }
  std::ranges::sort(messages);
  std::vector<std::pair<int, int>> expected;
  for (int i = 0; i < 10; ++i) {
    for (int number = 0; number < 4; ++number) expected.emplace_back(i, number);
  }
  CHECK(messages == expected);
}

void collect_from_sockets(bool slow) {
  const procpool::Listener listener;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([address = listener.address(), i, slow] {
      send_ten(procpool::Client({.address = address}), i, slow);
    });
  }
  std::vector<Connection> readers;
  procpool::Listener accepting = listener;
  for (int i = 0; i < 4; ++i) readers.push_back(accepting.accept());
  std::array<int, 4> next{};
  while (!readers.empty()) {
    for (Connection& each : procpool::wait(readers, 1min)) {
      try {
        const auto [message, number] = each.recv<std::pair<int, int>>();
        CHECK(next[static_cast<std::size_t>(number)]++ == message);
      } catch (const EOFError&) {
        std::erase(readers, each);
      }
    }
  }
  for (auto& each : clients) each.join();
  CHECK(next == std::array{10, 10, 10, 10});
}

void sleep_shortly(std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);
}

}  // namespace

TEST_CASE("TestWait.test_wait: all messages of four processes, then their ends",
          "[conformance][connection][workers]") {
  collect_from_four(false);
}

TEST_CASE("TestWait.test_wait_slow: the same with pauses", "[conformance][connection][workers]") {
  collect_from_four(true);
}

TEST_CASE("TestWait.test_wait_socket: the same from sockets, each in its order",
          "[conformance][connection]") {
  collect_from_sockets(false);
}

TEST_CASE("TestWait.test_wait_socket_slow: the same with pauses", "[conformance][connection]") {
  collect_from_sockets(true);
}

TEST_CASE("TestWait.test_wait_timeout: nothing, then the end that has something",
          "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  const auto begin = std::chrono::steady_clock::now();
  CHECK(procpool::wait({ours, theirs}, 100ms).empty());
  CHECK(std::chrono::steady_clock::now() - begin >= 100ms);
  theirs.send(1);
  CHECK(procpool::wait({ours, theirs}, 20s) == std::vector<procpool::waited_for>{ours});
}

TEST_CASE("TestWait.test_wait_integer: a process that ends, alone and beside Connections",
          "[conformance][connection][processes]") {
  auto [ours, theirs] = Pipe();
  procpool::Process process(sleep_shortly, 100ms);
  process.start();
  CHECK(procpool::wait({ours, process.sentinel()}, 1min) ==
        std::vector<procpool::waited_for>{process.sentinel()});
  theirs.send(1);
  CHECK(procpool::wait({ours, process.sentinel(), theirs}, 1min) ==
        std::vector<procpool::waited_for>{ours, process.sentinel()});
  ours.send(1);
  CHECK(procpool::wait({ours, process.sentinel(), theirs}, 1min).size() == 3);
  process.join();
}

TEST_CASE("TestWait.test_neg_timeout: a negative time is none", "[conformance][connection]") {
  auto [ours, theirs] = Pipe();
  CHECK(procpool::wait({ours, theirs}, -1s).empty());
}

// ---------------------------------------------------------------------------- handles, signals

TEST_CASE("TestInvalidHandle.test_invalid_handles: a wrong descriptor is an error",
          "[conformance][connection]") {
  Connection bogus(44'977'608);
  CHECK_THROWS_AS(bogus.poll(), ProcessError);
  CHECK_THROWS_AS(Connection(-1), std::invalid_argument);
}

namespace {

std::atomic<int> signals_seen = 0;

/// Counts SIGUSR1, without SA_RESTART, while it exists.
struct counted_signals {
  struct sigaction before {};
  counted_signals() {
    signals_seen = 0;
    struct sigaction now {};
    now.sa_handler = [](int) { ++signals_seen; };
    sigaction(SIGUSR1, &now, &before);
  }
  counted_signals(const counted_signals&) = delete;
  counted_signals& operator=(const counted_signals&) = delete;
  ~counted_signals() { sigaction(SIGUSR1, &before, nullptr); }

  /// Sends it to a thread until one more has been seen.
  static void interrupt(pthread_t thread) {
    for (int seen = signals_seen; signals_seen == seen;) {
      pthread_kill(thread, SIGUSR1);
      std::this_thread::sleep_for(5ms);
    }
  }
};

}  // namespace

TEST_CASE("TestIgnoreEINTR.test_ignore: signals interrupt neither receiving nor sending",
          "[conformance][connection]") {
  const counted_signals counted;
  auto [ours, theirs] = Pipe();
  const bytes large(8 << 20, std::byte{'x'});
  std::thread other([&large, main = pthread_self(), end = theirs]() mutable {
    std::this_thread::sleep_for(20ms);
    counted_signals::interrupt(main);
    end.send(1234);
    std::this_thread::sleep_for(20ms);
    counted_signals::interrupt(main);
    if (end.recv_bytes() != large) std::terminate();
  });
  CHECK(ours.recv<int>() == 1234);
  ours.send_bytes(large);
  other.join();
  CHECK(signals_seen >= 2);
}

TEST_CASE("TestIgnoreEINTR.test_ignore_listener: a signal does not end accept",
          "[conformance][connection]") {
  const counted_signals counted;
  procpool::Listener listener;
  std::thread other([&listener, main = pthread_self()] {
    std::this_thread::sleep_for(20ms);
    counted_signals::interrupt(main);
    Connection client = procpool::Client({.address = listener.address()});
    client.send(std::string("welcome"));
  });
  CHECK(listener.accept().recv<std::string>() == "welcome");
  other.join();
}

TEST_CASE("_TestPollEintr.test_poll_eintr: a signal does not end poll or wait",
          "[conformance][connection]") {
  const counted_signals counted;
  auto [ours, theirs] = Pipe();
  std::thread other([main = pthread_self(), end = theirs]() mutable {
    std::this_thread::sleep_for(20ms);
    counted_signals::interrupt(main);
    end.send(1);
  });
  CHECK(ours.poll(1min));
  CHECK(procpool::wait({ours}, 1min).size() == 1);
  other.join();
}
