// SPDX-License-Identifier: MIT
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/python.hpp"

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::Client;
using procpool::Connection;
using procpool::Listener;
using procpool::ProcessError;

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string abstract_address() {
  return std::string(1, '\0') + "procpool-test-" + std::to_string(getpid());
}

/// A path in a directory that is removed at the end.
struct private_path {
  std::string directory;
  private_path() {
    char name[] = "/tmp/procpool-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    directory = name;
  }
  private_path(const private_path&) = delete;
  private_path& operator=(const private_path&) = delete;
  ~private_path() { std::filesystem::remove_all(directory); }
  [[nodiscard]] std::string address() const { return directory + "/socket"; }
};

template <class Call>
std::error_code code_of(Call call) {
  try {
    call();
  } catch (const ProcessError& error) {
    return error.code();
  }
  return {};
}

}  // namespace

TEST_CASE("a Client and a Listener are connected", "[listener]") {
  const private_path path;
  for (const std::string& address : {path.address(), abstract_address(), std::string()}) {
    Listener listener{{.address = address}};
    if (!address.empty()) CHECK(listener.address() == address);
    std::thread client([&listener] {
      Connection peer = Client({.address = listener.address()});
      peer.send(std::string("from the client"));
      if (peer.recv<std::string>() != "from the server") std::terminate();
    });
    Connection peer = listener.accept();
    CHECK(peer.recv<std::string>() == "from the client");
    peer.send("from the server");
    client.join();
    CHECK(listener.last_accepted().empty());
  }
}

TEST_CASE("a client that has left before it was accepted is heard", "[listener]") {
  Listener listener;
  {
    Connection client = Client({.address = listener.address()});
    client.send(1);
  }
  CHECK(procpool::wait({listener}, 1min).size() == 1);
  Connection peer = listener.accept();
  CHECK(peer.recv<int>() == 1);
  CHECK_THROWS_AS(peer.recv<int>(), procpool::EOFError);
}

TEST_CASE("the file of a Listener disappears with it", "[listener]") {
  const private_path path;
  {
    Listener listener{{.address = path.address()}};
    CHECK(std::filesystem::exists(path.address()));
    Listener copy = listener;
    copy.close();
    copy.close();
    CHECK_FALSE(std::filesystem::exists(path.address()));
    CHECK_THROWS_AS(listener.accept(), std::logic_error);
    CHECK_THROWS_AS(listener.fileno(), std::logic_error);
    const Listener again{{.address = path.address()}};
  }
  CHECK_FALSE(std::filesystem::exists(path.address()));
}

TEST_CASE("a Listener without address has a directory of its own", "[listener]") {
  std::string directory;
  {
    const Listener listener;
    directory = std::filesystem::path(listener.address()).parent_path();
    struct stat about {};
    REQUIRE(stat(directory.c_str(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0700);
  }
  CHECK_FALSE(std::filesystem::exists(directory));
}

TEST_CASE("a forked process does not remove the file of its parent's Listener", "[listener]") {
  const private_path path;
  Listener listener{{.address = path.address()}};
  CHECK(support::run_child([copy = listener]() mutable {
          copy.close();
          return 0;
        }) == 0);
  CHECK(std::filesystem::exists(path.address()));
}

TEST_CASE("addresses that cannot be listened at", "[listener]") {
  const private_path path;
  const Listener first{{.address = path.address()}};
  const auto listen = [](const std::string& address) {
    return code_of([&] { const Listener listener{{.address = address}}; });
  };
  CHECK(listen(path.address()) == std::errc::address_in_use);
  const Listener second{{.address = abstract_address()}};
  CHECK(listen(abstract_address()) == std::errc::address_in_use);
  CHECK(listen(path.directory + "/none/socket") == std::errc::no_such_file_or_directory);
  CHECK_THROWS_AS(listen(std::string(108, 'x')), std::invalid_argument);
  CHECK_THROWS_AS(listen(std::string("a\0b", 3)), std::invalid_argument);
  CHECK_THROWS_AS((Listener{{.backlog = 0}}), std::invalid_argument);
  CHECK(code_of([&] {
          setenv("TMPDIR", "/no/such/directory", 1);
          const Listener listener;
        }) == std::errc::no_such_file_or_directory);
  unsetenv("TMPDIR");
}

TEST_CASE("a socket that a killed process has left behind is told about", "[listener]") {
  const private_path path;
  CHECK(support::run_child([&] {
          const Listener left{{.address = path.address()}};
          raise(SIGKILL);
          return 0;
        }) == -SIGKILL);
  CHECK(code_of([&] { static_cast<void>(Client({.address = path.address()})); }) ==
        std::errc::connection_refused);
  try {
    const Listener listener{{.address = path.address()}};
    FAIL("it listens");
  } catch (const ProcessError& error) {
    CHECK_THAT(error.what(), ContainsSubstring(path.address()) && ContainsSubstring("remove it"));
  }
}

TEST_CASE("addresses that cannot be connected to", "[listener]") {
  CHECK(code_of([] { static_cast<void>(Client({.address = "/no/such/socket"})); }) ==
        std::errc::no_such_file_or_directory);
  CHECK(code_of([] { static_cast<void>(Client({.address = abstract_address() + "none"})); }) ==
        std::errc::connection_refused);
  CHECK_THROWS_AS(Client({.address = ""}), std::invalid_argument);
  CHECK_THROWS_AS(Client({.address = std::string(200, 'x')}), std::invalid_argument);
}

// ---------------------------------------------------------------------------- Python

TEST_CASE("a Python Client and a Listener are connected", "[listener][python]") {
  support::need_python();
  Listener listener;
  support::python_program python(R"(
import sys
from multiprocessing.connection import Client
with Client(sys.argv[1]) as peer:
    peer.send_bytes(b'from python')
    assert peer.recv_bytes() == b'x' * 3000000
    peer.send_bytes(bytes(range(256)) * 20000)
    try:
        peer.recv_bytes()
        assert False
    except EOFError:
        pass
)",
                                 {listener.address()});
  Connection peer = listener.accept();
  CHECK(text_of(peer.recv_bytes()) == "from python");
  peer.send_bytes(std::string(3'000'000, 'x'));
  const auto bytes = peer.recv_bytes();
  REQUIRE(bytes.size() == 256 * 20'000);
  bool right = true;
  for (std::size_t i = 0; i < bytes.size(); ++i) right = right && bytes[i] == std::byte(i % 256);
  CHECK(right);
  peer.close();
  CHECK(python.exitcode() == 0);
}

TEST_CASE("a Client and a Python Listener are connected", "[listener][python]") {
  support::need_python();
  const private_path path;
  support::python_program python(R"(
import sys
from multiprocessing.connection import Listener
with Listener(sys.argv[1]) as listener:
    with listener.accept() as peer:
        assert peer.poll(60)
        assert peer.recv_bytes() == b'from C++'
        peer.send_bytes(b'from python')
        assert peer.recv_bytes() == b''
)",
                                 {path.address()});
  while (!std::filesystem::exists(path.address())) std::this_thread::sleep_for(5ms);
  std::this_thread::sleep_for(50ms);  // between bind and listen
  Connection peer = Client({.address = path.address()});
  peer.send_bytes(std::string("from C++"));
  CHECK(text_of(peer.recv_bytes()) == "from python");
  peer.send_bytes(std::string());
  CHECK(python.exitcode() == 0);
}

TEST_CASE("descriptors go to Python and come from it", "[listener][python]") {
  support::need_python();
  Listener listener;
  support::python_program python(R"(
import os, sys
from multiprocessing.connection import Client
from multiprocessing import reduction
with Client(sys.argv[1]) as peer:
    handle = reduction.recv_handle(peer)
    os.write(handle, b'written by python')
    os.close(handle)
    read, write = os.pipe()
    reduction.send_handle(peer, write, 0)
    os.close(write)
    assert os.read(read, 100) == b'written by C++'
)",
                                 {listener.address()});
  Connection peer = listener.accept();
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  peer.send_handle(ends[1]);
  close(ends[1]);
  char text[100] = {};
  CHECK(read(ends[0], text, sizeof text) == 17);
  CHECK(std::string(text) == "written by python");
  close(ends[0]);
  const int handle = peer.recv_handle();
  CHECK(write(handle, "written by C++", 14) == 14);
  close(handle);
  CHECK(python.exitcode() == 0);
}
