// SPDX-License-Identifier: MIT
/// @file
/// Runs python3 beside a test, to which it talks.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/child.hpp"

namespace support {

/// Skips the test where there is no python3.
inline void need_python() {
  static const bool there =
      run_program({"python3", "-c", "import multiprocessing.connection"}).exitcode == 0;
  if (!there) SKIP("this test talks to python3, which is not here");
}

/// A program in Python, as text. What it finds wrong it asserts.
class python_program {
 public:
  /// @param arguments sys.argv[1:]
  explicit python_program(std::string text, std::vector<std::string> arguments = {}) {
    pid_ = start_child([text = std::move(text), arguments = std::move(arguments)] {
      std::vector<const char*> words{"python3", "-c", text.c_str()};
      for (const std::string& each : arguments) words.push_back(each.c_str());
      words.push_back(nullptr);
      execvp("python3", const_cast<char**>(words.data()));
      return 1;
    });
  }
  python_program(const python_program&) = delete;
  python_program& operator=(const python_program&) = delete;
  ~python_program() { static_cast<void>(exitcode()); }

  /// Waits for its end. @returns 0 when nothing was wrong
  int exitcode() {
    if (pid_ != 0) exitcode_ = wait_child(std::exchange(pid_, 0));
    return exitcode_;
  }

 private:
  pid_t pid_ = 0;
  int exitcode_ = 0;
};

}  // namespace support
