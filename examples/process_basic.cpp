// SPDX-License-Identifier: MIT
//
// Processes one at a time: their names, their exit codes, and how to stop them.
//
//     p = multiprocessing.Process(target=greet, args=("world",), name="greeter")
//     p.start(); p.join(); print(p.exitcode)                  # 0
//     p = multiprocessing.Process(target=fail); ...; print(p.exitcode)    # 1, report on stderr
//     p = multiprocessing.Process(target=time.sleep, args=(60,), daemon=True)
//     p.start(); p.join(0.1); p.is_alive(); p.terminate(); p.join(); print(p.exitcode)   # -15

#include <fmt/core.h>

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include <procpool/process.hpp>

using namespace std::chrono_literals;

void greet(const std::string& whom) {
  const auto self = procpool::current_process();
  const auto parent = procpool::parent_process();
  fmt::print("Hello {} from {}, child of {}\n", whom, self.name(), parent->name());
}

/// Starts a process and waits for its end.
int exitcode_of(procpool::Process process) {
  process.start();
  process.join();
  return process.exitcode().value();
}

int main() {
  fmt::print("exit code {}\n", exitcode_of(procpool::Process{{.name = "greeter"}, greet, "world"}));
  fmt::print("exit code {}\n", exitcode_of(procpool::Process{[] { std::exit(3); }}));
  fmt::print("exit code {}\n",
             exitcode_of(procpool::Process{
                 {.name = "unlucky"}, [] { throw std::runtime_error("this goes to stderr"); }}));

  procpool::Process sleeper{{.daemon = true}, [] { std::this_thread::sleep_for(1min); }};
  sleeper.start();
  fmt::print("joined after 100 ms: {}\n", sleeper.join(100ms));
  fmt::print("running: {} of {} children\n", sleeper.is_alive(),
             procpool::active_children().size());
  sleeper.terminate();
  sleeper.join();
  fmt::print("exit code {}\n", sleeper.exitcode().value());
}
