// SPDX-License-Identifier: MIT
/// @file
/// What the core of a pool is made with.
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

/// What a pool is made with.
struct core_settings {
  worker_kind kind;
  std::uint32_t workers;  ///< at first
  region_sizes sizes;     ///< with places for as many as there can be
  scheduling_rules rules;
  recycle_rules lives;
  std::shared_ptr<const initializer_frame> initializer;  ///< null: none
  std::uint32_t cpus;                                    ///< that this process may use
  process_settings processes = {};                       ///< unless the workers are threads
  std::size_t max_pending = ~std::size_t{0};             ///< tasks that are not done
};

/// Makes what the workers are, and starts none of them. @throws ProcessError
inline std::unique_ptr<worker_backend> make_backend(const core_settings& settings) {
  if (settings.kind == worker_kind::threads) {
    return std::make_unique<thread_backend>(settings.sizes);
  }
  return std::make_unique<process_backend>(settings.sizes, settings.processes);
}

/// make_backend(), or what a test puts in its place.
using backend_maker = std::unique_ptr<worker_backend> (*)(const core_settings&);

}  // namespace procpool::detail
