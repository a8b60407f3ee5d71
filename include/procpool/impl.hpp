// SPDX-License-Identifier: MIT
/// @file
/// The code of the library that is no template, for programs that compile it once. Include it in
/// exactly one source file, and define PROCPOOL_COMPILED for all files of the program:
///
///     // procpool.cpp, compiled like all others with -DPROCPOOL_COMPILED
///     #include <procpool/impl.hpp>
///
/// The CMake target procpool::compiled does this. Without PROCPOOL_COMPILED nothing of this is
/// needed: every file that includes <procpool/procpool.hpp> compiles the code then.
#pragma once

#undef PROCPOOL_FUNCTION
#define PROCPOOL_FUNCTION  // defined here, for all

#include <procpool/config.hpp>  // first: it says when the language version is too old

#ifndef PROCPOOL_COMPILED
#error "procpool: <procpool/impl.hpp> needs PROCPOOL_COMPILED defined for all files of the program"
#endif

#include <procpool/detail/backend/spawn_main.hpp>
#include <procpool/detail/bulk/bulk_access.hpp>
#include <procpool/detail/bulk/vector_file.hpp>
#include <procpool/detail/connection/listener_socket.hpp>
#include <procpool/detail/connection/make_pipe.hpp>
#include <procpool/detail/heap/descriptor_transfer.hpp>
#include <procpool/detail/heap/object_transfer.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/manager/manager_life.hpp>
#include <procpool/detail/named/list_access.hpp>
#include <procpool/detail/named/memory_file.hpp>
#include <procpool/detail/os/process_objects.hpp>
#include <procpool/detail/pool/start_pool.hpp>
#include <procpool/detail/process/process_start.hpp>
#include <procpool/detail/queue/get_turn.hpp>
#include <procpool/detail/queue/put_turn.hpp>
#include <procpool/detail/queue/queue_errors.hpp>
#include <procpool/detail/queue/unfinished_access.hpp>
#include <procpool/detail/result/mixed_wait.hpp>
#include <procpool/detail/result/wait_set.hpp>
#include <procpool/detail/sync/barrier_access.hpp>
#include <procpool/detail/sync/condition_access.hpp>
#include <procpool/detail/sync/lock_access.hpp>
#include <procpool/detail/sync/semaphore_access.hpp>
#include <procpool/detail/sync/value_access.hpp>
#include <procpool/detail/task/closure_check.hpp>
#include <procpool/procpool.hpp>
