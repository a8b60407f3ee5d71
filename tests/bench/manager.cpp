// SPDX-License-Identifier: MIT
/// @file
/// A call of an object in a manager's process, and what two bare processes need for the same two
/// messages.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

/// Bytes of the messages of a call that adds to a number.
constexpr std::size_t request_size = 64;
constexpr std::size_t reply_size = 32;

/// A process that answers each message.
class bare_server {
 public:
  bare_server() {
    bench::require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()) == 0, "socketpair");
    child_ = fork();
    if (child_ == 0) {
      close(ends_[0]);
      std::array<char, request_size> bytes{};
      while (read(ends_[1], bytes.data(), bytes.size()) > 0) {
        bench::require(write(ends_[1], bytes.data(), reply_size) == reply_size, "write");
      }
      _exit(0);
    }
    close(ends_[1]);
  }
  bare_server(const bare_server&) = delete;
  bare_server& operator=(const bare_server&) = delete;
  ~bare_server() {
    close(ends_[0]);
    waitpid(child_, nullptr, 0);
  }

  void call() const {
    std::array<char, request_size> bytes{};
    bench::require(write(ends_[0], bytes.data(), bytes.size()) == request_size, "write");
    bench::require(read(ends_[0], bytes.data(), bytes.size()) == reply_size, "read");
  }

 private:
  std::array<int, 2> ends_{};
  pid_t child_ = -1;
};

// Both in turn, so that a busy machine slows down both.
void manager_call() {
  const procpool::Manager manager;
  const auto number = manager.make<long>(0L);
  const bare_server bare;
  const int calls = bench::scaled(5000, 100);
  std::vector<double> of_manager;
  std::vector<double> of_bare;
  for (int round = 0; round < bench::scaled(21, 3); ++round) {
    of_bare.push_back(bench::nanoseconds([&] {
                        for (int i = 0; i < calls; ++i) bare.call();
                      }) /
                      calls / 1000);
    of_manager.push_back(bench::nanoseconds([&] {
                           for (int i = 0; i < calls; ++i) {
                             number.call([](long& x, long by) { return x += by; }, 1L);
                           }
                         }) /
                         calls / 1000);
  }
  bench::report("manager_call", "two processes", bench::median(of_bare), "us");
  bench::report("manager_call", "procpool", bench::median(of_manager), "us");
}

}  // namespace

BENCH_MAIN({"manager_call", manager_call})
