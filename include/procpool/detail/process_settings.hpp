// SPDX-License-Identifier: MIT
// Level 5: processes.
/// @file
/// How the processes of a pool are made, from its options.
#pragma once

#include <procpool/start_method.hpp>

namespace procpool::detail {

struct process_settings {
  procpool::start_method start_method = procpool::start_method::fork;
  bool ignore_signals = true;    ///< that the program handles
  bool kill_descendants = true;  ///< of workers that died, and all at the end
};

}  // namespace procpool::detail
