// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <vector>

#include <procpool/procpool.hpp>

void print_number(int number) {
  fmt::print("Process {} prints {}\n", number, number);
}

int main() {
  std::vector<procpool::Process> processes;

  for (int i = 1; i < 5; ++i) {
    auto& p = processes.emplace_back(print_number, i);
    p.start();
  }

  for (auto& p : processes) p.join();

  fmt::print("All processes completed.\n");
}
