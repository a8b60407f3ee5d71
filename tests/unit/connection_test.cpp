// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/connection/message_head.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using procpool::BrokenPipeError;
using procpool::BufferTooShort;
using procpool::Connection;
using procpool::DecodeError;
using procpool::EOFError;
using procpool::Pipe;
using procpool::ProcessError;

namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return {bytes.begin(), bytes.end()};
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Writes bytes as they are, in the name of a peer that follows no protocol.
void write_raw(const Connection& through, std::string_view bytes) {
  REQUIRE(write(through.fileno(), bytes.data(), bytes.size()) ==
          static_cast<ssize_t>(bytes.size()));
}

std::string read_raw(const Connection& from, std::size_t size) {
  std::string bytes(size, '\0');
  REQUIRE(recv(from.fileno(), bytes.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size));
  return bytes;
}

std::string head(std::uint32_t length) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(length >> shift & 0xFF);
  return bytes;
}

std::string long_head(std::uint64_t length) {
  return head(0xFFFFFFFF) + head(static_cast<std::uint32_t>(length >> 32)) +
         head(static_cast<std::uint32_t>(length));
}

struct Order {
  std::string name;
  std::optional<double> price;
  std::map<std::string, int> parts;
  bool operator==(const Order&) const = default;
};

struct Reply {
  std::string text;
  std::vector<Connection> ends;
};

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (int i = 0; i < 200; ++i) count += fcntl(i, F_GETFD) != -1 ? 1U : 0U;
  return count;
}

}  // namespace

TEST_CASE("values of any encodable type go through a Pipe in both directions", "[connection]") {
  auto [ours, theirs] = Pipe();
  theirs.send(std::string("hello"));
  CHECK(ours.recv<std::string>() == "hello");
  ours.send("a literal");
  CHECK(theirs.recv<std::string>() == "a literal");
  const Order order{"bolts", 2.5, {{"m4", 3}, {"m5", 9}}};
  ours.send(order);
  ours.send(42L);
  ours.send(std::vector<double>{1, 2.5});
  CHECK(theirs.recv<Order>() == order);
  CHECK(theirs.recv<long>() == 42);
  CHECK(theirs.recv<std::vector<double>>() == std::vector<double>{1, 2.5});
}

TEST_CASE("a message of many megabytes goes through a Pipe", "[connection]") {
  auto [ours, theirs] = Pipe();
  std::vector<std::uint32_t> numbers(5'000'000);
  std::iota(numbers.begin(), numbers.end(), 0U);
  std::thread sender([&theirs = theirs, &numbers] {
    theirs.send(numbers);
    theirs.send_bytes(std::as_bytes(std::span(numbers)));
    theirs.send(1);
  });
  CHECK(ours.recv<std::vector<std::uint32_t>>() == numbers);
  const auto bytes = ours.recv_bytes();
  CHECK(std::memcmp(bytes.data(), numbers.data(), bytes.size()) == 0);
  CHECK(bytes.size() == numbers.size() * 4);
  CHECK(ours.recv<int>() == 1);
  sender.join();
}

TEST_CASE("bytes on the stream are those of Python", "[connection]") {
  auto [ours, theirs] = Pipe();
  ours.send_bytes(bytes_of("abc"));
  CHECK(read_raw(theirs, 7) == head(3) + "abc");
  ours.send_bytes(std::string());
  CHECK(read_raw(theirs, 4) == head(0));
  write_raw(theirs, head(2) + "xy" + head(0) + long_head(4) + "long");
  CHECK(text_of(ours.recv_bytes()) == "xy");
  CHECK(ours.recv_bytes().empty());
  CHECK(text_of(ours.recv_bytes()) == "long");
}

TEST_CASE("the head of a message of 2 GiB or more has 12 bytes", "[connection]") {
  using procpool::detail::head_of;
  const auto text = [](const procpool::detail::message_head& made) {
    return text_of(std::span(made.bytes).first(made.size));
  };
  CHECK(text(head_of(0x7FFFFFFF)) == head(0x7FFFFFFF));
  CHECK(text(head_of(0x80000000)) == long_head(0x80000000));
  CHECK(text(head_of(0x123456789A)) == long_head(0x123456789A));
}

TEST_CASE("one end of a Pipe that is not duplex can only receive, the other only send",
          "[connection]") {
  auto [reader, writer] = Pipe({.duplex = false});
  CHECK(reader.readable());
  CHECK_FALSE(reader.writable());
  CHECK_FALSE(writer.readable());
  CHECK(writer.writable());
  writer.send(7);
  CHECK(reader.recv<int>() == 7);
  CHECK_THROWS_AS(reader.send(1), std::logic_error);
  CHECK_THROWS_AS(reader.send_bytes(bytes_of("x")), std::logic_error);
  CHECK_THROWS_AS(writer.recv<int>(), std::logic_error);
  CHECK_THROWS_AS(writer.recv_bytes(), std::logic_error);
  CHECK_THROWS_AS(writer.poll(), std::logic_error);
}

TEST_CASE("what a peer has sent before it closed is received, then EOFError", "[connection]") {
  auto [ours, theirs] = Pipe();
  theirs.send(1);
  theirs.close();
  CHECK(ours.poll());
  CHECK(ours.recv<int>() == 1);
  CHECK(ours.poll());
  CHECK_THROWS_AS(ours.recv<int>(), EOFError);
  CHECK_THROWS_AS(ours.recv_bytes(), EOFError);
  CHECK_THROWS_AS(ours.recv_handle(), EOFError);
}

TEST_CASE("sending to a peer that has closed is BrokenPipeError, without a signal",
          "[connection]") {
  auto [ours, theirs] = Pipe();
  theirs.close();
  try {
    ours.send(1);
    FAIL("sent");
  } catch (const BrokenPipeError& error) {
    CHECK(error.code() == std::errc::broken_pipe);
  }
  CHECK_THROWS_AS(ours.send_bytes(bytes_of("x")), BrokenPipeError);
  CHECK_THROWS_AS(ours.send_handle(0), BrokenPipeError);
}

TEST_CASE("a pipe of the system works, and one without reader raises no SIGPIPE", "[connection]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
  Connection reader(ends[0], {.writable = false});
  Connection writer(ends[1], {.readable = false});
  writer.send(std::string("through a pipe"));
  CHECK(reader.recv<std::string>() == "through a pipe");
  reader.close();
  CHECK_THROWS_AS(writer.send(1), BrokenPipeError);
  sigset_t pending;
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGPIPE) == 0);
}

TEST_CASE("a peer that stops in the middle of a message is EOFError", "[connection]") {
  const auto stopped_at = [](std::string_view bytes) -> std::string {
    auto [ours, theirs] = Pipe();
    write_raw(theirs, bytes);
    theirs.close();
    try {
      static_cast<void>(ours.recv_bytes());
    } catch (const EOFError& error) {
      CHECK_THROWS_AS(ours.recv_bytes(), EOFError);
      return error.what();
    }
    return "received";
  };
  CHECK_THAT(stopped_at(head(5).substr(0, 2)), ContainsSubstring("in the middle"));
  CHECK_THAT(stopped_at(head(5) + "abc"), ContainsSubstring("3 of 5 bytes"));
  CHECK_THAT(stopped_at(long_head(5).substr(0, 7)), ContainsSubstring("in the middle"));
  CHECK_THAT(stopped_at(head(5)), ContainsSubstring("0 of 5 bytes"));
}

TEST_CASE("an impossible length is a DecodeError, and nothing is received after it",
          "[connection]") {
  for (const std::string& bytes :
       {head(0xFFFFFFFE), head(0x80000000), long_head(1ULL << 63), long_head(~0ULL)}) {
    auto [ours, theirs] = Pipe();
    write_raw(theirs, bytes + "and more");
    CHECK_THROWS_AS(ours.recv_bytes(), DecodeError);
    CHECK_FALSE(ours.readable());
    CHECK(ours.writable());
    CHECK_THROWS_AS(ours.recv_bytes(), std::logic_error);
    ours.send(1);
  }
}

TEST_CASE("memory grows with what arrives, whatever length a peer announces", "[connection]") {
  CHECK(support::run_child([] {
          const rlimit little{std::size_t{4} << 30, std::size_t{4} << 30};
          CHILD_REQUIRE(setrlimit(RLIMIT_AS, &little) == 0);
          auto [ours, theirs] = Pipe();
          const std::string bytes = long_head(1ULL << 60) + std::string(10'000, 'x');
          CHILD_REQUIRE(write(theirs.fileno(), bytes.data(), bytes.size()) > 0);
          theirs.close();
          try {
            static_cast<void>(ours.recv_bytes());
          } catch (const EOFError&) {
            return 0;
          }
          return 1;
        }) == 0);
}

TEST_CASE("a message that is longer than allowed ends receiving", "[connection]") {
  auto [ours, theirs] = Pipe();
  theirs.send_bytes(bytes_of("12345"));
  theirs.send_bytes(bytes_of("123456"));
  CHECK(ours.recv_bytes(5).size() == 5);
  try {
    static_cast<void>(ours.recv_bytes(5));
    FAIL("received");
  } catch (const ProcessError& error) {
    CHECK(error.code().value() == EMSGSIZE);
    CHECK_THAT(error.what(), ContainsSubstring("6 bytes") && ContainsSubstring("at most 5"));
  }
  CHECK_FALSE(ours.readable());
  CHECK_THROWS_AS(ours.recv<int>(), std::logic_error);
}

TEST_CASE("a message that does not fit into the caller's memory is in the exception",
          "[connection]") {
  auto [ours, theirs] = Pipe();
  std::array<std::byte, 4> room{};
  theirs.send_bytes(bytes_of("abcd"));
  CHECK(ours.recv_bytes_into(room) == 4);
  CHECK(text_of(room) == "abcd");
  theirs.send_bytes(bytes_of("xy"));
  CHECK(ours.recv_bytes_into(std::span(room).subspan(1)) == 2);
  CHECK(text_of(room) == "axyd");
  theirs.send_bytes(bytes_of("too long"));
  try {
    static_cast<void>(ours.recv_bytes_into(room));
    FAIL("received");
  } catch (const BufferTooShort& error) {
    CHECK(text_of(error.message()) == "too long");
  }
  theirs.send(1);
  CHECK(ours.recv<int>() == 1);
}

TEST_CASE("a message of another type is a DecodeError, and the next one is received",
          "[connection]") {
  auto [ours, theirs] = Pipe();
  theirs.send(1);
  theirs.send_bytes(bytes_of("garbage"));
  theirs.send_bytes({});
  theirs.send(2);
  CHECK_THROWS_AS(ours.recv<std::string>(), DecodeError);
  CHECK_THROWS_AS(ours.recv<std::string>(), DecodeError);
  CHECK_THROWS_AS(ours.recv<std::string>(), DecodeError);
  CHECK(ours.recv<int>() == 2);
}

TEST_CASE("poll waits as long as it is told", "[connection]") {
  auto [ours, theirs] = Pipe();
  CHECK_FALSE(ours.poll());
  CHECK_FALSE(ours.poll(-1s));
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(ours.poll(50ms));
  CHECK(std::chrono::steady_clock::now() - begin >= 50ms);
  std::thread sender([&theirs = theirs] {
    std::this_thread::sleep_for(20ms);
    theirs.send(1);
  });
  CHECK(ours.poll(std::chrono::hours::max()));
  sender.join();
  CHECK(ours.recv<int>() == 1);
  theirs.send_bytes({});
  CHECK(ours.poll());
}

TEST_CASE("copies of a Connection are one descriptor", "[connection]") {
  auto [ours, theirs] = Pipe();
  Connection copy = ours;
  CHECK(copy == ours);
  CHECK_FALSE(copy == theirs);
  CHECK(copy.fileno() == ours.fileno());
  copy.close();
  copy.close();
  CHECK(ours.closed());
  CHECK_THROWS_AS(ours.send(1), std::logic_error);
  CHECK_THROWS_AS(ours.recv<int>(), std::logic_error);
  CHECK_THROWS_AS(ours.poll(), std::logic_error);
  CHECK_THROWS_AS(ours.fileno(), std::logic_error);
  CHECK_THROWS_AS(theirs.recv<int>(), EOFError);
  const Connection taken = std::move(theirs);
  CHECK(theirs.closed());  // NOLINT(bugprone-use-after-move): that is the test
  CHECK_THROWS_AS(theirs.fileno(), std::logic_error);
  theirs.close();
  CHECK_FALSE(taken.closed());
}

TEST_CASE("the last copy of a Connection closes it", "[connection]") {
  auto ends = std::make_unique<std::pair<Connection, Connection>>(Pipe());
  Connection kept = ends->first;
  ends.reset();
  CHECK_THROWS_AS(kept.recv<int>(), EOFError);
}

TEST_CASE("a Connection needs a descriptor and a direction", "[connection]") {
  CHECK_THROWS_AS(Connection(-1), std::invalid_argument);
  CHECK_THROWS_AS(Connection(0, {.readable = false, .writable = false}), std::invalid_argument);
}

TEST_CASE("a descriptor that other code has closed is an error with a name", "[connection]") {
  auto [ours, theirs] = Pipe();
  close(ours.fileno());
  CHECK_THROWS_AS(ours.send(1), ProcessError);
  CHECK_THROWS_AS(ours.recv<int>(), ProcessError);
  CHECK_THROWS_AS(ours.poll(), ProcessError);
  CHECK_THROWS_AS(procpool::wait({ours}, 0s), ProcessError);
}

TEST_CASE("what cannot be encoded is not sent", "[connection]") {
  auto [ours, theirs] = Pipe();
  std::array<Connection, 1> closed{Pipe().first};
  closed[0].close();
  CHECK_THROWS_AS(theirs.send(closed[0]), std::logic_error);
  theirs.send(5);
  CHECK(ours.recv<int>() == 5);
}

TEST_CASE("Connections and descriptors go through a Connection", "[connection]") {
  auto [ours, theirs] = Pipe();
  {
    auto [first, second] = Pipe();
    auto [reader, writer] = Pipe({.duplex = false});
    theirs.send(Reply{"three of them", {first, writer, reader}});
    theirs.send(std::string("after it"));
    Reply got = ours.recv<Reply>();
    CHECK(got.text == "three of them");
    REQUIRE(got.ends.size() == 3);
    CHECK_FALSE(got.ends[1].readable());
    CHECK_FALSE(got.ends[2].writable());
    got.ends[0].send(11);
    CHECK(second.recv<int>() == 11);
    got.ends[1].send(12);
    CHECK(got.ends[2].recv<int>() == 12);
    CHECK(ours.recv<std::string>() == "after it");
  }
  theirs.send_handle(theirs.fileno());
  const Connection copy(ours.recv_handle());
  CHECK((fcntl(copy.fileno(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(copy.fileno() != theirs.fileno());
}

TEST_CASE("handles of shared objects go through a Connection", "[connection]") {
  auto [ours, theirs] = Pipe();
  const procpool::SimpleQueue<int> made;
  theirs.send(std::pair(made, theirs));
  theirs.send(made);
  auto [queue, end] = ours.recv<std::pair<procpool::SimpleQueue<int>, Connection>>();
  queue.put(4);
  CHECK(ours.recv<procpool::SimpleQueue<int>>().get() == 4);
  end.send(5);
  CHECK(ours.recv<int>() == 5);
}

TEST_CASE("descriptors of a message that cannot be decoded are closed", "[connection]") {
  auto [ours, theirs] = Pipe();
  auto [first, second] = Pipe();
  const std::size_t before = open_descriptors();
  theirs.send(std::pair(first, std::string("text")));
  CHECK_THROWS_AS((ours.recv<std::pair<Connection, Order>>()), DecodeError);
  theirs.send(std::pair(first, std::string("text")));
  CHECK_THROWS_AS(ours.recv<int>(), DecodeError);
  CHECK(open_descriptors() == before);
  theirs.send(3);
  CHECK(ours.recv<int>() == 3);
}

TEST_CASE("more descriptors than a message can have are std::length_error", "[connection]") {
  auto [ours, theirs] = Pipe();
  const std::vector<Connection> many(254, ours);
  CHECK_THROWS_AS(theirs.send(many), std::length_error);
  theirs.send(std::vector<Connection>(50, ours));
  CHECK(ours.recv<std::vector<Connection>>().size() == 50);
}

TEST_CASE("a byte without descriptor where one is expected is ProcessError", "[connection]") {
  auto [ours, theirs] = Pipe();
  write_raw(theirs, "\1");
  CHECK_THROWS_AS(ours.recv_handle(), ProcessError);
}

TEST_CASE("without a free descriptor there is no Pipe, and a message still ends", "[connection]") {
  CHECK(support::run_child([] {
          auto [ours, theirs] = Pipe();
          theirs.send(std::vector<Connection>(3, theirs));
          theirs.send(7);
          const int next = dup(0);  // the lowest free number
          close(next);
          const rlimit none{static_cast<rlim_t>(next), static_cast<rlim_t>(next)};
          CHILD_REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
          try {
            static_cast<void>(Pipe());
            return 1;
          } catch (const ProcessError& error) {
            CHILD_REQUIRE(error.code().value() == EMFILE);
          }
          try {
            static_cast<void>(ours.recv<std::vector<Connection>>());
            return 2;
          } catch (const DecodeError& error) {
            CHILD_REQUIRE(std::string_view(error.what()).find("are too many") !=
                          std::string_view::npos);
          }
          return ours.recv<int>() == 7 ? 0 : 3;
        }) == 0);
}

TEST_CASE("one thread sends while another one receives", "[connection]") {
  auto [ours, theirs] = Pipe();
  constexpr int times = 20'000;
  const auto send_all = [](Connection end) {
    for (int i = 0; i < times; ++i) end.send(i);
  };
  std::thread one(send_all, ours);
  std::thread other(send_all, theirs);
  std::thread receiver([end = theirs]() mutable {
    for (int i = 0; i < times; ++i) {
      if (end.recv<int>() != i) std::terminate();
    }
  });
  bool all = true;
  for (int i = 0; i < times; ++i) all = all && ours.recv<int>() == i;
  CHECK(all);
  one.join();
  other.join();
  receiver.join();
}

TEST_CASE("a Connection whose descriptor does not block waits all the same", "[connection]") {
  auto [ours, theirs] = Pipe();
  REQUIRE(fcntl(ours.fileno(), F_SETFL, O_NONBLOCK) == 0);
  const std::vector<std::byte> large(3'000'000, std::byte{7});
  std::thread peer([end = theirs, &large]() mutable {
    std::this_thread::sleep_for(20ms);
    end.send(1);
    if (end.recv_bytes() != large) std::terminate();
  });
  CHECK(ours.recv<int>() == 1);
  ours.send_bytes(large);
  peer.join();
}

TEST_CASE("a forked process inherits a Connection", "[connection]") {
  auto [ours, theirs] = Pipe();
  procpool::Process child([ours = ours, theirs = theirs]() mutable {
    ours.close();
    theirs.send(theirs.recv<std::string>() + " there");
  });
  child.start();
  theirs.close();
  ours.send(std::string("here and"));
  CHECK(ours.recv<std::string>() == "here and there");
  CHECK_THROWS_AS(ours.recv<int>(), EOFError);
  child.join();
  CHECK(child.exitcode() == 0);
}

TEST_CASE("a peer that is killed is EOFError and BrokenPipeError", "[connection]") {
  auto [ours, theirs] = Pipe();
  procpool::Process child([ours = ours, theirs = theirs]() mutable {
    ours.close();
    theirs.send(1);
    std::this_thread::sleep_for(1min);
  });
  child.start();
  theirs.close();
  CHECK(ours.recv<int>() == 1);
  std::thread killer([&child] {
    std::this_thread::sleep_for(20ms);
    child.kill();
  });
  CHECK_THROWS_AS(ours.recv<int>(), EOFError);
  CHECK_THROWS_AS(ours.send(1), BrokenPipeError);
  killer.join();
  child.join();
}

// ---------------------------------------------------------------------------- wait

TEST_CASE("wait takes Connections, processes, descriptors and results", "[connection]") {
  auto [ours, theirs] = Pipe();
  procpool::Process process([] { std::this_thread::sleep_for(1min); });
  process.start();
  procpool::Pool pool{1};
  std::array<int, 2> pipe{};
  REQUIRE(pipe2(pipe.data(), O_CLOEXEC) == 0);
  const Connection reader(pipe[0]);
  Connection writer(pipe[1]);
  auto slow = pool.apply_async([] { std::this_thread::sleep_for(1min); });

  const auto wait = [&](auto timeout) {
    return procpool::wait({ours, process.sentinel(), pipe[0], slow}, timeout);
  };
  CHECK(wait(0s).empty());
  CHECK(wait(-1s).empty());
  const auto begin = std::chrono::steady_clock::now();
  CHECK(wait(30ms).empty());
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);

  theirs.send(1);
  CHECK(wait(1min) == std::vector<procpool::waited_for>{ours});
  writer.send(1);
  process.kill();
  process.join();
  const auto ready = wait(1min);
  REQUIRE(ready.size() == 3);
  CHECK(ready[0] == ours);
  CHECK(ready[1] == process.sentinel());
  CHECK(ready[2] == pipe[0]);
  CHECK_FALSE(ready[2] == ours);

  auto quick = pool.apply_async([] { return 1; });
  pool.terminate();
  const auto results = procpool::wait({slow, ours, quick, theirs});
  REQUIRE(results.size() == 3);
  CHECK(results[0] == slow);
  CHECK(results[1] == ours);
  CHECK(results[2] == quick);
}

TEST_CASE("wait returns when a result becomes ready, of any pool", "[connection]") {
  auto [ours, theirs] = Pipe();
  const auto task = [] {
    std::this_thread::sleep_for(30ms);
    return 5;
  };
  procpool::Pool forked{1};
  procpool::ThreadPool threads{1};
  procpool::Pool<procpool::Serial> serial;
  auto first = forked.apply_async(task);
  CHECK(procpool::wait({ours, first}) == std::vector<procpool::waited_for>{first});
  auto second = threads.apply_async(task);
  CHECK(procpool::wait({ours, second}, 1min) == std::vector<procpool::waited_for>{second});
  auto third = serial.apply_async(task);
  CHECK(procpool::wait({ours, third}).size() == 1);
  auto fourth = forked.apply_async([](int x) { return x; }, 4);
  fourth.get();
  CHECK(procpool::wait({fourth, ours}).size() == 1);
}

TEST_CASE("a callback may wait for results and Connections", "[connection]") {
  auto [ours, theirs] = Pipe();
  procpool::Pool pool{2};
  std::atomic<int> found = -1;
  const auto task = [] {
    std::this_thread::sleep_for(20ms);
    return 5;
  };
  auto other = pool.apply_async([] { std::this_thread::sleep_for(60ms); });
  auto result = pool.apply_async(
      {.callback =
           [&](int) {
             found =
                 procpool::wait({ours, other}) == std::vector<procpool::waited_for>{other} ? 1 : 0;
           }},
      task);
  result.wait();
  CHECK(found == 1);
}

TEST_CASE("wait of a range returns elements of it", "[connection]") {
  auto first = Pipe();
  auto second = Pipe();
  std::vector<Connection> ends{first.first, second.first};
  CHECK(procpool::wait(ends, 0s).empty());
  second.second.send(3);
  std::vector<Connection> ready = procpool::wait(ends);
  REQUIRE(ready.size() == 1);
  CHECK(ready[0].recv<int>() == 3);
  const std::array<int, 1> numbers{ends[0].fileno()};
  static_assert(std::is_same_v<decltype(procpool::wait(numbers, 0s)), std::vector<int>>);
  CHECK(procpool::wait(numbers, 0s).empty());
}

TEST_CASE("wait of nothing waits for nothing", "[connection]") {
  CHECK(procpool::wait(std::vector<Connection>{}).empty());
  const auto begin = std::chrono::steady_clock::now();
  CHECK(procpool::wait(std::vector<int>{}, 30ms).empty());
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
  CHECK_THROWS_AS(procpool::wait({99'999}, 0s), ProcessError);
  auto closed = Pipe().first;
  closed.close();
  CHECK_THROWS_AS(procpool::wait({closed}, 0s), std::logic_error);
}

TEST_CASE("the wait for many results is still there", "[connection]") {
  procpool::Pool pool{1};
  std::vector<procpool::AsyncResult<int>> results{pool.apply_async([] { return 1; })};
  auto [done, pending] = procpool::wait(results, procpool::FIRST_COMPLETED, 1min);
  CHECK(done.size() == 1);
  CHECK(pending.empty());
  CHECK(procpool::wait(results).done.size() == 1);
}
