// SPDX-License-Identifier: MIT
//
// A Python program and a C++ program talk to each other: this one listens, starts python3 with a
// few lines that connect, and exchanges plain values with it.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/wait.h>

#include <map>
#include <string>
#include <vector>

#include <procpool/pickle.hpp>
#include <procpool/procpool.hpp>

constexpr const char* program = R"(
import sys
from multiprocessing.connection import Client
with Client(sys.argv[1]) as peer:
    words = peer.recv()                              # a list of str
    peer.send({word: len(word) for word in words})   # a dict
    print('python got', words, flush=True)
)";

int main() {
  procpool::Listener listener;

  std::string text = program;
  std::string address = listener.address();
  std::string python = "python3";
  std::string option = "-c";
  char* words[] = {python.data(), option.data(), text.data(), address.data(), nullptr};
  pid_t pid = 0;
  if (posix_spawnp(&pid, words[0], nullptr, nullptr, words, environ) != 0) {
    fmt::print("there is no python3 here\n");
    return 0;
  }

  procpool::Connection peer = listener.accept();
  peer.send_pickle(std::vector<std::string>{"pipe", "connection"});
  const auto lengths = peer.recv_pickle<std::map<std::string, int>>();
  waitpid(pid, nullptr, 0);
  fmt::print("C++ got {}\n", lengths);
}
