// SPDX-License-Identifier: MIT
/// @file
/// What the workers of a pool can be: the argument of the template Pool.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <memory>

#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/options.hpp>

namespace procpool {

/// The backend of worker processes on this machine.
struct Processes {};
/// The backend of worker threads: the same rings and the same worker loop in this process. Nothing
/// is isolated: a task that crashes or exits ends the program, and nobody can kill a thread. So
/// options that limit a worker or a task are std::invalid_argument; cancel({.kill = true}) ends the
/// result, while the function goes on; the end of the pool waits for items that run, which a task
/// of the pool must not ask for itself (std::logic_error).
struct Threads {};
/// No workers: tasks run in the caller, at submission, one attempt each, and a debugger sees them
/// on its stack. Arguments and results pass through the codec all the same. Limits are not
/// enforced.
struct Serial {};

namespace detail {

/// Makes a pool and starts its workers (start_pool.hpp).
template <class Backend>
boost::intrusive_ptr<pool_interface> start_pool(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
boost::intrusive_ptr<pool_interface> start_pool<Processes>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
boost::intrusive_ptr<pool_interface> start_pool<Threads>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
template <>
boost::intrusive_ptr<pool_interface> start_pool<Serial>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);

}  // namespace detail

}  // namespace procpool
