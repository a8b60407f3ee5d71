// SPDX-License-Identifier: MIT
/// @file
/// All public headers but fmt.hpp: Python's multiprocessing for C++.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

// Vocabulary: what can go wrong, and which version this is.
#include <procpool/error.hpp>
#include <procpool/version.hpp>

// What can be sent to a worker.
#include <procpool/codec.hpp>
#include <procpool/codec/associative.hpp>
#include <procpool/codec/chrono.hpp>
#include <procpool/codec/list.hpp>
#include <procpool/codec/path.hpp>
#include <procpool/codec/sequence.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/exception.hpp>

// Single processes.
#include <procpool/freeze_support.hpp>
#include <procpool/process.hpp>
#include <procpool/start_method.hpp>

// Messages between processes.
#include <procpool/connection.hpp>
#include <procpool/connection_wait.hpp>
#include <procpool/listener.hpp>

// Objects in a process of their own.
#include <procpool/managed.hpp>
#include <procpool/manager.hpp>
#include <procpool/proxy.hpp>

// Locks, values and queues that processes share.
#include <procpool/queue.hpp>
#include <procpool/synchronize.hpp>

// Memory that processes share.
#include <procpool/shared_array.hpp>
#include <procpool/shared_memory.hpp>
#include <procpool/shared_vector.hpp>
#include <procpool/value.hpp>

// Pools of workers.
#include <procpool/async_result.hpp>
#include <procpool/backend.hpp>
#include <procpool/context.hpp>
#include <procpool/coroutine.hpp>
#include <procpool/imap.hpp>
#include <procpool/map_reduce.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>
#include <procpool/pool.hpp>
#include <procpool/wait.hpp>
#include <procpool/worker.hpp>
#include <procpool/worker_local.hpp>
