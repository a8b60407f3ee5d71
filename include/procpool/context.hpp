// SPDX-License-Identifier: MIT
/// @file
/// Context: makes pools and processes with one start method. Python: multiprocessing.get_context().
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <optional>
#include <utility>

#include <procpool/options.hpp>
#include <procpool/pool.hpp>
#include <procpool/process.hpp>
#include <procpool/start_method.hpp>

namespace procpool {

/// Makes pools and processes with one start method, independent of set_start_method(). A value: any
/// thread may use a copy.
///
///     const auto spawning = procpool::get_context(procpool::start_method::spawn);
///     auto pool = spawning.Pool(4);
class Context {
 public:
  explicit constexpr Context(start_method method) noexcept : method_(method) {}

  [[nodiscard]] constexpr start_method get_start_method() const noexcept { return method_; }

  /// Makes a pool, see procpool::Pool. The context's start method replaces that in @p options.
  /// @throws as the constructor of procpool::Pool
  [[nodiscard]] procpool::Pool<Processes> Pool(pool_options options = {}) const {
    options.start_method = method_;
    return procpool::Pool<Processes>(std::move(options));
  }
  /// The same with options other than the number of workers at their defaults.
  /// @param processes number of workers
  [[nodiscard]] procpool::Pool<Processes> Pool(int processes) const {
    return Pool(pool_options{.processes = processes});
  }

  /// Makes a process, see procpool::Process. It is not started yet.
  /// @throws std::invalid_argument for a null target
  template <detail::target_argument F, class... A>
  [[nodiscard]] procpool::Process Process(F target, A... args) const {
    return Process(process_options{}, std::move(target), std::move(args)...);
  }
  /// The same with options. The context's start method replaces that in @p options.
  template <class F, class... A>
  [[nodiscard]] procpool::Process Process(process_options options, F target, A... args) const {
    options.start_method = method_;
    return procpool::Process(std::move(options), std::move(target), std::move(args)...);
  }

 private:
  start_method method_;
};

/// A context. Any thread.
/// @param method start method of the context. Default: get_start_method() at this call
[[nodiscard]] inline Context get_context(std::optional<start_method> method = std::nullopt) {
  return Context(method.has_value() ? *method : get_start_method());
}

}  // namespace procpool
