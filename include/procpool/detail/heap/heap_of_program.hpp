// SPDX-License-Identifier: MIT
/// @file
/// For pools and processes: the shared heap must exist before they fork or spawn.
#pragma once

#include <memory>

#include <procpool/config.hpp>
#include <procpool/detail/os/fd.hpp>

namespace procpool::detail {

class shared_heap;

/// The heap of this program, made if there is none. It exists as long as a pool, a process, or an
/// object in it, and in children until they end. Null when the system refuses memory or
/// descriptors: then children cannot receive shared objects, and say so. Any thread.
[[nodiscard]] std::shared_ptr<shared_heap> use_heap() noexcept;

/// For a spawned process: enters the heap whose descriptors its parent has given it.
/// @throws ProcessError when it cannot be mapped
void join_heap(os::fd file, os::fd store_in, os::fd store_out);

}  // namespace procpool::detail
