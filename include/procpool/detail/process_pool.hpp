// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// What is behind a pool of processes, put together: included at the end of pool.hpp, or compiled
/// once (PROCPOOL_COMPILED).
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <memory>
#include <utility>

#include <procpool/detail/pool_core.hpp>
#include <procpool/detail/pool_front.hpp>
#include <procpool/detail/pool_settings.hpp>
#include <procpool/detail/process_backend.hpp>
#include <procpool/options.hpp>

namespace procpool::detail {

template <class Backend>
boost::intrusive_ptr<pool_front> start_pool(const pool_options& options,
                                            std::shared_ptr<const initializer_frame> initializer) {
  return new pool_core<Backend>(settings_of(options, std::move(initializer)));
}

#ifdef PROCPOOL_COMPILED
template boost::intrusive_ptr<pool_front> start_pool<process_backend>(
    const pool_options& options, std::shared_ptr<const initializer_frame> initializer);
#endif

}  // namespace procpool::detail
