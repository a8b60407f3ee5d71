// SPDX-License-Identifier: MIT
/// @file
/// For tests of memory with a name: names that no other test has, a /dev/shm of the test's own, and
/// Python.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>
#include <vector>

#include "child.hpp"

namespace support {

/// A name that only this process uses. The leak guards of other tests know the prefix.
inline std::string memory_name(const std::string& what) {
  return "procpool-test-" + std::to_string(getpid()) + "-" + what;
}

inline bool memory_exists(const std::string& name) {
  return access(("/dev/shm/" + name).c_str(), F_OK) == 0;
}

/// Skips the test where there is no /dev/shm.
inline void need_named_memory() {
  struct stat folder {};
  if (stat("/dev/shm", &folder) != 0) SKIP("there is no /dev/shm here");
}

/// Runs @p body in a child that has mounts of its own, after mounting a tmpfs on @p folder.
/// @param options of the tmpfs. @returns the child's exit code; skips where mounting is forbidden
inline int run_with_own_tmpfs(const char* folder, const char* options,
                              const std::function<int()>& body) {
  constexpr int cannot_mount = 77;
  const int code = run_child([&] {
    const int flags = geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
    if (unshare(flags) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", folder, "tmpfs", 0, options) != 0) {
      return cannot_mount;
    }
    return body();
  });
  if (code == cannot_mount) SKIP("mounting a tmpfs is forbidden here");
  return code;
}

/// Runs a program in Python with multiprocessing.shared_memory. `attached(m)` there keeps Python's
/// resource tracker from removing the name of what it only attached to (python/cpython#82300).
inline captured run_python(const std::string& program, std::vector<std::string> arguments = {}) {
  const std::string before =
      "import sys\n"
      "from multiprocessing import resource_tracker\n"
      "from multiprocessing.shared_memory import SharedMemory, ShareableList\n"
      "def attached(m):\n"
      "    resource_tracker.unregister('/' + m.name, 'shared_memory')\n"
      "    return m\n";
  arguments.insert(arguments.begin(), {"python3", "-W", "error", "-c", before + program});
  return run_program(arguments);
}

}  // namespace support
