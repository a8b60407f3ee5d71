// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <procpool/procpool.hpp>

void worker_function() {
  fmt::print("Process is running!\n");
}

int main() {
  procpool::Process process{worker_function};
  process.start();
  process.join();
}
