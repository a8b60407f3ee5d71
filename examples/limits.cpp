// SPDX-License-Identifier: MIT
//
// Code that hangs, crashes now and then, or eats memory: limits end it, retries try it again, and
// map_outcomes tells what became of every item.

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

/// Stands for a converter that hangs on some files, crashes on others, and at times for no reason.
std::string convert(std::string file) {
  if (file == "endless") std::this_thread::sleep_for(1h);
  if (file == "broken") std::abort();
  if (file == "flaky" && procpool::current_worker().attempt() == 1) std::abort();
  return file + ".png";
}

std::size_t unpack(std::size_t bytes) {
  return std::vector<char>(bytes, 'x').size();
}

int main() {
  procpool::Pool pool{{.processes = 2, .memory_limit = 64 << 20}};

  // Each item has its own limit; a worker that dies or takes too long is tried once more.
  const std::vector<std::string> files{"good", "endless", "flaky", "broken", "fine"};
  const auto outcomes = pool.map_outcomes(convert, files, {.timeout = 200ms, .retries = 1});
  for (std::size_t i = 0; i < files.size(); ++i) {
    fmt::print("{}: {}\n", files[i], outcomes[i]);
  }

  // The whole report of a crash.
  try {
    static_cast<void>(pool.apply(convert, "broken"));
  } catch (const procpool::WorkerDied& death) {
    fmt::print("---\n{}\n---\n", death);
  }

  // Memory: the task fails, its worker and the machine go on.
  try {
    static_cast<void>(pool.apply(unpack, std::size_t{1} << 30));
  } catch (const procpool::MemoryLimitError& error) {
    fmt::print("unpack: {}\n", error);
  }

  // A task that runs can be stopped.
  auto endless = pool.apply_async(convert, "endless");
  while (!endless.cancel({.kill = true})) {
  }
  fmt::print("still there: {}\n", pool.apply(convert, "last"));
}
