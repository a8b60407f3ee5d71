// SPDX-License-Identifier: MIT
/// @file
/// The control socket between a pool and its fork server: a connected pair that keeps message
/// boundaries and carries descriptors (unix(7), SOCK_SEQPACKET and SCM_RIGHTS).
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

inline constexpr std::size_t max_passed_fds = 4;

/// The result of sending or receiving a message.
enum class transfer { message, nothing_yet, hang_up };

/// One end of the pair. Each direction carries trivially copyable structs of one type.
class message_socket {
 public:
  message_socket() noexcept = default;
  explicit message_socket(fd end) noexcept : fd_(std::move(end)) {}

  [[nodiscard]] static std::pair<message_socket, message_socket> make_pair() {
    std::array<int, 2> ends{};
    check(PROCPOOL_SYSTEM(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data())),
          "cannot create the control socket of the pool (socketpair)");
    fd first(ends[0]);
    fd second(ends[1]);
    return {message_socket(off_stdio(std::move(first))),
            message_socket(off_stdio(std::move(second)))};
  }

  /// Sends one message with copies of @p descriptors; blocks until there is room.
  /// @returns false when the peer has closed its end or has died
  /// @throws ProcessError when the system refuses for another reason
  template <class Message>
  bool send(const Message& message, std::span<const int> descriptors = {}) const {
    return transmit(message, descriptors, MSG_NOSIGNAL) == transfer::message;
  }

  /// Sends one message if there is room now. @throws ProcessError like send()
  template <class Message>
  transfer try_send(const Message& message) const {
    return transmit(message, {}, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  /// The same for messages that may be lost: errors are ignored.
  template <class Message>
  void send_if_possible(const Message& message) const noexcept {
    try {
      try_send(message);
    } catch (const ProcessError&) {
    }
  }

  /// Receives one message and its descriptors; those beyond RLIMIT_NOFILE are dropped. Blocks
  /// unless @p dont_wait.
  /// @throws ProcessError when the system refuses
  template <class Message>
  transfer receive(Message& message, std::array<fd, max_passed_fds>* descriptors = nullptr,
                   bool dont_wait = false) const {
    static_assert(std::is_trivially_copyable_v<Message>);
    iovec part{.iov_base = &message, .iov_len = sizeof message};
    control_space control{};
    msghdr head{};
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    if (descriptors != nullptr) {  // without this buffer the kernel drops descriptors
      head.msg_control = control.bytes;
      head.msg_controllen = sizeof control.bytes;
    }
    const int flags = MSG_CMSG_CLOEXEC | (dont_wait ? MSG_DONTWAIT : 0);
    const auto got = retry([&] { return PROCPOOL_SYSTEM(recvmsg(fd_.get(), &head, flags)); });
    if (got == -1) return failed("cannot receive from the control socket of the pool (recvmsg)");
    if (descriptors != nullptr) detach(head, *descriptors);
    return got == static_cast<ssize_t>(sizeof message) ? transfer::message : transfer::hang_up;
  }

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  void reset() noexcept { fd_.reset(); }
  /// Ends sending. The peer sees end of file even if other processes hold copies of this end: a
  /// process that another thread forks at this moment may keep one for ever. The peer's last
  /// messages can still be received. If shutdown(2) is refused, closes the socket instead.
  void hang_up() noexcept {
    if (fd_ && PROCPOOL_SYSTEM(shutdown(fd_.get(), SHUT_WR)) != 0) fd_.reset();
  }

 private:
  struct alignas(cmsghdr) control_space {
    char bytes[CMSG_SPACE(max_passed_fds * sizeof(int))];
  };

  // Translates errno.
  static transfer failed(const char* operation) {
    if (errno == EAGAIN) return transfer::nothing_yet;
    if (errno == EPIPE || errno == ECONNRESET) return transfer::hang_up;
    throw_errno(operation);
  }

  template <class Message>
  transfer transmit(const Message& message, std::span<const int> descriptors, int flags) const {
    static_assert(std::is_trivially_copyable_v<Message>);
    iovec part{.iov_base = const_cast<Message*>(&message), .iov_len = sizeof message};
    control_space control{};
    msghdr head{};
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    if (!descriptors.empty()) attach(head, control, descriptors);
    const auto sent = retry([&] { return PROCPOOL_SYSTEM(sendmsg(fd_.get(), &head, flags)); });
    if (sent == static_cast<ssize_t>(sizeof message)) return transfer::message;
    return failed("cannot send to the control socket of the pool (sendmsg)");
  }

  static void attach(msghdr& head, control_space& control, std::span<const int> descriptors) {
    head.msg_control = control.bytes;
    head.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    auto* rights = reinterpret_cast<cmsghdr*>(control.bytes);  // as CMSG_FIRSTHDR, but never null
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }

  static void detach(msghdr& head, std::array<fd, max_passed_fds>& descriptors) {
    cmsghdr* rights = CMSG_FIRSTHDR(&head);
    if (rights == nullptr || rights->cmsg_type != SCM_RIGHTS) return;
    const std::size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count && i < max_passed_fds; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(rights) + i * sizeof(int), sizeof number);
      descriptors[i] = off_stdio(fd(number));
    }
  }

  fd fd_;
};

}  // namespace procpool::detail::os
