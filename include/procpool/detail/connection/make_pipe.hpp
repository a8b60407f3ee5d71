// SPDX-License-Identifier: MIT
/// @file
/// The implementation of Pipe().
#pragma once

#include <sys/socket.h>

#include <array>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

// Sockets in any case: only they can be written to without SIGPIPE, and pass descriptors.
PROCPOOL_FUNCTION std::pair<os::fd, os::fd> connected_pair() {
  std::array<int, 2> ends{};
  os::check(PROCPOOL_SYSTEM(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data())),
            "cannot create a Pipe (socketpair)");
  os::fd first(ends[0]);
  os::fd second(ends[1]);
  first = os::off_stdio(std::move(first));
  return {std::move(first), os::off_stdio(std::move(second))};
}

}  // namespace procpool::detail
