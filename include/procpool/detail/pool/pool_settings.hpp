// SPDX-License-Identifier: MIT
/// @file
/// Checks the options of a pool, which come from the user, and makes core_settings of them. Runs on
/// the thread that makes the pool. @throws std::invalid_argument naming the option and its range
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/machine/address_space.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/process/process_settings.hpp>
#include <procpool/options.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

inline std::uint32_t checked_count(const char* name, int given) {
  if (given >= 1) return static_cast<std::uint32_t>(given);
  throw std::invalid_argument(concat({name, " must be at least 1, but is ", given}));
}

inline region_sizes checked_sizes(const pool_options& options, std::uint32_t workers) {
  constexpr std::size_t max_ring = std::size_t{1} << 30;
  if (!std::has_single_bit<std::size_t>(options.ring_bytes) ||
      options.ring_bytes < region_sizes::least_ring || options.ring_bytes > max_ring) {
    throw std::invalid_argument("ring_bytes must be a power of two from 4 KiB to 1 GiB");
  }
  if (options.arena_bytes % region_sizes::page != 0 ||
      options.arena_bytes < region_sizes::least_arena) {
    throw std::invalid_argument("arena_bytes must be a multiple of 4096 and at least 64 KiB");
  }
  const region_sizes wanted{region_sizes::places(workers, options.ring_bytes), options.ring_bytes,
                            options.arena_bytes};
  // At most a quarter of the address space that is left (RLIMIT_AS): the program, and each worker
  // for itself, needs most of it for other things.
  return wanted.within(os::address_space_left() / 4, workers);
}

/// @returns the time in nanoseconds, rounded up; 0 if it was not given
inline std::chrono::nanoseconds checked_time(const char* name,
                                             const std::optional<time_limit>& given) {
  constexpr time_limit longest{1e9};
  if (!given) return {};
  if (!(given->count() > 0)) throw std::invalid_argument(concat({name, " must be positive"}));
  return std::chrono::ceil<std::chrono::nanoseconds>(std::min<time_limit>(*given, longest));
}

inline recycle_rules checked_recycling(const pool_options& options) {
  recycle_rules rules;
  rules.limits.memory_bytes = options.memory_limit.value_or(0);
  rules.limits.resident_bytes = options.max_resident.value_or(0);
  rules.limits.kept_bytes = options.keep_memory.value_or(0);
  if (options.memory_limit == std::size_t{0} || options.max_resident == std::size_t{0} ||
      options.max_result_bytes == std::size_t{0} || options.keep_memory == std::size_t{0}) {
    throw std::invalid_argument(
        "memory_limit, max_resident, max_result_bytes and keep_memory must be at least 1 if given");
  }
  rules.limits.cpu_ns = checked_time("cpu_limit", options.cpu_limit).count();
  rules.limits.idle_ns = checked_time("idle_timeout", options.idle_timeout).count();
  rules.initializer_timeout = checked_time("initializer_timeout", options.initializer_timeout);
  if (!(options.recycle_jitter >= 0 && options.recycle_jitter <= 1)) {
    throw std::invalid_argument("recycle_jitter must be from 0 to 1");
  }
  rules.jitter = options.recycle_jitter;
  rules.limits.seed = options.seed ? *options.seed : os::random_number();
  rules.replay_bytes = options.replay_bytes;
  rules.limits.pinned = options.pin_workers ? 1 : 0;
  rules.max_result_bytes = options.max_result_bytes.value_or(os::physical_memory() / 2);
  return rules;
}

inline void check_for_threads(const pool_options& options) {
  if (options.memory_limit || options.cpu_limit || options.max_resident ||
      options.max_result_bytes) {
    throw std::invalid_argument(
        "memory_limit, cpu_limit, max_resident and max_result_bytes need workers that are "
        "processes: threads share what they have");
  }
  if (options.initializer_timeout) {
    throw std::invalid_argument(
        "initializer_timeout needs workers that are processes: a thread cannot be killed");
  }
}

inline void check_environment(const std::map<std::string, std::string>& variables) {
  for (const auto& [name, value] : variables) {
    const bool wrong = name.empty() || name.find('=') != std::string::npos ||
                       name.find('\0') != std::string::npos ||
                       value.find('\0') != std::string::npos;
    if (wrong) throw std::invalid_argument(concat({"no environment variable: \"", name, "\""}));
  }
}

inline process_settings process_settings_of(worker_kind kind, const pool_options& options) {
  check_environment(options.environment);
  if (!options.pass_fds.empty() && !options.close_fds) {
    throw std::invalid_argument(
        "pass_fds needs close_fds: without it workers have all descriptors");
  }
  return {.start_method = kind == worker_kind::spawned ? start_method::spawn : start_method::fork,
          .ignore_signals = options.ignore_signals,
          .kill_descendants = options.kill_descendants,
          .close_fds = options.close_fds,
          .pass_fds = options.pass_fds,
          .environment = options.environment,
          .warn_about_threads = options.warn_about_threads};
}

/// @throws std::invalid_argument for an option out of range, or that this kind of worker cannot
/// have
inline core_settings settings_of(worker_kind kind, const pool_options& options,
                                 std::shared_ptr<const initializer_frame> initializer) {
  if (kind == worker_kind::threads) check_for_threads(options);
  const auto cpus = static_cast<std::uint32_t>(os::usable_cpus());
  const std::uint32_t workers =
      options.processes ? checked_count("processes", *options.processes) : cpus;
  scheduling_rules rules;
  // One CPU is for the parent: more spinning threads than CPUs slow each other down.
  rules.spinning_workers = cpus - 1;
  rules.parallel = cpus;
  if (options.maxtasksperchild) {
    rules.maxtasksperchild = checked_count("maxtasksperchild", *options.maxtasksperchild);
  }
  return {.kind = kind,
          .workers = workers,
          .sizes = checked_sizes(options, workers),
          .rules = rules,
          .recycling = checked_recycling(options),
          .initializer = std::move(initializer),
          .cpus = cpus,
          .processes = process_settings_of(kind, options),
          .max_pending = options.max_pending ? checked_count("max_pending", *options.max_pending)
                                             : std::numeric_limits<std::size_t>::max()};
}

}  // namespace procpool::detail
