// SPDX-License-Identifier: MIT
/// @file
/// The events that a backend reports to its pool: starts and ends of workers.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include <procpool/detail/process/startup_status.hpp>

namespace procpool::detail {

/// Sent as raw bytes over the control socket of the fork server. A spawned fork server first sends
/// any number of missing_module and module_place, then ready.
struct worker_event {
  enum class kind_type : std::uint32_t {
    started,
    not_started,
    not_pinned,
    exited,
    rang,  ///< a worker whose event descriptor a task has closed wakes the pool
    missing_module,
    module_place,
    ready,
    ended  ///< the fork server itself has ended normally
  } kind;
  std::uint32_t worker;       ///< place in the pool; of module events: number of the module
  std::uint64_t incarnation;  ///< number of the start; module_place: address of the module
  pid_t pid;
  int status;                   ///< exited: Python's exit code; not started or pinned: errno
  startup_status startup = {};  ///< exited: outcome of the start

  [[nodiscard]] bool failed_to_start() const noexcept {
    return kind == kind_type::not_started || kind == kind_type::not_pinned;
  }
  /// For failed_to_start(): the text of the failure.
  [[nodiscard]] const char* attempt() const noexcept {
    return kind == kind_type::not_pinned
               ? "a worker process could not be pinned to its CPU (sched_setaffinity)"
               : "a worker process could not be started (pipe2, fork)";
  }
};

/// The name of a worker in messages, as Python names workers.
inline std::string worker_name(std::uint64_t incarnation) {
  return "PoolWorker-" + std::to_string(incarnation);
}

}  // namespace procpool::detail
