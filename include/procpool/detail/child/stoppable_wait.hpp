// SPDX-License-Identifier: MIT
/// @file
/// Waiting for a descriptor until a stop is requested.
#pragma once

#include <poll.h>

#include <array>
#include <cerrno>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// Waits until @p descriptor is readable; false when a stop was requested first. Signals do not end
/// it. @throws ProcessError when there is no descriptor left to be woken by, or it is none any more
inline bool wait_readable(int descriptor, const stop_token& stop) {
  const event bell = event::make();
  const stop_callback wake(stop, [&bell] { bell.signal(); });
  std::array<pollfd, 2> interests{{{descriptor, POLLIN, 0}, {bell.get(), POLLIN, 0}}};
  check(retry([&] { return PROCPOOL_SYSTEM(poll(interests.data(), interests.size(), -1)); }),
        "cannot wait for a process (poll)");
  if ((interests[0].revents & POLLNVAL) != 0) {  // that would look like its end
    throw_errno("cannot wait for a process, its descriptor has been closed by other code", EBADF);
  }
  return interests[0].revents != 0;
}

}  // namespace procpool::detail::os
