// SPDX-License-Identifier: MIT
/// @file
/// What a program does to be started again by start_method::spawn.
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

/// To be called first in main, before anything else happens there, by a program that uses
/// start_method::spawn: in a process that was spawned it does what that process is for and does not
/// return. In the program itself it returns at once. Register exception types that workers throw
/// (procpool/exception.hpp) before it or as static objects. Python: multiprocessing.freeze_support
/// (and the guard `if __name__ == "__main__"`).
/// @param argc, argv those of main
inline void freeze_support(int argc, char** argv) {
  detail::take_part_in_spawning(argc, argv);
}

/// Which file to run for spawned processes, instead of the one that this process runs (which is
/// found even when its file has been replaced or removed). It has to be the same build: another one
/// is ProcessError when a pool is made, and exit code 1 of a Process (a program that does not call
/// freeze_support() just runs, with whatever exit code). To be called before other threads start
/// pools or processes. A script that runs the program will do if it passes on its arguments and
/// descriptors. Python: multiprocessing.set_executable.
inline void set_executable(const std::string& path) {
  detail::spawn_program(path);
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/backend/spawn_main.hpp>
#endif
