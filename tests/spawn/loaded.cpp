// SPDX-License-Identifier: MIT
// To be loaded while the program runs.

extern "C" long loaded_double(long x);

long loaded_double(long x) {
  return 2 * x;
}
