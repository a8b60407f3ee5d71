// SPDX-License-Identifier: MIT
/// @file
/// The number of CPUs that this program may use; cpu.hpp implements it.
#pragma once

namespace procpool::detail::os {

/// The number of CPUs that this program can keep busy, see procpool::cpu_count().
int usable_cpus();

}  // namespace procpool::detail::os
