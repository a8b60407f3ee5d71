// SPDX-License-Identifier: MIT
/// @file
/// What a program calls in main to support start_method::spawn, which runs the program again.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <string>
#include <utility>

#include <procpool/start_method.hpp>

namespace procpool {

namespace detail {
void take_part_in_spawning(int argc, char** argv);
void spawn_program(const std::string& path);
}  // namespace detail

/// Runs a spawned process. A program that uses start_method::spawn calls it first in main. In the
/// program itself it returns at once. In a spawned process it runs the tasks and never returns; an
/// error there ends the process with exit code 1. Register exception types that workers throw
/// (procpool/exception.hpp) before this call, or in the constructor of a static object. Without
/// this call, making a pool or starting a Process by spawn throws std::logic_error.
/// Python: multiprocessing.freeze_support, and the guard `if __name__ == "__main__"`.
/// @param argc, argv the parameters of main
inline void freeze_support(int argc, char** argv) {
  detail::take_part_in_spawning(argc, argv);
}

/// Sets the file to run for spawned processes. Default: the file that this process runs, which is
/// found even if it has been replaced or removed. Not thread-safe: call it before other threads
/// start pools or processes. Python: multiprocessing.set_executable.
/// @param path the same build of the program, or a script that runs it and passes on its arguments
/// and descriptors. With another build, making a pool throws ProcessError, and a Process ends with
/// exit code 1. A program that does not call freeze_support() simply runs, with its own exit code.
inline void set_executable(const std::string& path) {
  detail::spawn_program(path);
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/backend/spawn_main.hpp>
#endif
