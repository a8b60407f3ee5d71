// SPDX-License-Identifier: MIT
/// @file
/// Descriptors beside the bytes of a stream (unix(7), SCM_RIGHTS). They come with the first byte
/// of what they were sent with; who reads that byte by read(2) does not get them.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/connection/stream.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// The most descriptors in one message (SCM_MAX_FD of the kernel).
inline constexpr std::size_t max_descriptors = 253;

/// Memory for the descriptors of one message.
struct alignas(cmsghdr) ancillary_space {
  char bytes[CMSG_SPACE(max_descriptors * sizeof(int))];  // not zeroed: a kilobyte for each message
};

/// Lets @p message carry descriptors. @throws std::length_error for too many
inline void attach(msghdr& message, ancillary_space& space, std::span<const int> descriptors) {
  if (descriptors.size() > max_descriptors) {
    throw std::length_error(concat({descriptors.size(),
                                    " descriptors in one message, which has "
                                    "room for ",
                                    max_descriptors}));
  }
  if (descriptors.empty()) return;
  message.msg_control = space.bytes;
  message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
  auto* rights = reinterpret_cast<cmsghdr*>(space.bytes);  // as CMSG_FIRSTHDR, but never null
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
}

/// Takes the descriptors that have come with @p message.
inline void detach(msghdr& message, std::vector<os::fd>& into) {
  cmsghdr* each = CMSG_FIRSTHDR(&message);
  if (each == nullptr) return;
  into.reserve(into.size() + max_descriptors);  // if memory ran out later, some would be lost
  for (; each != nullptr; each = CMSG_NXTHDR(&message, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(each) + i * sizeof(int), sizeof number);
      into.emplace_back(number);
    }
  }
}

/// As read_some(), and takes the descriptors that come along.
inline std::size_t read_some(int descriptor, std::byte* to, std::size_t size,
                             std::vector<os::fd>& along) {
  ancillary_space space;
  iovec part{to, size};
  while (true) {
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space.bytes;
    message.msg_controllen = sizeof space.bytes;
    const auto got =
        os::retry([&] { return PROCPOOL_SYSTEM(recvmsg(descriptor, &message, MSG_CMSG_CLOEXEC)); });
    if (got >= 0) {
      detach(message, along);
      return static_cast<std::size_t>(got);
    }
    if (errno == ENOTSOCK) return read_some(descriptor, to, size);
    if (errno == ECONNRESET) return 0;
    if (errno != EAGAIN) os::throw_errno("cannot receive from a Connection (recvmsg)");
    wait_until_usable(descriptor, POLLIN);
  }
}

/// Writes everything, with the descriptors along. @throws BrokenPipeError, ProcessError
inline void write_all(int descriptor, std::span<const std::byte> bytes,
                      std::span<const int> along) {
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  if (!along.empty()) {
    ancillary_space space{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    attach(message, space, along);
    ssize_t sent = -1;
    while ((sent = os::retry([&] {
              return PROCPOOL_SYSTEM(sendmsg(descriptor, &message, MSG_NOSIGNAL));
            })) == -1) {
      if (errno != EAGAIN) throw_unsent();
      wait_until_usable(descriptor, POLLOUT);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
    part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    if (bytes.empty()) return;
  }
  write_all(descriptor, {&part, 1});
}

}  // namespace procpool::detail
