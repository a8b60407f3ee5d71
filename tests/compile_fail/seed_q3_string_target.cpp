// expect: cannot be called
// SPDX-License-Identifier: MIT
// One of the seed programs gives Process a string as target. Python finds out in the child, when
// it calls the string; here the compiler says so.
#include <procpool/procpool.hpp>

void abc(int) {}

int main() {
  const int i = 1;
#ifdef PROCPOOL_CONTROL
  procpool::Process m{abc, i};
#else
  procpool::Process m{"abc", i};
#endif
  m.start();
  m.join();
}
