// SPDX-License-Identifier: MIT
// What CPython's own tests of multiprocessing.connection.Listener and Client assert.
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;
using procpool::Client;
using procpool::Connection;
using procpool::Listener;

namespace {

/// A path, an abstract name, and an address that the Listener makes.
struct addresses {
  std::array<char, 32> directory{"/tmp/procpool-test-XXXXXX"};
  std::vector<std::string> all;
  addresses() {
    REQUIRE(mkdtemp(directory.data()) != nullptr);
    all = {directory.data() + std::string("/socket"), std::string(1, '\0') + (directory.data() + 5),
           ""};
  }
  addresses(const addresses&) = delete;
  addresses& operator=(const addresses&) = delete;
  ~addresses() { std::filesystem::remove_all(directory.data()); }
};

void greet(const std::string& address) {
  Connection connection = Client({.address = address});
  connection.send(std::string("hello"));
}

bool is_answered(const std::string& address) {
  Connection connection = Client({.address = address});
  return connection.poll(1min) && connection.recv<std::string>() == "hello";
}

}  // namespace

TEST_CASE("_TestListener.test_multiple_bind: two Listeners cannot have one address",
          "[conformance][listener]") {
  const addresses some;
  for (const std::string& each : some.all) {
    const Listener first{{.address = each}};
    CHECK_THROWS_AS(Listener({.address = first.address()}), procpool::ProcessError);
  }
}

TEST_CASE("_TestListener.test_context: the end of scope closes, and then nothing is accepted",
          "[conformance][listener]") {
  Listener copy;
  {
    Listener listener;
    copy = listener;
    Connection client = Client({.address = listener.address()});
    Connection server = listener.accept();
    client.send(1729);
    CHECK(server.recv<int>() == 1729);
    listener.close();
  }
  CHECK_THROWS_AS(copy.accept(), std::logic_error);
}

TEST_CASE("_TestListener.test_abstract_socket: an address in Linux' abstract namespace",
          "[conformance][listener]") {
  const addresses some;
  Listener listener{{.address = some.all[1]}};
  Connection client = Client({.address = listener.address()});
  Connection server = listener.accept();
  client.send(1729);
  CHECK(server.recv<int>() == 1729);
}

TEST_CASE("_TestListenerClient.test_listener_client: another process connects and sends",
          "[conformance][listener][workers]") {
  procpool::Pool pool{1};
  const addresses some;
  for (const std::string& each : some.all) {
    Listener listener{{.address = each}};
    auto done = pool.apply_async(greet, listener.address());
    CHECK(listener.accept().recv<std::string>() == "hello");
    done.get();
  }
}

TEST_CASE("_TestListenerClient.test_issue14725: a client that has left before it was accepted",
          "[conformance][listener][workers]") {
  procpool::Pool pool{1};
  const addresses some;
  for (const std::string& each : some.all) {
    Listener listener{{.address = each}};
    pool.apply(greet, listener.address());
    CHECK(listener.accept().recv<std::string>() == "hello");
  }
}

TEST_CASE("_TestListenerClient.test_issue16955: a client polls for what is sent at once",
          "[conformance][listener][workers]") {
  procpool::Pool pool{1};
  const addresses some;
  for (const std::string& each : some.all) {
    Listener listener{{.address = each}};
    auto answered = pool.apply_async(is_answered, listener.address());
    Connection server = listener.accept();
    server.send(std::string("hello"));
    CHECK(answered.get());
  }
}
