// SPDX-License-Identifier: MIT
/// @file
/// What a backend tells its pool about the lives of workers.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include <procpool/detail/process/startup_status.hpp>

namespace procpool::detail {

/// Travels as it is over the control socket of the fork server. A spawned one begins with
/// missing_module and module_place, as often as needed, and ready.
struct worker_event {
  enum class kind_type : std::uint32_t {
    started,
    not_started,
    not_pinned,
    exited,
    rang,
    missing_module,
    module_place,
    ready,
    ended  ///< the fork server itself, in order
  } kind;
  std::uint32_t worker;       ///< its place in the pool; of modules: their number
  std::uint64_t incarnation;  ///< counts the workers ever started; module_place: where it is
  pid_t pid;
  int status;                   ///< exited: Python's exit code; not started or pinned: errno
  startup_status startup = {};  ///< exited: what became of its start

  [[nodiscard]] bool failed_to_start() const noexcept {
    return kind == kind_type::not_started || kind == kind_type::not_pinned;
  }
  /// What failed then.
  [[nodiscard]] const char* attempt() const noexcept {
    return kind == kind_type::not_pinned
               ? "a worker process could not be pinned to its CPU (sched_setaffinity)"
               : "a worker process could not be started (pipe2, fork)";
  }
};

/// What a worker is called in messages, as Python names them.
inline std::string worker_name(std::uint64_t incarnation) {
  return "PoolWorker-" + std::to_string(incarnation);
}

}  // namespace procpool::detail
