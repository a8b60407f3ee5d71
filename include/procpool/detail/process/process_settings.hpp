// SPDX-License-Identifier: MIT
/// @file
/// How the processes of a pool are made, from its options.
#pragma once

#include <vector>

#include <procpool/detail/os/environment.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

struct process_settings {
  procpool::start_method start_method = procpool::start_method::fork;
  bool ignore_signals = true;    ///< that the program handles
  bool kill_descendants = true;  ///< of workers that died, and all at the end
  bool close_fds = false;        ///< but for the standard streams and pass_fds, when forked
  std::vector<int> pass_fds = {};
  os::environment_changes environment = {};
  bool warn_about_threads = true;  ///< when forked
};

}  // namespace procpool::detail
