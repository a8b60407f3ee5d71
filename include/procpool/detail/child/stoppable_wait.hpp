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

/// Waits until @p descriptor is readable; false if a stop was requested first. Restarts after
/// signals. @throws ProcessError if no eventfd can be created, or other code closed the descriptor
inline bool wait_readable(int descriptor, const stop_token& stop) {
  const event stop_event = event::make();
  const stop_callback wake(stop, [&stop_event] { stop_event.signal(); });
  std::array<pollfd, 2> interests{{{descriptor, POLLIN, 0}, {stop_event.get(), POLLIN, 0}}};
  check(retry([&] { return PROCPOOL_SYSTEM(poll(interests.data(), interests.size(), -1)); }),
        "cannot wait for a process (poll)");
  if ((interests[0].revents & POLLNVAL) != 0) {  // else it would look as if the process had ended
    throw_errno("cannot wait for a process, its descriptor has been closed by other code", EBADF);
  }
  return interests[0].revents != 0;
}

}  // namespace procpool::detail::os
