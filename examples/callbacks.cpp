// SPDX-License-Identifier: MIT
//
// Callbacks run in the parent, on a thread of the pool, when a result has arrived and before it
// becomes ready.
//
//     with multiprocessing.Pool(2) as pool:
//         pool.apply_async(half, (8,), callback=print, error_callback=print).wait()
//         pool.apply_async(half, (7,), callback=print, error_callback=print).wait()
//         pool.map_async(half, [2, 4, 6], callback=print).wait()

#include <fmt/ranges.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

long half(long x) {
  if (x % 2 != 0) throw std::domain_error(std::to_string(x) + " is odd");
  return x / 2;
}

void print_value(long& value) {
  fmt::print("half is {}\n", value);
}

void print_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    fmt::print("failed: {}\n", e.what());
  }
}

int main() {
  procpool::Pool pool{2};
  pool.apply_async({.callback = print_value, .error_callback = print_error}, half, 8).wait();
  pool.apply_async({.callback = print_value, .error_callback = print_error}, half, 7).wait();

  // map_async calls its callback once, with all results.
  pool.map_async(half, std::vector<long>{2, 4, 6},
                 {.callback = [](std::vector<long>& all) { fmt::print("halves are {}\n", all); }})
      .wait();
}
