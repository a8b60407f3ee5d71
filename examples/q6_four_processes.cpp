// SPDX-License-Identifier: MIT
//
// Q6: create 4 processes, each of which prints a different number.
//
//     import multiprocessing
//
//     def print_number(number):
//         print(f"Process ID: {multiprocessing.current_process().pid} - Number: {number}")
//
//     if __name__ == "__main__":
//         numbers = [10, 20, 30, 40]
//         processes = []
//
//         for number in numbers:
//             process = multiprocessing.Process(target=print_number, args=(number,))
//             processes.append(process)
//             process.start()
//
//         for process in processes:
//             process.join()
//
//         print("All processes completed!")

#include <fmt/core.h>

#include <vector>

#include <procpool/procpool.hpp>

void print_number(int number) {
  fmt::print("Process ID: {} - Number: {}\n", procpool::current_process().pid(), number);
}

int main() {
  const std::vector<int> numbers{10, 20, 30, 40};
  std::vector<procpool::Process> processes;

  for (int number : numbers) {
    auto& process = processes.emplace_back(print_number, number);
    process.start();
  }

  for (auto& process : processes) process.join();

  fmt::print("All processes completed!\n");
}
