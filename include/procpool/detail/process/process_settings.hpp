// SPDX-License-Identifier: MIT
/// @file
/// The pool options that say how the pool's processes are made.
#pragma once

#include <vector>

#include <procpool/detail/child/environment.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

struct process_settings {
  procpool::start_method start_method = procpool::start_method::fork;
  bool ignore_signals = true;    ///< workers ignore the signals that the program handles
  bool kill_descendants = true;  ///< of a worker that was killed or crashed; at the end of all
  bool close_fds = false;        ///< when forked: except the standard streams and pass_fds
  std::vector<int> pass_fds = {};
  os::environment_changes environment = {};
  bool warn_about_threads = true;  ///< when the fork server is forked
};

}  // namespace procpool::detail
