// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// What the core of a pool is made with.
#pragma once

#include <cstdint>
#include <memory>

#include <procpool/detail/pool_front.hpp>
#include <procpool/detail/process_backend.hpp>
#include <procpool/detail/regions.hpp>
#include <procpool/detail/scheduler.hpp>
#include <procpool/detail/task_body.hpp>
#include <procpool/detail/thread_backend.hpp>
#include <procpool/detail/worker_backend.hpp>
#include <procpool/detail/worker_lives.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// What a pool is made with.
struct core_settings {
  worker_kind kind;
  std::uint32_t workers;  ///< at first
  region_sizes sizes;     ///< with places for as many as there can be
  scheduling_rules rules;
  life_rules lives;
  std::shared_ptr<const initializer_frame> initializer;  ///< null: none
  std::uint32_t cpus;                                    ///< that this process may use
};

/// Makes what the workers are, and starts none of them. @throws ProcessError
inline std::unique_ptr<worker_backend> make_backend(worker_kind kind, const region_sizes& sizes) {
  if (kind == worker_kind::threads) return std::make_unique<thread_backend>(sizes);
  return std::make_unique<process_backend>(
      sizes, kind == worker_kind::spawned ? start_method::spawn : start_method::fork);
}

/// make_backend(), or what a test puts in its place.
using backend_maker = std::unique_ptr<worker_backend> (*)(worker_kind, const region_sizes&);

}  // namespace procpool::detail
