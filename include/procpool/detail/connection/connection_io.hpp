// SPDX-License-Identifier: MIT
/// @file
/// Messages through a Connection: the implementation of connection_state.hpp.
///
/// What a peer says about the length of a message is believed only as far as bytes arrive: memory
/// grows with them. After a message whose end is not known the rest of the stream has no meaning:
/// nothing more is received.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/connection/ancillary.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/message_head.hpp>
#include <procpool/detail/connection/stream.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Room for a head before a message, which keeps the message aligned for its encoding.
inline constexpr std::size_t room_for_head = byte_buffer::alignment;
static_assert(room_for_head >= max_head_size);

/// A buffer that was larger for one message is not kept.
inline constexpr std::size_t kept_buffer = std::size_t{1} << 20;

/// How much memory a message gets before its bytes arrive.
inline constexpr std::size_t trusted_size = std::size_t{1} << 20;

PROCPOOL_FUNCTION int connection_state::number() const {
  const int number = number_.load(std::memory_order_relaxed);  // guards no other data
  if (number < 0) throw std::logic_error("the Connection is closed");
  return number;
}

PROCPOOL_FUNCTION int connection_state::number_to_send() const {
  const int number = this->number();
  if (!writable_) throw std::logic_error("the Connection is for receiving only");
  return number;
}

PROCPOOL_FUNCTION int connection_state::number_to_receive() const {
  const int number = this->number();
  if (!readable_) throw std::logic_error("the Connection is for sending only");
  if (broken_ != nullptr) throw std::logic_error(broken_);
  return number;
}

PROCPOOL_FUNCTION byte_buffer& connection_state::new_message() {
  static_cast<void>(number_to_send());
  if (outgoing_.capacity() > kept_buffer) outgoing_ = byte_buffer();
  outgoing_.resize_uninitialized(room_for_head);
  return outgoing_;
}

PROCPOOL_FUNCTION void connection_state::send_message(std::span<const int> descriptors) {
  const message_head head = head_of(outgoing_.size() - room_for_head);
  std::byte* const begin = outgoing_.data() + room_for_head - head.size;
  std::memcpy(begin, head.bytes.data(), head.size);
  write_all(number_to_send(), {begin, outgoing_.size() - room_for_head + head.size}, descriptors);
}

PROCPOOL_FUNCTION void connection_state::send(std::span<const std::byte> message) {
  const int number = number_to_send();
  message_head head = head_of(message.size());
  std::array<iovec, 2> parts{iovec{head.bytes.data(), head.size},
                             iovec{const_cast<std::byte*>(message.data()), message.size()}};
  write_all(number, parts);
}

PROCPOOL_FUNCTION void connection_state::receive_exactly(std::byte* to, std::size_t size,
                                                         const char* part) {
  const int number = this->number();
  for (std::size_t there = 0; there < size;) {
    const std::size_t got = read_some(number, to + there, size - there);
    if (got == 0) {
      broken_ = nullptr;  // the next one meets the end, too
      throw EOFError(concat({"the peer has closed the Connection in the middle of ", part, ": ",
                             there, " of ", size, " bytes arrived"}));
    }
    there += got;
  }
}

PROCPOOL_FUNCTION std::size_t connection_state::receive_length(std::vector<os::fd>* along) {
  const int number = number_to_receive();
  std::array<std::byte, 8> bytes{};
  const std::size_t first = along != nullptr ? read_some(number, bytes.data(), 4, *along)
                                             : read_some(number, bytes.data(), 4);
  if (first == 0) throw EOFError("the peer has closed the Connection");
  broken_ = "the Connection was broken off in the middle of a message";
  if (first < 4) receive_exactly(bytes.data() + first, 4 - first, "a message's length");
  std::int64_t length = short_length(bytes.data());
  if (length == -1) {
    receive_exactly(bytes.data(), bytes.size(), "a message's length");
    length = long_length(bytes.data());
  }
  if (length < 0) {
    broken_ = "the Connection has received what is no message";
    throw DecodeError(concat({"not a message: its length would be ", length}), 0);
  }
  return static_cast<std::size_t>(length);
}

PROCPOOL_FUNCTION void connection_state::receive_body(std::size_t size) {
  if (incoming_.capacity() > kept_buffer) incoming_ = byte_buffer();
  incoming_.clear();
  for (std::size_t there = 0; there < size;) {
    const std::size_t next = std::min(size - there, std::max(there, trusted_size));
    incoming_.resize_uninitialized(there + next);
    receive_exactly(incoming_.data() + there, next, "a message");
    there += next;
  }
  broken_ = nullptr;
}

PROCPOOL_FUNCTION std::span<const std::byte> connection_state::receive(std::size_t most,
                                                                       std::vector<os::fd>* along) {
  const std::size_t size = receive_length(along);
  if (size > most) {
    broken_ = "the Connection has received a message that was too long";
    throw ProcessError(
        concat({"a message of ", size, " bytes, where at most ", most, " were expected"}),
        std::error_code(EMSGSIZE, std::generic_category()));
  }
  receive_body(size);
  return incoming_.view();
}

PROCPOOL_FUNCTION std::vector<std::byte> connection_state::receive_bytes(std::size_t most) {
  const auto message = receive(most);
  return {message.begin(), message.end()};
}

PROCPOOL_FUNCTION std::size_t connection_state::receive_into(std::span<std::byte> room) {
  const std::size_t size = receive_length(nullptr);
  if (size <= room.size()) {
    receive_exactly(room.data(), size, "a message");
    broken_ = nullptr;
    return size;
  }
  receive_body(size);
  throw BufferTooShort(
      concat({"a message of ", size, " bytes does not fit into ", room.size(), " bytes"}),
      {incoming_.data(), incoming_.data() + incoming_.size()});
}

/// ppoll(2), again after each signal.
PROCPOOL_FUNCTION int poll_until(std::span<pollfd> interests, const os::deadline& until) {
  return os::check(os::retry([&] {
                     const timespec left = until ? os::time_left(*until) : timespec{};
                     return PROCPOOL_SYSTEM(ppoll(interests.data(), interests.size(),
                                                  until ? &left : nullptr, nullptr));
                   }),
                   "cannot wait for descriptors (ppoll)");
}

[[noreturn]] PROCPOOL_FUNCTION void throw_not_open(int number) {
  throw ProcessError(concat({"cannot wait for descriptor ", number}),
                     std::error_code(EBADF, std::generic_category()));
}

PROCPOOL_FUNCTION bool connection_state::poll(const os::deadline& until) {
  pollfd interest{number_to_receive(), POLLIN, 0};
  const bool ready = poll_until({&interest, 1}, until) != 0;
  if ((interest.revents & POLLNVAL) != 0) throw_not_open(interest.fd);
  return ready;
}

// ------------------------------------------------------------------------------- descriptors

// A byte with their number, and the descriptors beside it.
PROCPOOL_FUNCTION void connection_state::send_descriptors(std::span<const int> descriptors) {
  const auto count = static_cast<std::byte>(descriptors.size());
  write_all(number_to_send(), {&count, 1}, descriptors);
}

PROCPOOL_FUNCTION std::vector<os::fd> connection_state::receive_descriptors(std::size_t count) {
  std::byte told{};
  std::vector<os::fd> found;
  if (read_some(number_to_receive(), &told, 1, found) == 0)
    throw EOFError("the peer has closed the Connection");
  if (found.size() != count || std::to_integer<std::size_t>(told) != count) {
    throw ProcessError(concat({count, " descriptors were expected and ", found.size(),
                               " received: the peer has sent others, or too many are open here"}));
  }
  for (os::fd& each : found) each = os::off_stdio(std::move(each));
  return found;
}

// ------------------------------------------------------------------------------- waiting

PROCPOOL_FUNCTION std::size_t wait_for_descriptors(std::span<const int> numbers,
                                                   std::vector<bool>& ready,
                                                   const os::deadline& until) {
  std::vector<pollfd> interests(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) interests[i] = {numbers[i], POLLIN, 0};
  const int count = poll_until(interests, until);
  ready.assign(numbers.size(), false);
  for (std::size_t i = 0; i < numbers.size() && count > 0; ++i) {
    if ((interests[i].revents & POLLNVAL) != 0) throw_not_open(numbers[i]);
    ready[i] = interests[i].revents != 0;
  }
  return static_cast<std::size_t>(count);
}

}  // namespace procpool::detail
