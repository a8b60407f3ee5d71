// SPDX-License-Identifier: MIT
// With "abc" for abc this does not compile: see tests/compile_fail/seed_q3_string_target.cpp.
#include <fmt/core.h>

#include <procpool/procpool.hpp>

void abc(int i) {
  fmt::print("Process {}\n", i);
}

int main() {
  const int i = 1;
  procpool::Process m{abc, i};
  m.start();
  m.join();
}
