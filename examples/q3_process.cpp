// SPDX-License-Identifier: MIT
//
// Q3: create a process.
//
//     import multiprocessing
//
//     def worker_function():
//         print("Process is running!")
//
//     if __name__ == "__main__":
//         process = multiprocessing.Process(target=worker_function)
//         process.start()
//         process.join()

#include <fmt/core.h>

#include <procpool/procpool.hpp>

void worker_function() {
  fmt::print("Process is running!\n");
}

int main() {
  procpool::Process process{worker_function};
  process.start();
  process.join();
}
