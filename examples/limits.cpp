// SPDX-License-Identifier: MIT
//
// Code that hangs, crashes at times, or uses too much memory: limits end it, retries run it again,
// and map_outcomes returns the outcome of every item.

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

/// Stands for a converter that hangs on some files and crashes on others, sometimes at random.
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

  // Each item has its own time limit. An item whose worker dies or that takes too long is tried
  // once more.
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

  // The memory limit fails the task; its worker and the machine go on.
  try {
    static_cast<void>(pool.apply(unpack, std::size_t{1} << 30));
  } catch (const procpool::MemoryLimitError& error) {
    fmt::print("unpack: {}\n", error);
  }

  // A running task can be stopped.
  auto endless = pool.apply_async(convert, "endless");
  while (!endless.cancel({.kill = true})) {
  }
  fmt::print("still there: {}\n", pool.apply(convert, "last"));
}
