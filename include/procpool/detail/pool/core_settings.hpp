// SPDX-License-Identifier: MIT
/// @file
/// The checked settings of a pool of workers, and the making of its backend. pool_settings.hpp
/// makes them from the user's options.
#pragma once

#include <cstdint>
#include <memory>

#include <procpool/detail/backend/process_backend.hpp>
#include <procpool/detail/backend/thread_backend.hpp>
#include <procpool/detail/backend/worker_backend.hpp>
#include <procpool/detail/process/process_settings.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/scheduling/scheduler.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/detail/worker/recycle_policy.hpp>

namespace procpool::detail {

/// Settings that hold: every number is in range.
struct core_settings {
  worker_kind kind;
  std::uint32_t workers;  ///< at the start; resize() changes the number
  region_sizes sizes;     ///< with a slot for each worker that resize() can add
  scheduling_rules rules;
  recycle_rules recycling;
  std::shared_ptr<const initializer_frame> initializer;  ///< null: none
  std::uint32_t cpus;                                    ///< number that this process may use
  process_settings processes = {};                       ///< unused if the workers are threads
  std::size_t max_pending = ~std::size_t{0};             ///< upper bound on unfinished tasks
};

/// Makes the backend for this kind of worker; starts no worker. @throws ProcessError
inline std::unique_ptr<worker_backend> make_backend(const core_settings& settings) {
  if (settings.kind == worker_kind::threads) {
    return std::make_unique<thread_backend>(settings.sizes);
  }
  return std::make_unique<process_backend>(settings.sizes, settings.processes);
}

/// make_backend(), or a test's replacement for it.
using backend_maker = std::unique_ptr<worker_backend> (*)(const core_settings&);

}  // namespace procpool::detail
