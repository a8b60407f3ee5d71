// SPDX-License-Identifier: MIT
/// @file
/// Reading from and writing to a stream (a socket, or a pipe), as often as it takes: signals, short
/// transfers and descriptors that do not block are no concern of the caller.
#pragma once

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <system_error>

#include <procpool/config.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Waits until a descriptor that does not block can be used again.
inline void wait_until_usable(int descriptor, short events) {
  pollfd interest{descriptor, events, 0};
  os::check(os::retry([&] { return PROCPOOL_SYSTEM(ppoll(&interest, 1, nullptr, nullptr)); }),
            "cannot wait for a Connection (ppoll)");
}

/// Reads at least one byte. @returns 0 when the peer has closed its end, or has died
/// @throws ProcessError
inline std::size_t read_some(int descriptor, std::byte* to, std::size_t size) {
  while (true) {
    const auto got = os::retry([&] { return PROCPOOL_SYSTEM(read(descriptor, to, size)); });
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == ECONNRESET) return 0;
    if (errno != EAGAIN) os::throw_errno("cannot receive from a Connection (read)");
    wait_until_usable(descriptor, POLLIN);
  }
}

/// Keeps a write(2) to a pipe without reader from raising SIGPIPE in the calling thread.
class no_sigpipe {
 public:
  no_sigpipe() {
    sigset_t pending;
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    PROCPOOL_SYSTEM(sigpending(&pending));
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    PROCPOOL_SYSTEM(pthread_sigmask(SIG_BLOCK, &pipe_, &before_));
  }
  no_sigpipe(const no_sigpipe&) = delete;
  no_sigpipe& operator=(const no_sigpipe&) = delete;
  ~no_sigpipe() {
    const int error = errno;
    constexpr timespec at_once{};
    if (!was_pending_) {
      os::retry([&] { return PROCPOOL_SYSTEM(sigtimedwait(&pipe_, nullptr, &at_once)); });
    }
    PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &before_, nullptr));
    errno = error;
  }

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

/// For a descriptor that is no socket.
inline ssize_t write_to_pipe(int descriptor, std::span<const iovec> parts) {
  const no_sigpipe guard;
  return PROCPOOL_SYSTEM(writev(descriptor, parts.data(), static_cast<int>(parts.size())));
}

/// One attempt. @returns -1 with errno
inline ssize_t write_some(int descriptor, std::span<iovec> parts) {
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  const auto sent = PROCPOOL_SYSTEM(sendmsg(descriptor, &message, MSG_NOSIGNAL));
  return sent == -1 && errno == ENOTSOCK ? write_to_pipe(descriptor, parts) : sent;
}

[[noreturn]] inline void throw_unsent(int error = errno) {
  const std::error_code code(error, std::generic_category());
  if (error == EPIPE || error == ECONNRESET)
    throw BrokenPipeError("cannot send: the peer of the Connection has closed it", code);
  throw ProcessError("cannot send through a Connection (sendmsg)", code);
}

/// Writes everything. @throws BrokenPipeError, ProcessError
inline void write_all(int descriptor, std::span<iovec> parts) {
  while (!parts.empty()) {
    const auto sent = os::retry([&] { return write_some(descriptor, parts); });
    if (sent == -1 && errno == EAGAIN) {
      wait_until_usable(descriptor, POLLOUT);
      continue;
    }
    if (sent == -1) throw_unsent();
    auto left = static_cast<std::size_t>(sent);
    while (!parts.empty() && left >= parts.front().iov_len) {
      left -= parts.front().iov_len;
      parts = parts.subspan(1);
    }
    if (parts.empty()) return;
    parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + left;
    parts.front().iov_len -= left;
  }
}

}  // namespace procpool::detail
