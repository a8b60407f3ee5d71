// SPDX-License-Identifier: MIT
//
// Memory with a name: the workers of a pool write into it, and another program could open it.
//
//     memory = SharedMemory(name="procpool_rows", create=True, size=rows * width)
//     pool.map(fill_row, [(memory, row) for row in range(rows)])
//     settings = ShareableList([3, 0.5, "fast"])

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

constexpr std::size_t width = 1000;

/// A task: writes one row in place.
void fill_row(procpool::SharedMemory memory, std::size_t row) {
  for (std::byte& each : memory.buf().subspan(row * width, width))
    each = static_cast<std::byte>(row);
}

/// A task: reads a list and changes it.
double speed_of(procpool::ShareableList settings) {
  settings.set(2, std::string("done"));
  return static_cast<double>(settings.get<long>(0)) * settings.get<double>(1);
}

int main() {
  constexpr std::size_t rows = 8;
  procpool::Pool pool{2};

  procpool::SharedMemory memory{{.create = true, .size = rows * width}};
  std::vector<std::pair<procpool::SharedMemory, std::size_t>> work;
  for (std::size_t row = 0; row < rows; ++row) work.emplace_back(memory, row);
  pool.starmap(fill_row, work);

  std::uint64_t sum = 0;
  for (std::byte each : memory.buf()) sum += std::to_integer<std::uint64_t>(each);
  fmt::print("sum of all bytes: {}\n", sum);
  memory.unlink();  // without it the memory would outlive the program

  procpool::ShareableList settings{{3, 0.5, "fast"}};
  fmt::print("speed: {}\n", pool.apply(speed_of, settings));
  fmt::print("state: {}\n", settings.get<std::string>(2));
  settings.shm().unlink();

  try {
    procpool::SharedMemory lost{{.name = settings.shm().name()}};
  } catch (const procpool::ProcessError& error) {
    fmt::print("{}\n", error.what());
  }
}
