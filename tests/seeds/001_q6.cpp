// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <vector>

#include <procpool/procpool.hpp>

/// Function to print a number.
void print_number(int number) {
  fmt::print("Process ID: {}, Number: {}\n", procpool::current_process().pid(), number);
}

int main() {
  // define numbers to be printed
  const std::vector<int> numbers{1, 2, 3, 4};

  // create and start a process for each number
  std::vector<procpool::Process> processes;
  for (int num : numbers) {
    auto& process = processes.emplace_back(print_number, num);
    process.start();
  }

  // wait for all processes to finish
  for (auto& process : processes) process.join();

  fmt::print("All processes have finished.\n");
}
