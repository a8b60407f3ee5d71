// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <vector>

#include <procpool/procpool.hpp>

void print_number(int number) {
  fmt::print("Process ID: {} - Number: {}\n", procpool::current_process().pid(), number);
}

int main() {
  const std::vector<int> numbers{10, 20, 30, 40};  // numbers to print
  std::vector<procpool::Process> processes;

  // create and start processes
  for (int number : numbers) {
    auto& process = processes.emplace_back(print_number, number);
    process.start();
  }

  // wait for all processes to complete
  for (auto& process : processes) process.join();

  fmt::print("All processes completed!\n");
}
