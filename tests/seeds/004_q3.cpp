// SPDX-License-Identifier: MIT
#include <fmt/core.h>

#include <procpool/procpool.hpp>

void my_process() {
  fmt::print("This is a child process.\n");
}

int main() {
  procpool::Process p{my_process};
  p.start();
  p.join();
  fmt::print("Parent process completed.\n");
}
