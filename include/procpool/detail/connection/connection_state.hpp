// SPDX-License-Identifier: MIT
/// @file
/// What the copies of a Connection share: the descriptor, and messages on their way through it. The
/// implementation is in connection_io.hpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail {

/// One thread may send while another one receives: each direction has members of its own.
class connection_state {
 public:
  static constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

  connection_state(os::fd end, bool readable, bool writable) noexcept
      : number_(end.release()), readable_(readable), writable_(writable) {}
  connection_state(const connection_state&) = delete;
  connection_state& operator=(const connection_state&) = delete;
  ~connection_state() { close(); }

  /// An empty buffer to put a message into. It has room in front for what send_message() adds.
  [[nodiscard]] byte_buffer& new_message();
  /// Sends what was put into new_message(), and descriptors along with it.
  void send_message(std::span<const int> descriptors);
  void send(std::span<const std::byte> message);

  /// Receives a message, which stays there until the next call of a receive function.
  /// @param along gets the descriptors that came with it; null: they are closed
  [[nodiscard]] std::span<const std::byte> receive(std::size_t most = no_limit,
                                                   std::vector<os::fd>* along = nullptr);
  [[nodiscard]] std::vector<std::byte> receive_bytes(std::size_t most);
  [[nodiscard]] std::size_t receive_into(std::span<std::byte> room);

  /// Sends and receives descriptors, as messages of one byte of their own (Python:
  /// multiprocessing.reduction.sendfds, recvfds).
  void send_descriptors(std::span<const int> descriptors);
  [[nodiscard]] std::vector<os::fd> receive_descriptors(std::size_t count);

  [[nodiscard]] bool poll(const os::deadline& until);

  /// The descriptor. @throws std::logic_error when it is closed
  [[nodiscard]] int number() const;
  [[nodiscard]] bool closed() const noexcept {
    return number_.load(std::memory_order_relaxed) < 0;  // guards no other data
  }
  [[nodiscard]] bool readable() const noexcept { return readable_ && broken_ == nullptr; }
  [[nodiscard]] bool writable() const noexcept { return writable_; }
  /// Gives the descriptor up without closing it.
  [[nodiscard]] int release() noexcept {
    return number_.exchange(-1, std::memory_order_relaxed);  // guards no other data
  }
  void close() noexcept {
    os::fd(number_.exchange(-1, std::memory_order_relaxed)).reset();  // likewise
  }

 private:
  [[nodiscard]] int number_to_send() const;
  [[nodiscard]] int number_to_receive() const;
  [[nodiscard]] std::size_t receive_length(std::vector<os::fd>* along);
  void receive_exactly(std::byte* to, std::size_t size, const char* part);
  void receive_body(std::size_t size);

  std::atomic<int> number_;  // atomic: close() by another thread is no race, but a bad idea
  const bool readable_;
  const bool writable_;
  const char* broken_ = nullptr;  ///< why the next message cannot be found any more
  byte_buffer outgoing_;
  byte_buffer incoming_;
};

/// Two sockets that are connected to each other. @throws ProcessError
[[nodiscard]] std::pair<os::fd, os::fd> connected_pair();

/// Waits until at least one of the descriptors is readable, or has an error or no peer any more.
/// @param ready set for each descriptor. @returns how many are ready; 0: @p until came first
/// @throws ProcessError: EBADF if one is not open
std::size_t wait_for_descriptors(std::span<const int> numbers, std::vector<bool>& ready,
                                 const os::deadline& until);

}  // namespace procpool::detail
