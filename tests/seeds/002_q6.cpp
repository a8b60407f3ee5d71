// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

/// Function to print a given number
void print_number(int n) {
  fmt::print("Process {} - Number: {}\n", procpool::current_process().name(), n);
}

int main() {
  const std::array numbers{10, 20, 30, 40};  // numbers to print
  std::vector<procpool::Process> processes;

  // creating 4 processes
  for (std::size_t i = 0; i < 4; ++i) {
    procpool::Process p{{.name = fmt::format("Process-{}", i + 1)}, print_number, numbers[i]};
    p.start();
    processes.push_back(std::move(p));
  }

  // waiting for all processes to complete
  for (auto& p : processes) p.join();

  fmt::print("Main process finished.\n");
}
