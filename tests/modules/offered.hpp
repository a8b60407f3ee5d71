// SPDX-License-Identifier: MIT
// What each module of the test offers to the program. It is passed in a struct of pointers, so that
// nothing of it depends on which symbols the dynamic linker finds.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

/// An exception that program and modules know. Its own symbols are visible, as they must be for an
/// exception that crosses from one module to another.
struct [[gnu::visibility("default")]] shared_problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using task = int (*)(int);

struct offered {
  /// Tasks.
  task worker_index;      ///< current_worker().index(), or -1 outside of a task
  task throw_shared;      ///< a shared_problem
  task throw_registered;  ///< an exception that only the module has registered

  /// Calls from the program.
  int (*async_in_own_pool)(task function, int argument);
  int (*apply_in_thread_pool)(task function, int argument);
  int (*apply_in_serial_pool)(task function, int argument);
  std::string (*failure_in_own_pool)(task function);  ///< what() of the shared_problem, "" if none
  std::string (*failure_by_spawn)(task function);     ///< "" if it has worked
  void (*submit)(procpool::Pool<>& pool, int argument,
                 std::vector<procpool::AsyncResult<int>>& results);
  int (*exitcode_of_process)(task function, int argument);
  procpool::start_method (*start_method)();
  std::size_t (*children)();
  /// A pool that stays, with its service thread, and a use of it; then its end.
  void (*begin_pool)();
  int (*use_pool)(int argument);
  void (*end_pool)();
};

extern "C" {
const offered* module_one();
const offered* module_two();
}
