// SPDX-License-Identifier: MIT
/// @file
/// Runs code in a child process and returns its exit status and output.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace support {

/// Exit status of a child whose function threw. The text of the exception is on its stderr.
inline constexpr int child_threw = 99;

/// For use in a child, where failures of Catch2's macros are not reported: prints the failed
/// condition and exits.
#define CHILD_REQUIRE(condition) \
  (static_cast<bool>(condition) ? void() : ::support::child_failed(#condition, __FILE__, __LINE__))

[[noreturn]] void child_failed(const char* condition, const char* file, int line);

/// The exit code of a child, and the output of the child and its descendants.
struct captured {
  int exitcode = 0;  ///< Python's: the exit status, or minus the signal's number
  std::string out;
  std::string err;
};

/// Forks. The child runs @p body, flushes stdio and calls _exit with the value that it returned. No
/// destructor of the test runs in the child.
[[nodiscard]] pid_t start_child(const std::function<int()>& body);

/// Waits for @p pid. @returns its exit code, as Python defines it
[[nodiscard]] int wait_child(pid_t pid);

/// start_child and wait_child in one.
[[nodiscard]] int run_child(const std::function<int()>& body);

/// run_child that collects stdout and stderr until the last process has closed them.
[[nodiscard]] captured capture_child(const std::function<int()>& body);

/// Runs a program, found through PATH, with its arguments.
[[nodiscard]] captured run_program(const std::vector<std::string>& command);

/// Runs this test program again with other arguments.
[[nodiscard]] captured run_self(const std::vector<std::string>& arguments);

/// Runs the function that NAMED_PROGRAM(name) defined, as a program that returns from main.
[[nodiscard]] captured run_named(const std::string& name);

/// Defines a small program inside a test file: its own process, main and static destructors.
#define NAMED_PROGRAM(name)                                                              \
  static int named_program_##name();                                                     \
  static const ::support::named_program registered_##name(#name, &named_program_##name); \
  static int named_program_##name()

/// Adds a function to the list of run_named.
class named_program {
 public:
  named_program(const char* name, int (*body)());
};

/// For main: runs the named program if the command line asks for one, else returns -1.
[[nodiscard]] int run_if_named(int argc, char** argv);

}  // namespace support
