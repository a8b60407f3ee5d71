// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <vector>

#include <procpool/procpool.hpp>

void print_number(int number) {
  fmt::print("Process ID: {}, Number: {}\n", procpool::current_process().pid(), number);
}

int main() {
  // creating 4 processes
  std::vector<procpool::Process> processes;

  for (int i = 1; i < 5; ++i) {
    auto& process = processes.emplace_back(print_number, i);
    process.start();
  }

  // waiting for all processes to finish
  for (auto& process : processes) process.join();
}
