// SPDX-License-Identifier: MIT
// Takes part in spawning, but is not the program that the tests are in.
#include <procpool/procpool.hpp>

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
}
