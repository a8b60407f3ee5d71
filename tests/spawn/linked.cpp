// SPDX-License-Identifier: MIT
#include "linked.hpp"

#ifdef ANOTHER_BUILD
// In front of it, so that the function is elsewhere and the code has another size.
long linked_wrong(long x);
long linked_wrong(long x) {
  volatile long sum = 0;
  for (long i = 0; i < x; ++i) sum = sum + i * 77;
  return sum;
}
#endif

long linked_cube(long x) {
  return x * x * x;
}
