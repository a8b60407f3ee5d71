// SPDX-License-Identifier: MIT
// Processes are killed while they send, receive, pass descriptors and prove that they have a key:
// whoever is left gets whole messages, and then an error; never nothing at all.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"

using procpool::BrokenPipeError;
using procpool::Connection;
using procpool::EOFError;

namespace {

constexpr int kills = 2000;

/// A message that says itself whether it is whole.
struct Parcel {
  std::uint64_t number = 0;
  std::vector<std::uint32_t> content;
  std::string tail;
};

Parcel parcel(std::uint64_t number, std::size_t size) {
  Parcel made{number, std::vector<std::uint32_t>(size), "end of " + std::to_string(number)};
  std::iota(made.content.begin(), made.content.end(), static_cast<std::uint32_t>(number));
  return made;
}

bool is_whole(const Parcel& got, std::uint64_t number) {
  const Parcel expected = parcel(number, got.content.size());
  return got.number == number && got.content == expected.content && got.tail == expected.tail;
}

std::size_t size_of(std::uint64_t number) {
  return number % 7 == 0 ? 20'000 : number % 3 * 40;
}

/// A child that is killed at a random moment of its first two milliseconds.
class shot {
 public:
  template <class Body>
  shot(std::mt19937& random, Body body) {
    pid_ = support::start_child([&] {
      body();
      return 0;
    });
    killer_ = std::thread([this, after = std::chrono::microseconds(random() % 2000)] {
      std::this_thread::sleep_for(after);
      kill(pid_, SIGKILL);
    });
  }
  shot(const shot&) = delete;
  shot& operator=(const shot&) = delete;
  ~shot() {
    killer_.join();
    static_cast<void>(support::wait_child(pid_));
  }

 private:
  pid_t pid_ = 0;
  std::thread killer_;
};

}  // namespace

TEST_CASE("a sender that is killed leaves whole messages and an end", "[fault][connection]") {
  std::mt19937 random(1);
  std::size_t messages = 0;
  int halves = 0;
  for (int i = 0; i < kills; ++i) {
    auto [ours, theirs] = procpool::Pipe();
    const shot sender(random, [&ours = ours, &theirs = theirs] {
      ours.close();
      for (std::uint64_t n = 0;; ++n) theirs.send(parcel(n, size_of(n)));
    });
    theirs.close();
    try {
      for (std::uint64_t n = 0;; ++n, ++messages) {
        if (!is_whole(ours.recv<Parcel>(), n)) FAIL("a message that is not whole");
      }
    } catch (const EOFError& error) {
      halves += std::string(error.what()).find("middle") != std::string::npos ? 1 : 0;
    }
  }
  std::printf("%d senders killed, %d in the middle of a message, %zu messages received\n", kills,
              halves, messages);
  CHECK(messages > 0);
}

TEST_CASE("a receiver that is killed ends its sender's calls", "[fault][connection]") {
  std::mt19937 random(2);
  std::uint64_t sent = 0;
  for (int i = 0; i < kills; ++i) {
    auto [ours, theirs] = procpool::Pipe();
    const shot receiver(random, [&ours = ours, &theirs = theirs] {
      ours.close();
      for (std::uint64_t n = 0;; ++n) static_cast<void>(theirs.recv<Parcel>());
    });
    theirs.close();
    try {
      for (std::uint64_t n = 0;; ++n, ++sent) ours.send(parcel(n, size_of(n)));
    } catch (const BrokenPipeError&) {
    }
  }
  std::printf("%d receivers killed, %ju messages sent\n", kills, static_cast<std::uintmax_t>(sent));
}

TEST_CASE("a process that passes Connections and is killed leaves whole ones",
          "[fault][connection]") {
  std::mt19937 random(3);
  std::size_t passed = 0;
  for (int i = 0; i < kills / 4; ++i) {
    auto [ours, theirs] = procpool::Pipe();
    auto [told, tell] = procpool::Pipe();
    const shot sender(random, [&ours = ours, &theirs = theirs, &tell = tell] {
      ours.close();
      while (true) theirs.send(std::vector<Connection>{tell, tell});
    });
    theirs.close();
    try {
      while (true) {
        auto got = ours.recv<std::vector<Connection>>();
        got.at(1).send(1);
        if (told.recv<int>() != 1) FAIL("not the same Connection");
        ++passed;
      }
    } catch (const EOFError&) {
    }
  }
  std::printf("%d passers killed, %zu messages with Connections received\n", kills / 4, passed);
  CHECK(passed > 0);
}

TEST_CASE("clients that are killed do not disturb a Listener", "[fault][connection]") {
  std::mt19937 random(4);
  procpool::Listener listener{{.backlog = 8}};
  int heard = 0;
  int lost = 0;
  for (int i = 0; i < kills / 4; ++i) {
    {
      const shot client(random, [&] {
        while (true) {
          Connection server = procpool::Client({.address = listener.address()});
          server.send(parcel(1, 50));
          static_cast<void>(server.poll(std::chrono::seconds(10)));
        }
      });
    }
    while (!procpool::wait({listener}, std::chrono::seconds(0)).empty()) {
      Connection peer = listener.accept();
      try {
        if (!is_whole(peer.recv<Parcel>(), 1)) FAIL("a message that is not whole");
        ++heard;
      } catch (const EOFError&) {
        ++lost;
      }
    }
  }
  std::printf("%d clients killed, %d heard, %d lost before they spoke\n", kills / 4, heard, lost);
}
