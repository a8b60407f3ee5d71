// SPDX-License-Identifier: MIT
//
// A done callback gets the AsyncResult when it is ready, with a value or an error. Here each result
// decides which task is submitted next. (For the callbacks of Python's AsyncResult see
// callbacks.cpp.)
//
//     with concurrent.futures.ProcessPoolExecutor(2) as pool:
//         future = pool.submit(collatz, 27)
//         future.add_done_callback(show)

#include <fmt/format.h>

#include <exception>
#include <future>
#include <stdexcept>
#include <string>

#include <procpool/procpool.hpp>

long collatz(long number) {
  if (number < 1) throw std::domain_error(std::to_string(number) + " is not positive");
  return number % 2 == 0 ? number / 2 : 3 * number + 1;
}

// Called on a thread of the pool, or at once if the result is ready already.
void show(const procpool::AsyncResult<long>& done) {
  if (done.cancelled()) {
    fmt::print("cancelled\n");
  } else if (const std::exception_ptr error = done.exception()) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& what) {
      fmt::print("failed: {}\n", what.what());
    }
  } else {
    fmt::print("the next number is {}\n", done.get());
  }
}

struct walk {
  procpool::Pool<>& pool;
  std::promise<int> steps_to_1 = {};
  int steps = 0;

  void go_on(long number) {
    if (number == 1) return steps_to_1.set_value(steps);
    ++steps;
    pool.apply_async(collatz, number).add_done_callback([this](const auto& done) {
      go_on(done.get());
    });
  }
};

int main() {
  procpool::Pool pool{2};

  auto good = pool.apply_async(collatz, 27);
  good.wait();
  good.add_done_callback(show);  // ready: called at once

  std::promise<void> shown;
  pool.apply_async(collatz, -1).add_done_callback([&](const auto& done) {
    show(done);
    shown.set_value();
  });
  shown.get_future().wait();

  // A callback may submit the next task: no thread waits or is blocked.
  walk from_27{pool};
  from_27.go_on(27);
  fmt::print("from 27 to 1 in {} steps\n", from_27.steps_to_1.get_future().get());
  return 0;
}
