// SPDX-License-Identifier: MIT
/// @file
/// How many CPUs there are for this program; cpu.hpp finds out.
#pragma once

namespace procpool::detail::os {

/// CPUs that this program can keep busy, see procpool::cpu_count().
int usable_cpus();

}  // namespace procpool::detail::os
