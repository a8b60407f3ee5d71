// SPDX-License-Identifier: MIT
/// @file
/// What the program asks its fork server to do: one message on the control socket.
#pragma once

#include <cstdint>

#include <procpool/detail/child/descendants.hpp>
#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/worker/worker_limits.hpp>

namespace procpool::detail {

/// A request of the pool to its fork server, sent as raw bytes.
struct server_request {
  enum class kind_type : std::uint32_t { hello, start, kill } kind{};
  std::uint32_t worker = 0;       ///< place of the worker in the pool
  std::uint64_t incarnation = 0;  ///< number of the worker's start, unique in the pool
  std::uint64_t large = 0;        ///< with hello: 1: the descriptor of large_blocks.hpp follows
  region_sizes sizes{};           ///< with hello
  os::signal_rules signals{};     ///< with hello
  os::process_mark mark = 0;      ///< with hello: of the descendants to kill; 0: kill none
  worker_limits limits{};         ///< with start
};

}  // namespace procpool::detail
