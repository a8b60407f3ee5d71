// SPDX-License-Identifier: MIT
// The program of Q5, as a user writes it.
#include <fmt/ranges.h>

#include <procpool/procpool.hpp>
#include <vector>

#ifdef TWO_UNITS
void print_doubles();
#endif

namespace {

long square(long x) {
  return x * x;
}

}  // namespace

int main() {  // NOLINT(bugprone-exception-escape): as in any program, what fails ends it
  {
    procpool::Pool pool{4};
    const std::vector<long> numbers{1, 2, 3, 4, 5};
    fmt::print("Squares: {}\n", pool.map(square, numbers));
  }
#ifdef TWO_UNITS
  print_doubles();
#endif
}
