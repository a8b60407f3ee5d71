// SPDX-License-Identifier: MIT
/// @file
/// What the copies of a Listener share. The implementation is in listener_socket.hpp.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include <procpool/detail/connection/handshake.hpp>
#include <procpool/detail/os/fd.hpp>

namespace procpool::detail {

class listener_state {
 public:
  listener_state(std::string address, int backlog, credentials own);
  listener_state(const listener_state&) = delete;
  listener_state& operator=(const listener_state&) = delete;
  ~listener_state() { close(); }

  /// @returns the descriptor of a connection that has been authenticated
  [[nodiscard]] int accept();
  [[nodiscard]] int number() const;
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  [[nodiscard]] const std::string& last_accepted() const noexcept { return last_accepted_; }
  void close() noexcept;

 private:
  void start(int backlog);

  std::string address_;
  std::string directory_;  ///< made for the socket, removed with it; empty: none
  const credentials own_;
  std::atomic<int> number_{-1};
  std::uint32_t generation_;  ///< of the process that made it, which removes the file
  bool has_file_ = false;
  std::string last_accepted_;
};

/// @returns the descriptor of a connection that has been authenticated
[[nodiscard]] int connect_to(const std::string& address, const credentials& own);

}  // namespace procpool::detail
