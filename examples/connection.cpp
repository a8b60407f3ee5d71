// SPDX-License-Identifier: MIT
//
// Messages between processes: a Pipe to a child, wait() for several at once, a Listener for
// programs that are not related, and a Connection that is sent through another one.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

struct Order {
  std::string item;
  std::optional<int> count;
};

// A task that answers orders until its peer closes.
void serve(procpool::Connection orders) {
  while (true) {
    try {
      const Order order = orders.recv<Order>();
      orders.send(fmt::format("{} x {}", order.count.value_or(1), order.item));
    } catch (const procpool::EOFError&) {
      return;
    }
  }
}

void count_to(procpool::Connection out, int last) {
  for (int i = 1; i <= last; ++i) out.send(i);
}

int main() {
  // Before any Pipe: a forked process has copies of all ends that there are, and while there is a
  // copy an end is open.
  procpool::Pool pool{3};

  // Two ends. The worker gets a copy of `theirs`; this process closes its own, and then only the
  // worker holds it.
  auto [ours, theirs] = procpool::Pipe();
  auto served = pool.apply_async(serve, theirs);
  theirs.close();
  ours.send(Order{"bolts", 20});
  fmt::print("{}\n", ours.recv<std::string>());
  ours.send(Order{"hammer", {}});
  fmt::print("{}\n", ours.recv<std::string>());
  ours.close();
  served.get();

  // Several peers at once. A Connection stays ready when its peer is gone: recv() says so.
  std::vector<procpool::Connection> readers;
  std::vector<procpool::AsyncResult<void>> writing;
  for (int last : {3, 4}) {
    auto [reader, writer] = procpool::Pipe({.duplex = false});
    writing.push_back(pool.apply_async(count_to, writer, last));
    readers.push_back(reader);
  }
  for (auto& each : writing) each.get();
  writing.clear();
  int sum = 0;
  while (!readers.empty()) {
    for (procpool::Connection& ready : procpool::wait(readers, 10s)) {
      try {
        sum += ready.recv<int>();
      } catch (const procpool::EOFError&) {
        std::erase(readers, ready);
      }
    }
  }
  fmt::print("the sum of all: {}\n", sum);

  // Programs that are not related meet at an address: a path, or as here one that the Listener
  // makes.
  procpool::Listener listener;
  auto client = pool.apply_async(
      [](const std::string& address) {
        procpool::Connection server = procpool::Client({.address = address});
        auto [mine, yours] = procpool::Pipe();
        server.send(yours);  // the descriptor travels along
        mine.send(std::string("through a Connection that came through a Connection"));
      },
      listener.address());
  procpool::Connection peer = listener.accept();
  fmt::print("{}\n", peer.recv<procpool::Connection>().recv<std::string>());
  client.get();

  try {
    ours.send(1);
  } catch (const std::logic_error& error) {
    fmt::print("{}\n", error.what());
  }
}
