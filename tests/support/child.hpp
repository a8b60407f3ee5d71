// SPDX-License-Identifier: MIT
/// @file
/// Code run in a process of its own, seen from outside: exit status and output.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace support {

/// Status of a child whose function threw; the text is on its stderr.
inline constexpr int child_threw = 99;

/// Inside a child, where Catch2's macros report to nobody: says what is wrong and leaves.
#define CHILD_REQUIRE(condition) \
  (static_cast<bool>(condition) ? void() : ::support::child_failed(#condition, __FILE__, __LINE__))

[[noreturn]] void child_failed(const char* condition, const char* file, int line);

/// How a child ended and what it and its descendants wrote.
struct captured {
  int exitcode = 0;  ///< Python's: the exit status, or minus the signal's number
  std::string out;
  std::string err;
};

/// Forks; the child runs @p body and leaves by _exit with what it returned, stdio flushed. No
/// destructor of the test runs there.
[[nodiscard]] pid_t start_child(const std::function<int()>& body);

/// Waits for @p pid; its exit code as Python gives it.
[[nodiscard]] int wait_child(pid_t pid);

/// start_child and wait_child in one.
[[nodiscard]] int run_child(const std::function<int()>& body);

/// run_child with stdout and stderr collected until the last holder has closed them.
[[nodiscard]] captured capture_child(const std::function<int()>& body);

/// Runs a program, found by PATH, with its arguments.
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

/// Puts a function into the list that run_named chooses from.
class named_program {
 public:
  named_program(const char* name, int (*body)());
};

/// For main: runs the named program that the command line asks for, or returns -1.
[[nodiscard]] int run_if_named(int argc, char** argv);

}  // namespace support
