// SPDX-License-Identifier: MIT
/// @file
/// What a message to another process and back costs: through a Connection, and by the system calls
/// of the same framing on a bare pair of sockets.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <procpool/connection.hpp>

#include "bench.hpp"

namespace {

constexpr std::size_t largest = 64 << 10;

/// Python's framing as one would write it by hand: one call to send, two to receive.
class bare_end {
 public:
  explicit bare_end(int number) : number_(number) {}

  void send(std::size_t size) {
    const std::uint32_t head = htonl(static_cast<std::uint32_t>(size));
    std::memcpy(buffer_.data(), &head, sizeof head);
    write_all(sizeof head + size);
  }
  std::size_t receive() {
    std::uint32_t head = 0;
    read_all(&head, sizeof head);
    const std::size_t size = ntohl(head);
    read_all(buffer_.data() + sizeof head, size);
    return size;
  }

 private:
  void write_all(std::size_t size) {
    for (std::size_t there = 0; there < size;) {
      const auto sent = ::send(number_, buffer_.data() + there, size - there, MSG_NOSIGNAL);
      bench::require(sent > 0, "send");
      there += static_cast<std::size_t>(sent);
    }
  }
  void read_all(void* to, std::size_t size) {
    for (std::size_t there = 0; there < size;) {
      const auto got = read(number_, static_cast<char*>(to) + there, size - there);
      if (got == 0) _exit(0);
      bench::require(got > 0, "read");
      there += static_cast<std::size_t>(got);
    }
  }

  int number_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(largest + 4);
};

class library_end {
 public:
  explicit library_end(int number) : connection_(number) {}

  void send(std::size_t size) { connection_.send_bytes(std::span(buffer_).first(size)); }
  std::size_t receive() {
    try {
      return connection_.recv_bytes_into(buffer_);
    } catch (const procpool::EOFError&) {
      _exit(0);
    }
  }

 private:
  procpool::Connection connection_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(largest);
};

/// The same, as values of a type: encoded and decoded.
class typed_end {
 public:
  explicit typed_end(int number) : connection_(number) {}

  void send(std::size_t size) { connection_.send(std::span<const std::byte>(buffer_).first(size)); }
  std::size_t receive() {
    try {
      return connection_.recv<std::vector<std::byte>>().size();
    } catch (const procpool::EOFError&) {
      _exit(0);
    }
  }

 private:
  procpool::Connection connection_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(largest);
};

/// A pair of ends, the other one in a process that sends everything back.
template <class End>
class echoed {
 public:
  echoed() {
    std::array<int, 2> ends{};
    bench::require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "pair");
    child_ = fork();
    bench::require(child_ >= 0, "fork");
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(ends[0]);
      End other(ends[1]);
      while (true) other.send(other.receive());
    }
    close(ends[1]);
    number_ = ends[0];
    end_ = new End(ends[0]);
  }
  echoed(const echoed&) = delete;
  echoed& operator=(const echoed&) = delete;
  ~echoed() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    delete end_;
  }

  double round_trip(std::size_t size, int times) {
    return bench::nanoseconds([&] {
             for (int i = 0; i < times; ++i) {
               end_->send(size);
               bench::require(end_->receive() == size, "echo");
             }
           }) /
           times;
  }

 private:
  pid_t child_ = 0;
  int number_ = -1;
  End* end_ = nullptr;
};

/// In turns, so that all have the same machine.
template <std::size_t Size>
void round_trips() {
  echoed<bare_end> bare;
  echoed<library_end> library;
  echoed<typed_end> typed;
  std::array<std::vector<double>, 3> costs;
  const int turns = bench::scaled(60, 6);
  for (int i = 0; i < turns; ++i) {
    costs[0].push_back(bare.round_trip(Size, 500));
    costs[1].push_back(library.round_trip(Size, 500));
    costs[2].push_back(typed.round_trip(Size, 500));
  }
  const std::string measure = "connection_" + std::to_string(Size);
  bench::report(measure.c_str(), "socketpair", bench::median(costs[0]), "ns");
  bench::report(measure.c_str(), "procpool bytes", bench::median(costs[1]), "ns");
  bench::report(measure.c_str(), "procpool", bench::median(costs[2]), "ns");
  std::vector<double> ratios;
  for (std::size_t i = 0; i < costs[0].size(); ++i) ratios.push_back(costs[1][i] / costs[0][i]);
  bench::report(measure.c_str(), "bytes / socketpair", bench::median(ratios), "ratio");
}

}  // namespace

BENCH_MAIN({"connection_8", round_trips<8>}, {"connection_1024", round_trips<1024>},
           {"connection_65536", round_trips<65'536>})
