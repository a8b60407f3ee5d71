// SPDX-License-Identifier: MIT
#include <fmt/core.h>
#include <unistd.h>

#include <procpool/procpool.hpp>

/// Function to be executed by the child process.
void worker() {
  const auto process_id = getpid();
  fmt::print("Worker process ID: {}\n", process_id);
}

int main() {
  // create a Process object
  procpool::Process process{worker};

  // start the process
  process.start();

  // wait for the process to finish
  process.join();

  fmt::print("Main process is done.\n");
}
