// SPDX-License-Identifier: MIT
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/authentication.hpp>
#include <procpool/procpool.hpp>

#include "support/python.hpp"

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using procpool::AuthenticationError;
using procpool::Client;
using procpool::Connection;
using procpool::Listener;
namespace detail = procpool::detail;

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string bytes_of_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

std::string mac(detail::digest kind, std::string_view key, std::string_view message) {
  return text_of(detail::openssl_mac(kind, key, std::as_bytes(std::span(message))));
}

/// What becomes of a call: the text of its AuthenticationError, or nothing.
template <class Call>
std::string refused(Call call) {
  try {
    call();
  } catch (const AuthenticationError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a Client with the Listener's key is accepted", "[authentication]") {
  Listener listener{{.authkey = "secret key"}};
  std::thread client([&listener] {
    const std::string key = "secret key";
    Connection peer = Client({.address = listener.address(), .authkey = key});
    peer.send(1);
  });
  Connection peer = listener.accept();
  CHECK(peer.recv<int>() == 1);
  client.join();
}

TEST_CASE("a Client with another key, or none, is refused, and the next one accepted",
          "[authentication]") {
  Listener listener{{.authkey = std::string("right")}};
  std::thread client([&listener] {
    if (refused([&] {
          static_cast<void>(Client({.address = listener.address(), .authkey = "wrong"}));
        }).empty())
      std::terminate();
    { Connection none = Client({.address = listener.address()}); }
    {
      Connection talks = Client({.address = listener.address()});
      talks.send(std::vector<int>(1000));
      static_cast<void>(talks.recv_bytes());
    }
    Connection peer = Client({.address = listener.address(), .authkey = "right"});
    peer.send(1);
  });
  CHECK_THAT(refused([&] { listener.accept(); }), ContainsSubstring("another key"));
  CHECK_THAT(refused([&] { listener.accept(); }), ContainsSubstring("closed the connection"));
  CHECK_THAT(refused([&] { listener.accept(); }), ContainsSubstring("protocol"));
  CHECK(listener.accept().recv<int>() == 1);
  client.join();
}

TEST_CASE("a Listener with another key, or none, is refused by the Client", "[authentication]") {
  Listener listener{{.authkey = "one"}};
  std::thread server([&listener] {
    if (refused([&] { listener.accept(); }).empty()) std::terminate();
  });
  CHECK_THAT(refused([&] {
               static_cast<void>(Client({.address = listener.address(), .authkey = "other"}));
             }),
             ContainsSubstring("another key"));
  server.join();
  Listener open;
  std::thread talking([&open] {
    open.accept().send("no challenge");
    open.accept().close();
  });
  const auto connect = [&] {
    static_cast<void>(Client({.address = open.address(), .authkey = "key"}));
  };
  CHECK_THAT(refused(connect), ContainsSubstring("no challenge"));
  CHECK_THAT(refused(connect), ContainsSubstring("closed the connection"));
  talking.join();
}

TEST_CASE("a key is not empty", "[authentication]") {
  CHECK_THROWS_AS((Listener{{.authkey = ""}}), std::invalid_argument);
  CHECK_THROWS_AS(Client({.address = "x", .authkey = std::string()}), std::invalid_argument);
}

TEST_CASE("the MACs are those of Python's hmac", "[authentication]") {
  using detail::digest;
  const std::string message = "{sha256}message";
  CHECK(mac(digest::md5, "key", message) == bytes_of_hex("a1641ce6f4a4835c2299156e81d41535"));
  CHECK(mac(digest::sha256, "key", message) ==
        bytes_of_hex("ee468978d427e055fd539f53280d87b00178656cbcd3fcc60ed5f8966a50c0c7"));
  CHECK(mac(digest::sha384, "key", message) ==
        bytes_of_hex("0b8797ae37098d449b410c9001a619eb9c6ac6a49e6486a0640a6c93c45669f98d10da536c529"
                     "bc96592e7bcc0a60ebf"));
  CHECK(mac(digest::sha3_256, "key", message) ==
        bytes_of_hex("7b1cd318bfff474419b4223e9043c6a3a88477a88c7643ef8eefd371e2516fa2"));
  CHECK(mac(digest::sha3_384, "key", message) ==
        bytes_of_hex("a34a01abf8306a2e6c2e9156754b04e03a7f7c87430074ac68d36874d8830703994288211a6b4"
                     "19bbbfa66ffbffb3b7a"));
}

// The bytes of Python 3.12's answer_challenge and deliver_challenge for the key b"secret key".
TEST_CASE("challenges of Python 3.12 are answered as Python 3.12 does", "[authentication]") {
  const std::string random = bytes_of_hex(
      "3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60616263");
  const auto answered = [&](const std::string& challenge, bool md5) {
    auto [ours, theirs] = procpool::Pipe();
    theirs.send_bytes("#CHALLENGE#" + challenge);
    theirs.send_bytes(std::string("#WELCOME#"));
    detail::connection_state state(detail::os::fd(dup(ours.fileno())), true, true);
    detail::answer_challenge(state, {"secret key", &detail::openssl_mac, md5});
    return text_of(theirs.recv_bytes());
  };
  CHECK(answered("{sha256}" + random, false) ==
        "{sha256}" +
            bytes_of_hex("9c9711985e6e8d307b0fbd728ed95da125bccb3ae95f9d276f2b7457745bf410"));
  CHECK(answered("{sha384}" + random, false) ==
        "{sha384}" + bytes_of_hex("7ca39bb44dabcc00f0864b1b9916e4e21009e96ee955d7245d2a9b5bb7df0aaa"
                                  "d929bd2e88db8d8586a2db69b1c52fd2"));
  CHECK(answered("{sha3_256}" + random, false) ==
        "{sha3_256}" +
            bytes_of_hex("21fe129c99e423f81c13385fc23ef7872c4c088b02868590a9d96890e62bdc10"));
  CHECK(answered("{md5}" + random, true) ==
        "{md5}" + bytes_of_hex("9620f657c46aab5cf1a0946553864fa0"));
  CHECK(answered(random.substr(0, 20), true) ==
        bytes_of_hex("4a82f7d71fac057c144875175bc1d8cb"));  // of Python 3.11
  CHECK_THAT(refused([&] { answered("{md5}" + random, false); }), ContainsSubstring("allow_md5"));
  CHECK_THAT(refused([&] { answered(random.substr(0, 20), false); }),
             ContainsSubstring("allow_md5"));
  CHECK_THAT(refused([&] { answered("{sha1}" + random, true); }), ContainsSubstring("no digest"));
  CHECK_THAT(refused([&] { answered("short", true); }), ContainsSubstring("no challenge"));
  CHECK_THAT(refused([&] { answered(random + std::string(300, 'x'), true); }),
             ContainsSubstring("protocol"));
}

TEST_CASE("answers of any Python are checked", "[authentication]") {
  const auto verdict = [&](detail::digest kind, const std::string& prefix, bool md5) {
    auto [ours, theirs] = procpool::Pipe();
    std::thread peer([&, end = theirs]() mutable {
      const std::string challenge = text_of(end.recv_bytes()).substr(11);
      end.send_bytes(prefix + mac(kind, "secret key", challenge));
    });
    detail::connection_state state(detail::os::fd(dup(ours.fileno())), true, true);
    const std::string error = refused([&] {
      detail::deliver_challenge(state, {"secret key", &detail::openssl_mac, md5});
    });
    peer.join();
    CHECK(text_of(theirs.recv_bytes()) == (error.empty() ? "#WELCOME#" : "#FAILURE#"));
    return error;
  };
  using detail::digest;
  CHECK(verdict(digest::sha256, "{sha256}", false).empty());
  CHECK(verdict(digest::sha384, "{sha384}", false).empty());
  CHECK(verdict(digest::sha3_256, "{sha3_256}", false).empty());
  CHECK(verdict(digest::md5, "", true).empty());
  CHECK(verdict(digest::md5, "{md5}", true).empty());
  CHECK_THAT(verdict(digest::md5, "", false), ContainsSubstring("allow_md5"));
  CHECK_THAT(verdict(digest::sha384, "{sha256}", false), ContainsSubstring("another key"));
  CHECK_THAT(verdict(digest::sha256, "", false), ContainsSubstring("no digest"));
}

// ---------------------------------------------------------------------------- Python

namespace {

/// Whether the python3 here has the handshake of 3.12, with SHA-256.
bool python_has_sha256() {
  return support::run_program({"python3", "-c", "import sys; sys.exit(sys.version_info < (3, 12))"})
             .exitcode == 0;
}

constexpr const char* python_client = R"(
import sys
from multiprocessing.connection import Client
with Client(sys.argv[1], authkey=b'secret key') as peer:
    peer.send_bytes(b'authenticated')
)";

constexpr const char* python_server = R"(
import sys
from multiprocessing.connection import Listener
with Listener(sys.argv[1], authkey=b'secret key') as listener:
    open(sys.argv[1] + '.ready', 'w').close()
    with listener.accept() as peer:
        peer.send_bytes(b'authenticated')
        peer.recv_bytes()
)";

}  // namespace

TEST_CASE("a Python Client proves that it has the key", "[authentication][python]") {
  support::need_python();
  Listener listener{{.authkey = "secret key", .allow_md5 = !python_has_sha256()}};
  support::python_program python(python_client, {listener.address()});
  CHECK(text_of(listener.accept().recv_bytes()) == "authenticated");
  CHECK(python.exitcode() == 0);
}

TEST_CASE("a Python Client with another key is refused", "[authentication][python]") {
  support::need_python();
  Listener listener{{.authkey = "other key", .allow_md5 = true}};
  support::python_program python(R"(
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
try:
    Client(sys.argv[1], authkey=b'secret key')
    assert False
except AuthenticationError:
    pass
)",
                                 {listener.address()});
  CHECK_THAT(refused([&] { listener.accept(); }), ContainsSubstring("another key"));
  CHECK(python.exitcode() == 0);
}

TEST_CASE("a Python Client of before 3.12 is refused unless MD5 is allowed",
          "[authentication][python]") {
  support::need_python();
  if (python_has_sha256()) SKIP("this python3 does not use MD5");
  Listener listener{{.authkey = "secret key"}};
  support::python_program python(R"(
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
try:
    Client(sys.argv[1], authkey=b'secret key')
    assert False
except AuthenticationError:
    pass
)",
                                 {listener.address()});
  CHECK_THAT(refused([&] { listener.accept(); }), ContainsSubstring("allow_md5"));
  CHECK(python.exitcode() == 0);
}

TEST_CASE("a Client proves to a Python Listener that it has the key", "[authentication][python]") {
  support::need_python();
  char name[] = "/tmp/procpool-test-XXXXXX";
  REQUIRE(mkdtemp(name) != nullptr);
  const std::string directory = name;
  const std::string address = directory + "/socket";
  {
    support::python_program python(python_server, {address});
    while (!std::filesystem::exists(address + ".ready")) std::this_thread::sleep_for(5ms);
    Connection peer =
        Client({.address = address, .authkey = "secret key", .allow_md5 = !python_has_sha256()});
    CHECK(text_of(peer.recv_bytes()) == "authenticated");
    peer.send_bytes(std::string());
    CHECK(python.exitcode() == 0);
  }
  std::filesystem::remove_all(directory);
}
