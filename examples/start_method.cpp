// SPDX-License-Identifier: MIT
// A forked process has a copy of the program's memory; a spawned process has only what it is sent.
#include <fmt/format.h>

#include <procpool/procpool.hpp>
#include <string>

namespace {

std::string config = "default";

std::string read_config() {
  return config;
}

void greet(const std::string& name) {
  fmt::print("hello {}, I am {}\n", name, procpool::current_process().name());
}

}  // namespace

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  config = "changed";

  procpool::Pool forked{1};
  procpool::Pool spawned{{.processes = 1, .start_method = procpool::start_method::spawn}};
  fmt::print("forked: {}\n", forked.apply(read_config));
  fmt::print("spawned: {}\n", spawned.apply(read_config));

  const auto context = procpool::get_context(procpool::start_method::spawn);
  auto process = context.Process({.name = "greeter"}, greet, "you");
  process.start();
  process.join();
  fmt::print("exit code {}\n", *process.exitcode());
}
