// SPDX-License-Identifier: MIT
#include <fmt/ranges.h>

#include <vector>

#include <procpool/procpool.hpp>

/// Function to be executed by worker processes.
long worker_function(long argument) {
  const long result = argument * argument;
  return result;
}

int main() {
  std::vector<long> results;
  {
    // create a Pool of worker processes; adjust the number of processes as needed
    procpool::Pool pool{{.processes = 4}};

    // define a list of input values
    const std::vector<long> inputs{1, 2, 3, 4, 5};

    // apply the worker function to each input value using the Pool
    results = pool.map(worker_function, inputs);
  }

  // print the results
  fmt::print("Results: {}\n", results);
}
