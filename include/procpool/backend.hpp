// SPDX-License-Identifier: MIT
/// @file
/// The backends of a pool: the argument of the template Pool.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <memory>

#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/options.hpp>

namespace procpool {

/// Workers are processes on this machine. A worker that dies is replaced, and its item ends with
/// WorkerDied. Python: multiprocessing.Pool.
struct Processes {};
/// Workers are threads of this process. Python: multiprocessing.pool.ThreadPool, but arguments and
/// results are encoded, as for processes.
///
/// Nothing is isolated: a task that crashes or exits ends the program. A thread cannot be killed:
/// - Options that limit a worker or a task throw std::invalid_argument.
/// - cancel({.kill = true}) ends the result, while the function goes on.
/// - The end of the pool waits for items that run. A task that ends its own pool gets
///   std::logic_error.
struct Threads {};
/// No workers: each task runs in the caller when it is submitted, one attempt each, so that a
/// debugger shows it on the caller's stack. Arguments and results are encoded, as for processes.
/// Limits are not enforced. Python: none.
struct Serial {};

namespace detail {

/// Makes a pool and starts its workers (start_pool.hpp).
template <class Backend>
detail::intrusive_ptr<pool_interface> start_pool(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
detail::intrusive_ptr<pool_interface> start_pool<Processes>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
detail::intrusive_ptr<pool_interface> start_pool<Threads>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
detail::intrusive_ptr<pool_interface> start_pool<Serial>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);

}  // namespace detail

}  // namespace procpool
