// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <procpool/procpool.hpp>

void print_number(int number) {
  fmt::print("Process ID: {}, Number: {}\n", procpool::current_process().pid(), number);
}

int main() {
  // creating a process
  procpool::Process process{print_number, 42};

  // starting the process
  process.start();

  // waiting for the process to finish
  process.join();
}
