// SPDX-License-Identifier: MIT
/// @file
/// Pools and processes with a start method of their own: multiprocessing.get_context().
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <optional>
#include <utility>

#include <procpool/options.hpp>
#include <procpool/pool.hpp>
#include <procpool/process.hpp>
#include <procpool/start_method.hpp>

namespace procpool {

/// Makes pools and processes by one start method, whatever set_start_method() says. A value; any
/// thread.
///
///     const auto spawning = procpool::get_context(procpool::start_method::spawn);
///     auto pool = spawning.Pool(4);
class Context {
 public:
  explicit constexpr Context(start_method method) noexcept : method_(method) {}

  [[nodiscard]] constexpr start_method get_start_method() const noexcept { return method_; }

  /// A pool, see procpool::Pool; a start method in the options gives way to the context's.
  [[nodiscard]] procpool::Pool<Processes> Pool(pool_options options = {}) const {
    options.start_method = method_;
    return procpool::Pool<Processes>(std::move(options));
  }
  [[nodiscard]] procpool::Pool<Processes> Pool(int processes) const {
    return Pool(pool_options{.processes = processes});
  }

  /// A process, see procpool::Process; not started yet.
  template <detail::target_argument F, class... A>
  [[nodiscard]] procpool::Process Process(F target, A... args) const {
    return Process(process_options{}, std::move(target), std::move(args)...);
  }
  template <class F, class... A>
  [[nodiscard]] procpool::Process Process(process_options options, F target, A... args) const {
    options.start_method = method_;
    return procpool::Process(std::move(options), std::move(target), std::move(args)...);
  }

 private:
  start_method method_;
};

/// @param method of what the context makes. Default: get_start_method(), as it is now
[[nodiscard]] inline Context get_context(std::optional<start_method> method = std::nullopt) {
  return Context(method.has_value() ? *method : get_start_method());
}

}  // namespace procpool
