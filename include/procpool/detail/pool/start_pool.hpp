// SPDX-License-Identifier: MIT
/// @file
/// start_pool(): makes the implementation of a pool from its options. Included at the end of
/// pool.hpp, or compiled once (PROCPOOL_COMPILED), like the members of pool_interface defined here.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <procpool/backend.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/pool/inline_pool.hpp>
#include <procpool/detail/pool/pool_settings.hpp>
#include <procpool/detail/pool/worker_pool.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/options.hpp>
#include <procpool/start_method.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION void pool_interface::check_rare_code(code_ref code) const {
  const std::string where =
      "the function to run is in " + module_table::instance().name(code.module) + ", ";
  if (code.module >= modules_) {
    throw std::invalid_argument(where + "which was loaded after the pool was made");
  }
  if (std::ranges::find(missing_, code.module) == missing_.end()) return;
  throw std::invalid_argument(
      where +
      "which the spawned workers do not have, or in another build: it was loaded while the program "
      "ran, or its file has been replaced");
}

PROCPOOL_FUNCTION void pool_interface::cannot_limit_time() {
  throw std::invalid_argument(
      "a timeout needs workers that are processes: a thread cannot be killed");
}

PROCPOOL_FUNCTION void pool_interface::not_there() {
  throw std::logic_error(running_worker != nullptr
                             ? "a task cannot use the pool that runs it, nor can an initializer"
                             : "a process that was forked by a pool cannot use that pool");
}

inline intrusive_ptr<pool_interface> start_pool_of(
    worker_kind kind, const pool_options& options,
    std::shared_ptr<const initializer_frame> initializer) {
  const core_settings settings = settings_of(kind, options, std::move(initializer));
  if (kind == worker_kind::caller) {
    return new inline_pool(settings.initializer.get(), settings.recycling.limits.seed);
  }
  return new worker_pool(settings);
}

/// The kind of workers for a Pool<Processes>: PROCPOOL_BACKEND in the environment overrides the
/// program's choice. @throws std::invalid_argument for any other value of the variable
inline worker_kind kind_from_environment(worker_kind chosen) {
  const char* given = std::getenv("PROCPOOL_BACKEND");
  if (given == nullptr || *given == '\0') return chosen;
  const std::string_view name = given;
  if (name == "fork") return worker_kind::forked;
  if (name == "spawn") return worker_kind::spawned;
  if (name == "threads") return worker_kind::threads;
  if (name == "serial") return worker_kind::caller;
  throw std::invalid_argument(
      concat({"PROCPOOL_BACKEND must be fork, spawn, threads or serial, but is ", given}));
}

template <>
PROCPOOL_FUNCTION intrusive_ptr<pool_interface> start_pool<Processes>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer) {
  const start_method method =
      options.start_method.has_value() ? *options.start_method : get_start_method();
  const auto kind = method == start_method::spawn ? worker_kind::spawned : worker_kind::forked;
  return start_pool_of(kind_from_environment(kind), options, std::move(initializer));
}
template <>
PROCPOOL_FUNCTION intrusive_ptr<pool_interface> start_pool<Threads>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer) {
  return start_pool_of(worker_kind::threads, options, std::move(initializer));
}
template <>
PROCPOOL_FUNCTION intrusive_ptr<pool_interface> start_pool<Serial>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer) {
  return start_pool_of(worker_kind::caller, options, std::move(initializer));
}

}  // namespace procpool::detail
