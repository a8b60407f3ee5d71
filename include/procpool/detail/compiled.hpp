// SPDX-License-Identifier: MIT
/// @file
/// All that the library procpool::compiled consists of: its only source includes this, with
/// PROCPOOL_COMPILED defined.
#pragma once

#define PROCPOOL_FUNCTION  // defined here, for all

#include <procpool/detail/backend/spawn_main.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/pool/start_pool.hpp>
#include <procpool/detail/process/process_start.hpp>
#include <procpool/detail/result/wait_set.hpp>
#include <procpool/procpool.hpp>
