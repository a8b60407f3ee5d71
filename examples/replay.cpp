// SPDX-License-Identifier: MIT
// What killed a worker is run once more in the program, where a debugger can follow it.
#include <fmt/format.h>

#include <cstdlib>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Aborts in a worker. Here it throws, or this example would end.
int parse(const std::string& text) {
  if (text != "bad") return static_cast<int>(text.size());
  if (procpool::current_process().name() != "MainProcess") std::abort();
  throw std::runtime_error("cannot parse " + text);
}

}  // namespace

int main() {
  procpool::Pool pool{2};
  try {
    pool.map(parse, std::vector<std::string>{"one", "two", "bad", "four"});
  } catch (const procpool::WorkerDied& died) {
    fmt::print("a worker died of signal {} in item {}\n", *died.signal(), *died.item());
    try {
      died.replay();  // set a breakpoint here
    } catch (const std::runtime_error& error) {
      fmt::print("replayed: {}\n", error.what());
    }
  }
}
