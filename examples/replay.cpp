// SPDX-License-Identifier: MIT
// Runs an item that killed its worker again in the program, where a debugger can follow it.
#include <fmt/format.h>

#include <cstdlib>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Aborts in a worker. In the program it throws, because abort would end this example.
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
