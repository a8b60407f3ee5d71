// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// All that the library procpool::compiled consists of: its only source includes this, with
/// PROCPOOL_COMPILED defined.
#pragma once

#define PROCPOOL_FUNCTION  // defined here, for all

#include <procpool/detail/os/cpu.hpp>
#include <procpool/detail/process_start.hpp>
#include <procpool/detail/result_watch.hpp>
#include <procpool/detail/spawned_process.hpp>
#include <procpool/detail/start_pool.hpp>
#include <procpool/procpool.hpp>
